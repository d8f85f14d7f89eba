//! Sizes and durations as people write them.

use std::time::Duration;

/// Parts a value into its number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// Bytes: a plain number, or one with B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB
/// (powers of 1024; Kubernetes' Ki, Mi, Gi, Ti too).
///
/// # Errors
/// A text that says how it is written.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let parsed = split(text).and_then(|(number, unit)| {
        let factor: u64 = match unit {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" | "Ki" => 1 << 10,
            "MiB" | "Mi" => 1 << 20,
            "GiB" | "Gi" => 1 << 30,
            "TiB" | "Ti" => 1 << 40,
            _ => return None,
        };
        number.checked_mul(factor)
    });
    parsed.ok_or_else(|| "a size is written as in 64MiB, 1GB or 4096 (bytes)".to_owned())
}

/// A duration: a plain number of seconds, or one with ms, s, m, h or d.
///
/// # Errors
/// A text that says how it is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = split(text).and_then(|(number, unit)| {
        let seconds = match unit {
            "ms" => return Some(Duration::from_millis(number)),
            "" | "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return None,
        };
        number.checked_mul(seconds).map(Duration::from_secs)
    });
    // Longer ones overflow clocks, and nobody means them.
    parsed
        .filter(|duration| *duration <= Duration::from_secs(365 * 86_400))
        .ok_or_else(|| {
            "a duration is written as in 90s, 5m, 1h or 500ms, at most a year".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("64Mi", 64 << 20),
            ("1 GB", 1_000_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "MiB",
            "-1",
            "1.5GiB",
            "64M",
            "64mib",
            "99999999TiB",
            "+5",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("0", 0),
            ("90", 90_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("500ms", 500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "-1s",
            "1.5h",
            "5y",
            "1h30m",
            "99999999999999999d",
            "1000d",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
