//! What a request comes to: who pays what to whom.

use std::str::FromStr;

use idlewatt_protocol::{MicroCredits, Price, Usage};

use super::{AccountName, Credit};

/// The hub's part of each payment, in millionths. Fees round down, in favour of the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeRate(u32);

/// Why a text is no fee.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fee: write per cent from 0 to 100 with at most 4 decimals, like 2.5")]
pub struct FeeRateError(String);

impl FeeRate {
    /// No fee: the default of a circle.
    pub const NONE: Self = Self(0);

    fn of(self, amount: MicroCredits) -> MicroCredits {
        let exact = i128::from(amount.0) * i128::from(self.0) / 1_000_000;
        MicroCredits(i64::try_from(exact).unwrap_or(i64::MAX))
    }
}

impl FromStr for FeeRate {
    type Err = FeeRateError;

    /// Reads per cent: `2.5`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || FeeRateError(text.chars().take(32).collect());
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 4 {
            return Err(error());
        }
        let millionths = format!("{whole}{part:0<4}").parse().map_err(|_| error())?;
        if millionths > 1_000_000 { Err(error()) } else { Ok(Self(millionths)) }
    }
}

/// One segment, as far as money goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The account of the node that produced it.
    pub account: AccountName,
    /// Tokens to be billed.
    pub usage: Usage,
}

/// What a request comes to. `cost` = `fee` + Σ `earned`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// What the consumer pays.
    pub cost: MicroCredits,
    /// The hub's part.
    pub fee: MicroCredits,
    /// What each segment's account gets, in the order of the segments; 0 for the consumer's own.
    pub earned: Vec<MicroCredits>,
}

/// Bills the segments of one request. The consumer pays the prompt once, in the first segment, and never more than was
/// reserved; a segment by the consumer's own account costs nothing. What later segments read anew, the prompt and what was
/// delivered before, the hub pays out of its fee for this request as far as that reaches: never out of what others paid,
/// or two nodes that hand answers to each other could empty its account.
#[must_use]
pub fn bill(
    consumer: &AccountName,
    price: Price,
    rate: FeeRate,
    reserved: MicroCredits,
    segments: &[Share],
) -> Bill {
    let (mut cost, mut fee) = (MicroCredits::ZERO, MicroCredits::ZERO);
    let mut earned = Vec::with_capacity(segments.len());
    for (i, segment) in segments.iter().enumerate() {
        if segment.account == *consumer {
            earned.push(MicroCredits::ZERO);
            continue;
        }
        let prompt = if i == 0 { segment.usage.prompt } else { 0 };
        let gross = price.cost(u64::from(prompt) + u64::from(segment.usage.completion));
        // What was delivered before a node was lost is only estimated, and a later count may pass the limit.
        let gross = gross.min(reserved - cost);
        let hubs = rate.of(gross);
        cost = cost.saturating_add(gross);
        fee = fee.saturating_add(hubs);
        earned.push(gross - hubs);
    }
    for (segment, earned) in segments.iter().zip(&mut earned).skip(1) {
        if segment.account != *consumer {
            let read_anew = price.cost(segment.usage.prompt.into()).min(fee);
            *earned = earned.saturating_add(read_anew);
            fee -= read_anew;
        }
    }
    Bill { cost, fee, earned }
}

impl Bill {
    /// The lines of the posting that pays it; empty when nothing moves.
    #[must_use]
    pub fn credits(&self, segments: &[Share]) -> Vec<Credit> {
        let shares = segments.iter().map(|segment| segment.account.clone()).zip(self.earned.iter().copied());
        shares
            .chain([(AccountName::fees(), self.fee)])
            .filter(|(_, amount)| *amount > MicroCredits::ZERO)
            .map(|(to, amount)| Credit { to, amount })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use idlewatt_protocol::UsageSource;

    fn share(account: &str, prompt: u32, completion: u32) -> Share {
        let usage = Usage { prompt, completion, source: UsageSource::Server };
        Share { account: account.parse().unwrap(), usage }
    }

    fn consumer() -> AccountName {
        "me".parse().unwrap()
    }

    #[test]
    fn own_nodes_cost_nothing() {
        let bill =
            bill(&consumer(), Price(1_000_000), FeeRate::NONE, MicroCredits(99), &[share("me", 10, 10)]);
        assert_eq!(bill, Bill { cost: MicroCredits(0), fee: MicroCredits(0), earned: vec![MicroCredits(0)] });
        assert!(bill.credits(&[share("me", 10, 10)]).is_empty());
    }

    #[test]
    fn cost_rounds_up_and_fees_round_down() {
        let bill =
            bill(&consumer(), Price(1_500_000), FeeRate(333_333), MicroCredits(99), &[share("a", 1, 2)]);
        assert_eq!(
            (bill.cost, bill.fee, bill.earned[0]),
            (MicroCredits(5), MicroCredits(1), MicroCredits(4))
        );
    }

    #[test]
    fn the_prompt_is_paid_once() {
        let segments = [share("a", 100, 5), share("b", 105, 7)];
        let bill = bill(&consumer(), Price(1_000_000), FeeRate::NONE, MicroCredits(999), &segments);
        assert_eq!(bill.earned, [MicroCredits(105), MicroCredits(7)]);
    }

    #[test]
    fn what_is_read_anew_is_paid_out_of_the_fee_as_far_as_it_reaches() {
        let of = |prompt| {
            let segments =
                [share("a", 100, 100), share("b", prompt, 100), share("me", 300, 9), share("c", 90, 0)];
            bill(&consumer(), Price(1_000_000), FeeRate(500_000), MicroCredits(999), &segments)
        };
        let paid = of(120);
        assert_eq!((paid.cost, paid.fee), (MicroCredits(300), MicroCredits(0)));
        assert_eq!(paid.earned, [MicroCredits(100), MicroCredits(170), MicroCredits(0), MicroCredits(30)]);
        assert_eq!(of(10).fee, MicroCredits(50));
    }

    #[test]
    fn a_bill_never_passes_what_was_reserved() {
        let segments = [share("a", 10, 6), share("b", 16, 6)];
        let bill = bill(&consumer(), Price(1_000_000), FeeRate::NONE, MicroCredits(20), &segments);
        assert_eq!((bill.cost, bill.earned), (MicroCredits(20), vec![MicroCredits(16), MicroCredits(4)]));
    }

    #[test]
    fn fees_are_read_as_per_cent() {
        assert_eq!("2.5".parse(), Ok(FeeRate(25_000)));
        assert_eq!("0".parse(), Ok(FeeRate::NONE));
        assert_eq!("100".parse(), Ok(FeeRate(1_000_000)));
        for bad in ["", "-1", "100.0001", "1.23456", "2,5", ".5", "5."] {
            assert!(bad.parse::<FeeRate>().is_err(), "{bad}");
        }
    }
}
