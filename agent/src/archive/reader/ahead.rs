//! Bytes that one thread makes and another one reads.

use super::PIECE;
use std::io::{self, Read};
use std::sync::mpsc;

/// Pieces between them.
const PIECES: usize = 8;

/// The end that makes bytes.
pub(super) struct Sender(mpsc::SyncSender<io::Result<Vec<u8>>>);

/// The end that reads them. Dropped, the other end stops with its next piece.
pub(super) struct Pieces {
    receiver: mpsc::Receiver<io::Result<Vec<u8>>>,
    current: Vec<u8>,
    at: usize,
}

/// Both ends.
pub(super) fn channel() -> (Sender, Pieces) {
    let (sender, receiver) = mpsc::sync_channel(PIECES);
    let pieces = Pieces {
        receiver,
        current: Vec::new(),
        at: 0,
    };
    (Sender(sender), pieces)
}

impl Sender {
    /// Gives all that `input` has; an error is given in its place, and is the last. False where it ended
    /// before `input` did.
    pub(super) fn send_all(&self, input: &mut impl Read) -> bool {
        loop {
            let mut piece = vec![0; PIECE];
            let read = loop {
                match input.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let (sent, more) = match read {
                Ok(0) => return true,
                Ok(bytes) => {
                    piece.truncate(bytes);
                    (self.0.send(Ok(piece)), true)
                }
                Err(error) => (self.0.send(Err(error)), false),
            };
            if sent.is_err() || !more {
                return false;
            }
        }
    }
}

impl Read for Pieces {
    /// The end is where the other end is gone: only that one knows whether it was the right place.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            match self.receiver.recv() {
                Ok(piece) => self.current = piece?,
                Err(mpsc::RecvError) => return Ok(0),
            }
            self.at = 0;
        }
        let left = &self.current[self.at..];
        let take = left.len().min(buffer.len());
        buffer[..take].copy_from_slice(&left[..take]);
        self.at += take;
        Ok(take)
    }
}
