//! The outermost layer: an age file (<https://age-encryption.org/v1>) for X25519 recipients.
//!
//! Who makes archives has public keys only; identities are for who reads them.

use super::reader::ArchiveError;
use super::reader::error::{SourceError, read_error};
use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, IdentityFile, x25519};
use aws_lc_rs::{agreement, rand};
use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

/// Most recipients of one archive. Each has a line in its head and costs a key agreement.
pub const MAX_RECIPIENTS: usize = 20;

/// Begins every age file.
pub(super) const AGE_MAGIC: &[u8] = b"age-encryption.org/";

/// Begins the last line of an age file's head.
const HEAD_END: &[u8] = b"---";

/// Most bytes of a head that is read; 20 recipients take 4 KiB.
const MAX_HEAD: u64 = 64 << 10;

/// Most bytes of a file of identities that is read; one is 75 bytes.
const MAX_IDENTITY_FILE: u64 = 1 << 20;

/// A public key that an archive is encrypted to: `age1` and 58 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

/// Why a text is no recipient. It never shows the text, which may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// An identity, which opens archives.
    #[error(
        "this is a secret key, which only who restores needs: give its public key, as age-keygen -y prints it, and make a new pair if others could see it"
    )]
    Secret,
    /// Neither.
    #[error(
        "a recipient is an X25519 public key of age: age1 and 58 characters, as age-keygen -y prints it"
    )]
    Malformed,
    /// A key with which anybody could read the archive.
    #[error(
        "this key protects nothing: its shared secret is zero whoever uses it (RFC 7748, section 6.1)"
    )]
    Weak,
}

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        if looks_secret(text) {
            return Err(RecipientError::Secret);
        }
        let key: x25519::Recipient = text.parse().map_err(|_| RecipientError::Malformed)?;
        // Bech32 takes capitals and spare bits, too. One key has one spelling here.
        if key.to_string() != text {
            return Err(RecipientError::Malformed);
        }
        let (_, bytes) = bech32::decode(text).map_err(|_| RecipientError::Malformed)?;
        if !contributes(bytes) {
            return Err(RecipientError::Weak);
        }
        Ok(Self(key))
    }
}

/// Whether a text may hold a secret key of age, which is never shown again.
#[must_use]
pub fn looks_secret(text: &str) -> bool {
    let prefix = "AGE-SECRET-KEY-";
    text.as_bytes()
        .windows(prefix.len())
        .any(|part| part.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Whether a key agreement with it gives a secret; age panics where it does not.
fn contributes(public: Vec<u8>) -> bool {
    let random = rand::SystemRandom::new();
    let Ok(ours) = agreement::EphemeralPrivateKey::generate(&agreement::X25519, &random) else {
        return false;
    };
    let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, public);
    agreement::agree_ephemeral(ours, theirs, (), |_| Ok(())).is_ok()
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The way out of an archive: encrypted where there are recipients.
///
/// Dropped without `finish` it leaves the age file open, which no reader takes for whole.
pub enum Envelope<W: Write> {
    /// No recipients.
    Open(W),
    /// Only recipients can read it.
    Sealed(Box<StreamWriter<W>>),
}

impl<W: Write> Envelope<W> {
    /// Begins an age file when there are recipients.
    ///
    /// # Errors
    /// Whatever `out` gives.
    pub fn new(out: W, recipients: &[Recipient]) -> io::Result<Self> {
        if recipients.is_empty() {
            return Ok(Self::Open(out));
        }
        let recipients = recipients.iter().map(|r| &r.0 as &dyn age::Recipient);
        let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
        Ok(Self::Sealed(Box::new(encryptor.wrap_output(out)?)))
    }

    /// Ends the age file. Only for a complete archive.
    ///
    /// # Errors
    /// Whatever `out` gives.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Self::Open(out) => Ok(out),
            Self::Sealed(age) => age.finish(),
        }
    }
}

impl<W: Write> Write for Envelope<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Open(out) => out.write(data),
            Self::Sealed(age) => age.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Open(out) => out.flush(),
            Self::Sealed(age) => age.flush(),
        }
    }
}

/// Secret keys, to open archives with.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// Adds those of a file as `age-keygen` writes it: lines of `AGE-SECRET-KEY-1...`, and comments.
    ///
    /// # Errors
    /// A text that says what is wrong with the file, and shows nothing of it.
    pub fn add(&mut self, file: impl Read) -> io::Result<()> {
        let file = io::BufReader::new(file.take(MAX_IDENTITY_FILE));
        let identities = IdentityFile::from_buffer(file)?
            .into_identities()
            .map_err(io::Error::other)?;
        if identities.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "identity file has no line that begins with AGE-SECRET-KEY-1",
            ));
        }
        self.0.extend(identities);
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is in an age file. Its reads fail where the file is cut or altered.
    pub(super) fn open<R: BufRead>(
        &self,
        mut input: R,
    ) -> Result<impl Read + use<R>, ArchiveError> {
        let mut head = Vec::new();
        loop {
            let line = head.len();
            let most = MAX_HEAD.saturating_sub(line as u64);
            let read = input.by_ref().take(most).read_until(b'\n', &mut head);
            read.map_err(read_error)?;
            if head.len() == line {
                return Err(if most == 0 {
                    ArchiveError::Encryption
                } else {
                    ArchiveError::Cut
                });
            }
            if head[line..].starts_with(HEAD_END) {
                break;
            }
        }
        let refused = |error| match error {
            DecryptError::Io(error) => read_error(error),
            DecryptError::NoMatchingKeys => ArchiveError::NotForUs,
            _ => ArchiveError::Encryption,
        };
        let file = Decryptor::new_buffered(io::Cursor::new(head).chain(input)).map_err(refused)?;
        let identities = self.0.iter().map(|i| i.as_ref() as &dyn age::Identity);
        Ok(Opened(file.decrypt(identities).map_err(refused)?))
    }
}

/// What is in an age file; its faults can be told from the decoder's behind it.
struct Opened<R>(StreamReader<R>);

/// A fault of the encrypted layer.
#[derive(Debug, thiserror::Error)]
#[error("the age file does not decrypt")]
pub(super) struct EncryptionError;

impl<R: Read> Read for Opened<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| {
            let its_own = !error.get_ref().is_some_and(|e| e.is::<SourceError>());
            match error.kind() {
                io::ErrorKind::InvalidData if its_own => io::Error::other(EncryptionError),
                _ => error,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const SECRET: &str =
        "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

    fn parse(text: &str) -> Result<String, RecipientError> {
        text.parse::<Recipient>().map(|r| r.to_string())
    }

    #[test]
    fn recipients() {
        assert_eq!(parse(PUBLIC), Ok(PUBLIC.to_owned()));
        let mut changed = PUBLIC.to_owned();
        changed.replace_range(10..11, "q");
        for text in [
            "",
            "age1",
            "age1xyz",
            &PUBLIC.to_uppercase(),
            &format!("{PUBLIC} "),
            &PUBLIC[..61],
            &changed,
            "ssh-ed25519 AAAA",
            // A plug-in's.
            "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t",
        ] {
            assert_eq!(parse(text), Err(RecipientError::Malformed), "{text}");
        }
        for text in [SECRET, &SECRET.to_lowercase(), &format!("x {SECRET}")] {
            assert_eq!(parse(text), Err(RecipientError::Secret));
        }
    }

    /// Points of small order, for which age panics.
    #[test]
    fn keys_that_protect_nothing() {
        let hrp = bech32::Hrp::parse("age").unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        let order_eight =
            hex::decode("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")
                .unwrap();
        let prime = hex::decode("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
            .unwrap();
        for point in [&[0; 32][..], &one, &order_eight, &prime] {
            let text = bech32::encode::<bech32::Bech32>(hrp, point).unwrap();
            assert_eq!(parse(&text), Err(RecipientError::Weak), "{text}");
        }
    }

    #[test]
    fn identity_files() {
        let mut identities = Identities::default();
        let file = format!("# created: today\n# public key: {PUBLIC}\n{SECRET}\n");
        identities.add(file.as_bytes()).unwrap();
        assert!(!identities.is_empty());
        for file in ["", "# nothing\n", PUBLIC, &SECRET[..40]] {
            let error = identities.add(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("identity file"), "{error}");
            assert!(!error.contains("SECRET-KEY-1GQ"), "{error}");
        }
    }
}
