//! Durations as people write and read them: `10m`, `90s`, `1h 30m`; "10 min".

use std::time::Duration;

/// The longest duration that a setting takes.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no duration (write 90s, 10m, 1h 30m or 0s; at most 366 days)")]
pub struct DurationError {
    text: String,
}

/// Reads `10m`, `90s`, `1h 30m`, `48h`, `0s`.
///
/// # Errors
/// Where the text is none of these, negative, or over [`LONGEST`].
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    text.trim()
        .parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| DurationError { text: text.chars().take(40).collect() })
}

/// The form that [`parse`] reads: `1h 30m`.
#[must_use]
pub fn setting(duration: Duration) -> String {
    in_units(duration, &[("h", 3_600), ("m", 60), ("s", 1)], "")
}

/// The form that people read: `1 h 30 min`.
#[must_use]
pub fn words(duration: Duration) -> String {
    in_units(duration, &[("h", 3_600), ("min", 60), ("s", 1)], " ")
}

fn in_units(duration: Duration, units: &[(&str, u64)], space: &str) -> String {
    let mut rest = duration.as_secs();
    let mut parts = Vec::new();
    for &(unit, seconds) in units {
        if rest >= seconds {
            parts.push(format!("{}{space}{unit}", rest / seconds));
            rest %= seconds;
        }
    }
    if parts.is_empty() {
        return format!("0{space}s");
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("1h 30m", 5400), (" 2h ", 7200)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "ten", "10", "-5m", "10 parsecs", "9000h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_setting_reads_back_what_it_writes() {
        for seconds in [0, 1, 60, 90, 5400, 86_400, 90_061] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(parse(&setting(duration)), Ok(duration), "{seconds}");
        }
        assert_eq!(words(Duration::from_secs(600)), "10 min");
        assert_eq!(words(Duration::from_secs(5400)), "1 h 30 min");
    }
}
