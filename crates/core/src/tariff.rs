//! What energy costs and what credits are worth to the host: gross, cost and net, always three numbers.
//!
//! Money is an integer in millionths of a currency's main unit. A credit has no value unless the host sets one; then,
//! and only where the energy has a price in the same currency, there is a net.

use std::fmt;
use std::str::FromStr;

use idlewatt_protocol::{MicroCredits, Millijoules};

/// Millijoules in a kilowatt-hour.
const MILLIJOULES_A_KWH: i128 = 3_600_000_000;

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

/// What a kilowatt-hour costs: `0.31 EUR/kWh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tariff(Money);

/// What a credit is worth to the host: `0.001 EUR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreditValue(Money);

/// The three numbers; each is `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Earnings {
    /// What was earned is worth.
    pub gross: Option<Money>,
    /// What the energy cost.
    pub cost: Option<Money>,
    /// Gross less cost.
    pub net: Option<Money>,
}

impl Tariff {
    /// What this much energy costs, to the nearest millionth.
    #[must_use]
    pub fn cost(&self, energy: Millijoules) -> Money {
        Money { micros: scale(self.0.micros, energy.0, MILLIJOULES_A_KWH), ..self.0 }
    }
}

impl CreditValue {
    /// What these credits are worth, to the nearest millionth.
    #[must_use]
    pub fn worth(&self, credits: MicroCredits) -> Money {
        Money { micros: scale(self.0.micros, credits.0, 1_000_000), ..self.0 }
    }
}

impl Earnings {
    /// Of what was earned and used, at a price and a value where the host set them.
    #[must_use]
    pub fn of(
        earned: MicroCredits,
        energy: Option<Millijoules>,
        tariff: Option<&Tariff>,
        value: Option<&CreditValue>,
    ) -> Self {
        let gross = value.map(|value| value.worth(earned));
        let cost = tariff.zip(energy).map(|(tariff, energy)| tariff.cost(energy));
        let net = gross.zip(cost).filter(|(gross, cost)| gross.currency == cost.currency);
        let net =
            net.map(|(gross, cost)| Money { micros: gross.micros.saturating_sub(cost.micros), ..gross });
        Self { gross, cost, net }
    }
}

/// `rate × amount / per`, to the nearest integer, held at the range of 64 bits.
fn scale(rate: i64, amount: i64, per: i128) -> i64 {
    let exact = i128::from(rate) * i128::from(amount);
    let rounded = (exact.abs() + per / 2) / per * exact.signum();
    i64::try_from(rounded).unwrap_or(if rounded < 0 { i64::MIN } else { i64::MAX })
}

/// Why a text is no price or value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {expected}")]
pub struct MoneyError {
    text: String,
    expected: &'static str,
}

impl FromStr for Tariff {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let expected =
            "price of energy (write 0.31 EUR/kWh: at most six decimals and three letters of a currency)";
        let money = text.trim().strip_suffix("/kWh").and_then(money);
        money.map(Self).ok_or_else(|| MoneyError { text: text.chars().take(40).collect(), expected })
    }
}

impl FromStr for CreditValue {
    type Err = MoneyError;
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let expected =
            "value of a credit (write 0.001 EUR: at most six decimals and three letters of a currency)";
        money(text).map(Self).ok_or_else(|| MoneyError { text: text.chars().take(40).collect(), expected })
    }
}

/// Reads `0.31 EUR`: digits, at most six decimals, a currency; not negative.
fn money(text: &str) -> Option<Money> {
    let (number, currency) = text.trim().split_once(char::is_whitespace)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > 6 || !digits(whole) || !digits(part) {
        return None;
    }
    let micros: i64 = format!("{whole}{part:0<6}").parse().ok()?;
    let letters: [u8; 3] = currency.trim().as_bytes().try_into().ok()?;
    letters.iter().all(u8::is_ascii_uppercase).then_some(Money { micros, currency: Currency(letters) })
}

impl Currency {
    /// The three letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ever made of three ASCII letters.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.micros < 0 { "-" } else { "" };
        let (whole, part) = (self.micros.unsigned_abs() / 1_000_000, self.micros.unsigned_abs() % 1_000_000);
        let part = format!("{part:06}");
        // Two decimals at least, as prices are written.
        let part = part.trim_end_matches('0');
        write!(f, "{sign}{whole}.{part:0<2} {}", self.currency.as_str())
    }
}

impl fmt::Display for Tariff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/kWh", self.0)
    }
}

impl fmt::Display for CreditValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kilowatt_hour_costs_its_price() {
        let tariff: Tariff = "0.31 EUR/kWh".parse().unwrap();
        assert_eq!(tariff.cost(Millijoules(3_600_000_000)).micros, 310_000);
        // 250 W for 8 hours.
        assert_eq!(tariff.cost(Millijoules(250 * 8 * 3_600_000)).to_string(), "0.62 EUR");
        assert_eq!(tariff.to_string().parse(), Ok(tariff));
        assert_eq!(tariff.cost(Millijoules(i64::MAX)).micros, 794_234_814_284_717);
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in [
            "",
            "0.31",
            "0.31 EUR",
            "0,31 EUR/kWh",
            "-1 EUR/kWh",
            "0.1234567 EUR/kWh",
            "1 €/kWh",
            ". EUR/kWh",
            "1 eur/kWh",
        ] {
            assert!(text.parse::<Tariff>().is_err(), "{text}");
        }
        assert!("99999999999999999999 EUR".parse::<CreditValue>().is_err());
    }

    #[test]
    fn there_is_a_net_only_where_both_sides_are_known_in_one_currency() {
        let tariff: Tariff = "0.30 EUR/kWh".parse().unwrap();
        let value: CreditValue = "0.5 EUR".parse().unwrap();
        let dollars: CreditValue = "0.5 USD".parse().unwrap();
        let (earned, used) = (MicroCredits(2_000_000), Some(Millijoules(3_600_000_000)));
        let net =
            |energy, tariff, value| Earnings::of(earned, energy, tariff, value).net.map(|net| net.micros);
        assert_eq!(net(used, Some(&tariff), Some(&value)), Some(700_000));
        assert_eq!(net(None, Some(&tariff), Some(&value)), None);
        assert_eq!(net(used, None, Some(&value)), None);
        assert_eq!(net(used, Some(&tariff), None), None);
        assert_eq!(net(used, Some(&tariff), Some(&dollars)), None);
        let loss = Earnings::of(MicroCredits::ZERO, used, Some(&tariff), Some(&value));
        assert_eq!(loss.net.unwrap().to_string(), "-0.30 EUR");
    }
}
