//! Units. Money, energy and power are integers in a fixed unit, each its own type, so that a ledger never meets a
//! float and joules are never added to watts.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Deserialize, Deserializer, Serialize};

/// The largest magnitude that a JSON number carries exactly into JavaScript: 2⁵³ − 1.
pub const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

macro_rules! unit {
    ($(#[$meta:meta])* $name:ident, $per_main:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "number"))]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// Nothing of it.
            pub const ZERO: Self = Self(0);

            /// The sum, or `None` past the range of 64 bits.
            #[must_use]
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// The sum, held at the range of 64 bits.
            #[must_use]
            pub fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }

            /// The value in the main unit, for display only.
            #[must_use]
            #[expect(clippy::cast_precision_loss, reason = "display only")]
            pub fn to_main_unit(self) -> f64 {
                self.0 as f64 / $per_main
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                let value = i64::deserialize(de)?;
                if !(-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&value) {
                    return Err(serde::de::Error::custom(format_args!("{value} is outside ±(2^53 − 1)")));
                }
                Ok(Self(value))
            }
        }

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self { Self(self.0 + other.0) }
        }
        impl Sub for $name {
            type Output = Self;
            fn sub(self, other: Self) -> Self { Self(self.0 - other.0) }
        }
        impl Neg for $name {
            type Output = Self;
            fn neg(self) -> Self { Self(-self.0) }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) { self.0 += other.0; }
        }
        impl SubAssign for $name {
            fn sub_assign(&mut self, other: Self) { self.0 -= other.0; }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self { iter.fold(Self::ZERO, Add::add) }
        }
    };
}

unit! {
    /// Money on a hub, in millionths of a credit. A credit has no value in any currency unless a host sets one.
    MicroCredits, 1e6
}
unit! {
    /// Energy, in thousandths of a joule. 1 Wh = 3,600,000 mJ.
    Millijoules, 1e3
}
unit! {
    /// Power, in thousandths of a watt.
    Milliwatts, 1e3
}
unit! {
    /// A moment, in milliseconds since 1970-01-01 00:00 UTC.
    UnixMillis, 1e3
}
unit! {
    /// A price, in micro-credits a million tokens: `1_000_000` is one credit a million tokens.
    Price, 1e6
}

impl Price {
    /// The dearest price anyone may set: a thousand credits a thousand tokens.
    pub const MAX: Self = Self(1_000_000_000_000);

    /// What `tokens` cost: ⌈tokens × price / 10⁶⌉, computed in 128 bits and held at the range of 64.
    #[must_use]
    pub fn cost(self, tokens: u64) -> MicroCredits {
        let exact = i128::from(tokens) * i128::from(self.0.max(0));
        let whole = (exact + 999_999) / 1_000_000;
        MicroCredits(i64::try_from(whole).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for MicroCredits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        let (whole, part) = (abs / 1_000_000, abs % 1_000_000);
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{part:06}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// How a figure is known. Every energy and money figure that a person sees carries one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Read from a sensor over a window long enough for the sensor.
    Measured,
    /// Derived from a model, or from a window too short for the sensor.
    Estimated,
    /// Nothing here measures it.
    #[default]
    Unknown,
}

impl Label {
    /// As people read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Estimated => "estimated",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_rounds_up_and_never_overflows() {
        assert_eq!(Price(1).cost(1), MicroCredits(1));
        assert_eq!(Price(1_000_000).cost(7), MicroCredits(7));
        assert_eq!(Price(1_500_000).cost(3), MicroCredits(5));
        assert_eq!(Price(0).cost(u64::MAX), MicroCredits(0));
        assert_eq!(Price::MAX.cost(u64::MAX), MicroCredits(i64::MAX));
    }

    #[test]
    fn integers_that_javascript_would_round_are_rejected() {
        assert!(serde_json::from_str::<MicroCredits>("9007199254740991").is_ok());
        assert!(serde_json::from_str::<MicroCredits>("9007199254740992").is_err());
        assert!(serde_json::from_str::<Millijoules>("1.5").is_err());
        // Has no absolute value in 64 bits.
        assert!(serde_json::from_str::<UnixMillis>("-9223372036854775808").is_err());
    }

    #[test]
    fn credits_read_as_people_write_them() {
        assert_eq!(MicroCredits(1_250_000).to_string(), "1.25");
        assert_eq!(MicroCredits(-1).to_string(), "-0.000001");
        assert_eq!(MicroCredits(3_000_000).to_string(), "3");
    }
}
