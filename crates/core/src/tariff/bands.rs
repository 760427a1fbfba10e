//! A tariff that the host writes down: one price, and bands of the week with prices of their own.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Currency, Decimal, Money, Prices, Rate, micros};
use crate::windows::ShareWindows;

/// The dearest and the cheapest kilowatt-hour, in millionths: a million of the main unit, for currencies of small units.
const MOST: i64 = 1_000_000_000_000;

/// What a kilowatt-hour costs: `0.31 EUR/kWh`, or `0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Sun 0.25`.
///
/// The first price holds where no band does. Of bands that hold at once the first counts. Bands are written as share
/// windows are, in local time, and meet changes of the clocks as these do: a band that begins or ends in an hour that
/// does not exist does so at the moment of the change; in an hour that comes twice, at its first coming. So a night's
/// band covers a repeated hour both times, and no moment is without a price or has two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tariff {
    base: Money,
    bands: Vec<Band>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Band {
    windows: ShareWindows,
    /// A kilowatt-hour, in millionths.
    micros: i64,
}

impl Tariff {
    /// The one currency of all its prices.
    #[must_use]
    pub const fn currency(&self) -> Currency {
        self.base.currency
    }
}

impl Prices for Tariff {
    fn rate(&self, at: Timestamp, zone: &TimeZone) -> Option<Rate> {
        // Looked at again after a day at most: a band may begin on any later one.
        let mut until = at.saturating_add(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MAX);
        let mut price = None;
        for band in &self.bands {
            for (start, end) in band.windows.spans(at, zone, 1) {
                if start <= at && at < end {
                    price = price.or(Some(band.micros));
                }
                until = [start, end].into_iter().filter(|change| *change > at).fold(until, Timestamp::min);
            }
        }
        Some(Rate { price: Money { micros: price.unwrap_or(self.base.micros), ..self.base }, until })
    }
}

/// Why a text is no tariff. Positions count characters from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "at character {position}: {problem} (write `0.31 EUR/kWh`, or `0.31 EUR/kWh; Mon-Fri 22:00-06:00 0.22; Sat-Sun 0.25`)"
)]
pub struct TariffError {
    /// Where.
    pub position: usize,
    /// What is wrong there.
    pub problem: String,
}

impl FromStr for Tariff {
    type Err = TariffError;

    fn from_str(text: &str) -> Result<Self, TariffError> {
        let mut parts = Vec::new();
        let mut position = 1;
        for part in text.split(';') {
            parts.push(Part { text: part, position }.trimmed());
            position += part.chars().count() + 1;
        }
        let mut parts = parts.into_iter();
        let base = parts.next().unwrap_or(Part { text: "", position: 1 }).base()?;
        Ok(Self { base, bands: parts.map(Part::band).collect::<Result<_, _>>()? })
    }
}

/// A part of the text, and where it begins.
#[derive(Clone, Copy)]
struct Part<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Part<'a> {
    fn trimmed(self) -> Self {
        let text = self.text.trim_start();
        let position = self.position + self.text.chars().count() - text.chars().count();
        Self { text: text.trim_end(), position }
    }

    /// What comes before the last word, and the last word.
    fn last_word(self) -> (Self, Self) {
        let start = self.text.rfind(char::is_whitespace).map_or(0, |at| at + 1);
        let (before, word) = self.text.split_at(start);
        let position = self.position + before.chars().count();
        (Self { text: before.trim_end(), ..self }, Self { text: word, position })
    }

    /// `0.31 EUR/kWh`
    fn base(self) -> Result<Money, TariffError> {
        let Some(money) = self.text.strip_suffix("/kWh").map(str::trim_end) else {
            return Err(self.wrong("a price with its currency and /kWh must be here"));
        };
        let (number, currency) = Self { text: money, ..self }.last_word();
        let letters = Currency::read(currency.text);
        let currency =
            letters.ok_or_else(|| currency.wrong("a currency is three capital letters, such as EUR"))?;
        Ok(Money { micros: number.price()?, currency })
    }

    /// `Mon-Fri 22:00-06:00 0.22`
    fn band(self) -> Result<Band, TariffError> {
        let (when, price) = self.last_word();
        let micros = price.price()?;
        let windows = ShareWindows::weekly(when.text, when.position)
            .map_err(|error| TariffError { position: error.position, problem: error.problem })?;
        Ok(Band { windows, micros })
    }

    fn price(self) -> Result<i64, TariffError> {
        if self.text.contains(',') {
            return Err(self.wrong("a price is written with a point, such as 0.22"));
        }
        let price = micros(self.text).filter(|price| (-MOST..=MOST).contains(price));
        price.ok_or_else(|| {
            self.wrong("a price must be here, such as 0.22: at most six decimals, from -1000000 to 1000000")
        })
    }

    fn wrong(self, problem: &str) -> TariffError {
        TariffError { position: self.position, problem: problem.to_owned() }
    }
}

impl fmt::Display for Tariff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/kWh", self.base)?;
        self.bands.iter().try_for_each(|band| write!(f, "; {} {}", band.windows, Decimal(band.micros)))
    }
}
