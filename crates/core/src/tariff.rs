//! What energy costs and what credits are worth to the host: gross, cost and net, always three numbers.
//!
//! Money is an integer in millionths of a currency's main unit. Energy costs what it cost in the moment in which it was
//! used: [`Prices`] says what holds when, and a later price changes nothing that was kept. A credit has no value unless
//! the host sets one; then, and only where the energy has a price in the same currency, there is a net.
//!
//! Not here: grid fees by month or by peak, and taxes. What the host writes is the whole price.

mod bands;

use std::fmt;
use std::str::FromStr;

use idlewatt_protocol::{MicroCredits, Millijoules};
use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use bands::{Tariff, TariffError};

/// Millijoules in a kilowatt-hour.
const MILLIJOULES_A_KWH: i128 = 3_600_000_000;

/// Billionths in a millionth.
const NANOS_A_MICRO: i64 = 1_000;

/// An amount in millionths of the main unit of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    /// Millionths.
    pub micros: i64,
    /// Which currency.
    pub currency: Currency,
}

/// Three letters of ISO 4217: `EUR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Currency([u8; 3]);

/// What some energy cost, fine enough to be added up: a second of a few watts costs less than a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Billionths of the main unit. Negative where the price was.
    pub nanos: i64,
    /// Which currency.
    pub currency: Currency,
}

/// What a kilowatt-hour costs, and how long that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// A kilowatt-hour. Negative where one is paid for using it.
    pub price: Money,
    /// It holds at least until then.
    pub until: Timestamp,
}

/// Who knows what energy costs when: today a [`Tariff`], one day a list of hourly prices.
pub trait Prices {
    /// What holds at this moment where the clocks show `zone`; `None` where it is not known.
    fn rate(&self, at: Timestamp, zone: &TimeZone) -> Option<Rate>;

    /// What energy cost that was used evenly from one moment to another. Over a change of the price each part has its
    /// own. `None` where a part has no price, or two have one in different currencies.
    fn cost(&self, energy: Millijoules, from: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Cost> {
        let whole = until.duration_since(from).as_nanos();
        let mut rate = self.rate(from, zone)?;
        let mut sum = Cost { nanos: 0, currency: rate.price.currency };
        let (mut at, mut counted) = (from, 0);
        while at < rate.until && rate.until < until {
            at = rate.until;
            let upto = share(energy.0, at.duration_since(from).as_nanos(), whole);
            sum = sum.plus(rate.cost(Millijoules(upto - counted)))?;
            counted = upto;
            rate = self.rate(at, zone)?;
        }
        sum.plus(rate.cost(Millijoules(energy.0 - counted)))
    }
}

impl Rate {
    /// What this much energy costs, to the nearest billionth.
    #[must_use]
    pub fn cost(&self, energy: Millijoules) -> Cost {
        let exact = i128::from(self.price.micros) * i128::from(NANOS_A_MICRO) * i128::from(energy.0);
        Cost { nanos: rounded(exact, MILLIJOULES_A_KWH), currency: self.price.currency }
    }
}

impl Cost {
    fn plus(self, other: Self) -> Option<Self> {
        let nanos = self.nanos.saturating_add(other.nanos);
        (self.currency == other.currency).then_some(Self { nanos, ..self })
    }

    /// As it is shown, to the nearest millionth.
    #[must_use]
    pub fn money(&self) -> Money {
        Money { micros: rounded(self.nanos.into(), NANOS_A_MICRO.into()), currency: self.currency }
    }
}

impl Money {
    /// Reads the price of a kilowatt-hour: `0.25 EUR/kWh`.
    #[must_use]
    pub fn of_kilowatt_hour(text: &str) -> Option<Self> {
        let (number, letters) =
            text.trim().strip_suffix("/kWh")?.trim_end().split_once(char::is_whitespace)?;
        Some(Self { micros: micros(number)?, currency: Currency::read(letters.trim())? })
    }

    /// What is left when `cost` is taken from it; `None` between two currencies.
    #[must_use]
    pub fn less(&self, cost: &Self) -> Option<Self> {
        let micros = self.micros.saturating_sub(cost.micros);
        (self.currency == cost.currency).then_some(Self { micros, ..*self })
    }
}

/// What a credit is worth to the host: `0.001 EUR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditValue(Money);

impl CreditValue {
    /// What these credits are worth, to the nearest millionth.
    #[must_use]
    pub fn worth(&self, credits: MicroCredits) -> Money {
        let exact = i128::from(self.0.micros) * i128::from(credits.0);
        Money { micros: rounded(exact, 1_000_000), ..self.0 }
    }
}

/// Whether tokens earn at least what their energy costs at this rate: what some tokens earned, against the energy that
/// the same tokens took. `None` where the credits are valued in another currency.
#[must_use]
pub fn profitable(
    earned: MicroCredits,
    energy: Millijoules,
    rate: &Rate,
    value: &CreditValue,
) -> Option<bool> {
    value.worth(earned).less(&rate.cost(energy).money()).map(|net| net.micros >= 0)
}

/// `exact / per`, to the nearest integer, held at the range of 64 bits.
fn rounded(exact: i128, per: i128) -> i64 {
    let nearest = (exact.abs() + per / 2) / per * exact.signum();
    i64::try_from(nearest).unwrap_or(if nearest < 0 { i64::MIN } else { i64::MAX })
}

/// The part of `amount` that belongs to `part` of a `whole` above zero.
fn share(amount: i64, part: i128, whole: i128) -> i64 {
    i64::try_from(i128::from(amount) * part / whole).unwrap_or(amount)
}

/// Why a text is no value of a credit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no value of a credit (write 0.001 EUR: at most six decimals and three letters of a currency)"
)]
pub struct CreditValueError(String);

impl FromStr for CreditValue {
    type Err = CreditValueError;
    fn from_str(text: &str) -> Result<Self, CreditValueError> {
        let read = || {
            let (number, letters) = text.trim().split_once(char::is_whitespace)?;
            let micros = micros(number).filter(|micros| *micros >= 0)?;
            Some(Money { micros, currency: Currency::read(letters.trim())? })
        };
        read().map(Self).ok_or_else(|| CreditValueError(text.chars().take(40).collect()))
    }
}

/// A decimal number in millionths, exactly: digits, at most six of them decimals, and perhaps a minus.
fn micros(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['-', '−']);
    let (whole, part) = unsigned.unwrap_or(text).split_once('.').unwrap_or((unsigned.unwrap_or(text), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !digits(whole) || !digits(part) {
        return None;
    }
    let micros: i64 = format!("{whole}{part:0<6}").parse().ok()?;
    Some(if unsigned.is_some() { -micros } else { micros })
}

impl Currency {
    /// Of three capital letters.
    #[must_use]
    pub fn read(letters: &str) -> Option<Self> {
        let letters: [u8; 3] = letters.as_bytes().try_into().ok()?;
        letters.iter().all(u8::is_ascii_uppercase).then_some(Self(letters))
    }

    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ever made of three ASCII letters.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Decimal(self.micros), self.currency.as_str())
    }
}

/// Millionths as a decimal number.
struct Decimal(i64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 1_000_000, self.0.unsigned_abs() % 1_000_000);
        let part = format!("{part:06}");
        // Two decimals at least, as prices are written.
        let part = part.trim_end_matches('0');
        write!(f, "{sign}{whole}.{part:0<2}")
    }
}

impl fmt::Display for CreditValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
