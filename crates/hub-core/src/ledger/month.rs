//! Months: what each account gave and took, and the statement that it gets of it.
//!
//! Sums of one account in one month (UTC), added to in the same write as the postings and receipts they come from; the
//! balance at the end of a month is the sum of all months up to it. What an account's own nodes answered for itself is
//! neither given nor taken, and costs nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use idlewatt_protocol::receipt::{Energy, Receipt};
use idlewatt_protocol::{MicroCredits, Millijoules, UnixMillis};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{AccountName, Posting, Purpose};
use crate::settle::measured;

/// A calendar month, UTC, of the years 1970 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i32,
    month: u8,
}

/// Why a text is no month.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no month: write it like 2026-11")]
pub struct MonthError(String);

impl Month {
    /// The month of a moment, held at the years there are.
    #[must_use]
    pub fn of(at: UnixMillis) -> Self {
        // Days to a civil date: years begin in March, so that the leap day is their last; eras of 400 years have 146,097 days.
        let days = at.0.div_euclid(24 * 60 * 60 * 1000).clamp(0, 2_932_896) + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let march_based = (5 * day + 2) / 153;
        let (month, turned) = if march_based < 10 { (march_based + 3, 0) } else { (march_based - 9, 1) };
        Self {
            year: i32::try_from(era * 400 + year + turned).unwrap_or(9999),
            month: u8::try_from(month).unwrap_or(12),
        }
    }
}

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || MonthError(text.chars().take(32).collect());
        let (year, month) = text.split_once('-').ok_or_else(error)?;
        let digits = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(error());
        }
        let it =
            Self { year: year.parse().map_err(|_| error())?, month: month.parse().map_err(|_| error())? };
        if it.year >= 1970 && (1..=12).contains(&it.month) { Ok(it) } else { Err(error()) }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl fmt::Debug for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Month {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(de)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The sums of one account in one month. All but `granted_ucr` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests of the account that got a receipt, own nodes' answers included.
    pub requests: i64,
    /// Prompt tokens that others' nodes answered.
    pub taken_in: i64,
    /// Completion tokens of others' nodes.
    pub taken_out: i64,
    /// Tokens, both kinds, that the account's own nodes answered for itself.
    pub own_tokens: i64,
    /// Prompt tokens that its nodes answered for others.
    pub given_in: i64,
    /// Completion tokens that its nodes made for others.
    pub given_out: i64,
    /// Energy of what was given, as the nodes' sensors measured it; kept up to 2⁵³ − 1.
    pub measured_mj: Millijoules,
    /// Of `given_out`, the tokens whose energy was measured: the rest is not in `measured_mj`.
    pub measured_out: i64,
    /// What it paid for requests.
    pub paid_ucr: MicroCredits,
    /// What it got for requests; the hub's fees, for the fee account.
    pub earned_ucr: MicroCredits,
    /// Grants from `issuance` less what went back; negative for `issuance` itself.
    pub granted_ucr: MicroCredits,
}

impl Tally {
    /// Every sum with its name, for what keeps and checks them.
    #[must_use]
    pub fn sums(&self) -> [(&'static str, i64); 11] {
        [
            ("requests", self.requests),
            ("taken_in", self.taken_in),
            ("taken_out", self.taken_out),
            ("own_tokens", self.own_tokens),
            ("given_in", self.given_in),
            ("given_out", self.given_out),
            ("measured_mj", self.measured_mj.0),
            ("measured_out", self.measured_out),
            ("paid", self.paid_ucr.0),
            ("earned", self.earned_ucr.0),
            ("granted", self.granted_ucr.0),
        ]
    }

    /// A tally of these sums, in the order of [`sums`](Self::sums).
    #[must_use]
    pub fn of_sums(sums: [i64; 11]) -> Self {
        let [
            requests,
            taken_in,
            taken_out,
            own_tokens,
            given_in,
            given_out,
            measured,
            measured_out,
            paid,
            earned,
            granted,
        ] = sums;
        Self {
            requests,
            taken_in,
            taken_out,
            own_tokens,
            given_in,
            given_out,
            measured_mj: Millijoules(measured),
            measured_out,
            paid_ucr: MicroCredits(paid),
            earned_ucr: MicroCredits(earned),
            granted_ucr: MicroCredits(granted),
        }
    }

    /// Adds another's sums.
    pub fn add(&mut self, other: &Self) {
        let mut sums = [0; 11];
        for ((sum, (_, mine)), (_, others)) in sums.iter_mut().zip(self.sums()).zip(other.sums()) {
            *sum = mine.saturating_add(others);
        }
        *self = Self::of_sums(sums);
    }

    /// What the month did to the balance.
    #[must_use]
    pub fn net(&self) -> MicroCredits {
        self.earned_ucr.saturating_add(self.granted_ucr).saturating_add(-self.paid_ucr)
    }
}

/// Sums to be added, by account and month.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallies(BTreeMap<(AccountName, Month), Tally>);

impl Tallies {
    /// Adds the money of a posting.
    pub fn post(&mut self, posting: &Posting) {
        let month = Month::of(posting.at);
        for credit in &posting.credits {
            let receiver = self.of(&credit.to, month);
            match posting.purpose {
                Purpose::Request => receiver.earned_ucr += credit.amount,
                Purpose::Grant => receiver.granted_ucr += credit.amount,
            }
            let payer = self.of(&posting.from, month);
            match posting.purpose {
                Purpose::Request => payer.paid_ucr += credit.amount,
                Purpose::Grant => payer.granted_ucr -= credit.amount,
            }
        }
    }

    /// Adds the tokens of a receipt: `hosts` are the accounts that its segments' nodes earned for, `energy` what each node
    /// says it took, both in the order of the segments.
    pub fn answer(
        &mut self,
        consumer: &AccountName,
        receipt: &Receipt,
        hosts: &[AccountName],
        energy: &[Option<Energy>],
    ) {
        let month = Month::of(receipt.issued);
        self.of(consumer, month).requests += 1;
        for (i, (segment, host)) in receipt.segments.iter().zip(hosts).enumerate() {
            // The prompt counts once, as it is paid once.
            let prompt = if i == 0 { i64::from(segment.usage.prompt) } else { 0 };
            let completion = i64::from(segment.usage.completion);
            if host == consumer {
                self.of(consumer, month).own_tokens += prompt + completion;
                continue;
            }
            let taker = self.of(consumer, month);
            taker.taken_in += prompt;
            taker.taken_out += completion;
            let giver = self.of(host, month);
            giver.given_in += prompt;
            giver.given_out += completion;
            let energy = energy.get(i).and_then(Option::as_ref);
            if let Some(total) = energy.and_then(|energy| measured(energy, receipt.started, receipt.issued)) {
                giver.measured_mj = giver.measured_mj.saturating_add(total);
                giver.measured_out += completion;
            }
        }
    }

    /// Every account and month with its sums.
    pub fn iter(&self) -> impl Iterator<Item = (&AccountName, Month, &Tally)> {
        self.0.iter().map(|((account, month), tally)| (account, *month, tally))
    }

    /// The sums of one account in one month, zero at first.
    pub fn of(&mut self, account: &AccountName, month: Month) -> &mut Tally {
        self.0.entry((account.clone(), month)).or_default()
    }
}

/// What one account is told of one month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Whose.
    pub account: AccountName,
    /// Its group now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<AccountName>,
    /// Which month, UTC.
    pub month: Month,
    /// The balance when it began.
    pub opening_ucr: MicroCredits,
    /// What was given and taken.
    #[serde(flatten)]
    pub tally: Tally,
    /// The balance when it ended, or now.
    pub closing_ucr: MicroCredits,
    /// What this hub granted out of nothing so far: the balance of `issuance`, the only account that may be negative
    /// without limit. 0 in a circle that only settles among its members.
    pub issuance_ucr: MicroCredits,
}

/// The columns of [`Statement::csv_row`]. Amounts are credits, energy is kWh, with six decimals.
pub const CSV_HEAD: &str = "account,group,month,opening_credits,earned_credits,paid_credits,granted_credits,\
                            closing_credits,tokens_given,tokens_taken,tokens_own,requests,measured_kwh,\
                            completion_tokens_measured,completion_tokens_given,issuance_credits";

impl Statement {
    /// The statement as one line of CSV; names of accounts and groups need no quotes.
    #[must_use]
    pub fn csv_row(&self) -> String {
        let Self { account, group, month, opening_ucr, tally, closing_ucr, issuance_ucr } = self;
        let group = group.as_ref().map_or("", AccountName::as_str);
        format!(
            "{account},{group},{month},{opening_ucr},{},{},{},{closing_ucr},{},{},{},{},{},{},{},{issuance_ucr}",
            tally.earned_ucr,
            tally.paid_ucr,
            tally.granted_ucr,
            tally.given_in.saturating_add(tally.given_out),
            tally.taken_in.saturating_add(tally.taken_out),
            tally.own_tokens,
            tally.requests,
            kwh(tally.measured_mj),
            tally.measured_out,
            tally.given_out,
        )
    }
}

/// Kilowatt-hours with six decimals, rounded down: 1 kWh = 3.6 × 10⁹ mJ.
#[must_use]
pub fn kwh(energy: Millijoules) -> String {
    let micro = energy.0.max(0) / 3_600;
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

#[cfg(test)]
mod tests {
    use idlewatt_protocol::message::{Endpoint, Outcome};
    use idlewatt_protocol::receipt::{Segment, Signed};
    use idlewatt_protocol::{
        Artefact, Digest, Joined, Label, Price, PublicKey, RequestId, Usage, UsageSource,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::{Credit, PostingId};

    fn name(text: &str) -> AccountName {
        text.parse().unwrap()
    }

    #[test]
    fn moments_have_their_months() {
        for (at, month) in [
            (0, "1970-01"),
            (951_782_399_999, "2000-02"),
            (951_868_800_000, "2000-03"),
            (1_795_290_552_481, "2026-11"),
            (1_798_761_599_999, "2026-12"),
            (1_798_761_600_000, "2027-01"),
            (4_107_542_399_999, "2100-02"),
            (253_402_300_799_999, "9999-12"),
            (-5, "1970-01"),
            (i64::MAX, "9999-12"),
        ] {
            assert_eq!(Month::of(UnixMillis(at)).to_string(), month, "{at}");
        }
        assert_eq!("2026-11".parse::<Month>().unwrap().to_string(), "2026-11");
        for bad in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "26-11",
            "2026-1",
            "1969-12",
            "2026-11-01",
            "+026-11",
            "2026-1\u{7}",
        ] {
            assert!(bad.parse::<Month>().is_err(), "{bad:?}");
        }
    }

    /// Answered by one node in two seconds, with eight tokens.
    fn receipt() -> Receipt {
        let artefact = Artefact {
            model: "m".into(),
            quantisation: None,
            digest: None,
            engine: "e".into(),
            engine_build: None,
        };
        let segment = Segment {
            node: PublicKey([1; 32]),
            artefact,
            joined: Joined::Single,
            usage: Usage { prompt: 3, completion: 8, source: UsageSource::Server },
            earned: MicroCredits(11),
            statement: Signed::Unsigned("node lost".into()),
        };
        Receipt {
            id: RequestId([2; 16]),
            hub: PublicKey([3; 32]),
            consumer: "c".into(),
            model: "m".into(),
            endpoint: Endpoint::ChatCompletions,
            outcome: Outcome::Complete,
            salt_digest: Digest([4; 32]),
            also_asked: Vec::new(),
            request_commitment: Digest([5; 32]),
            response_commitment: Digest([6; 32]),
            segments: vec![segment],
            joined: Joined::Single,
            price: Price(1_000_000),
            cost: MicroCredits(11),
            fee: MicroCredits::ZERO,
            verification: "declared".into(),
            started: UnixMillis(1_000),
            issued: UnixMillis(3_000),
            previous: None,
        }
    }

    #[test]
    fn energy_that_no_machine_draws_in_that_time_is_not_measured() {
        let given = |mj| {
            let energy =
                Energy { total_mj: Some(Millijoules(mj)), label: Label::Measured, ..Energy::default() };
            let (mut tallies, ben) = (Tallies::default(), name("ben"));
            tallies.answer(&name("anna"), &receipt(), std::slice::from_ref(&ben), &[Some(energy)]);
            *tallies.of(&ben, Month::of(receipt().issued))
        };
        // 3 s of 200 kW: the two that it took, and one for meters that are late.
        for (mj, measured) in [
            (5_000, Some(5_000)),
            (600_000_000, Some(600_000_000)),
            (600_000_001, None),
            (1 << 53, None),
            (-1, None),
        ] {
            let tally = given(mj);
            assert_eq!((tally.given_out, tally.measured_mj.0), (8, measured.unwrap_or(0)), "{mj}");
            assert_eq!(tally.measured_out, measured.map_or(0, |_| 8), "{mj}");
        }
    }

    #[test]
    fn kilowatt_hours_are_exact_and_rounded_down() {
        assert_eq!(kwh(Millijoules(3_600_000_000)), "1.000000");
        assert_eq!(kwh(Millijoules(3_599)), "0.000000");
        assert_eq!(kwh(Millijoules(5_000_000)), "0.001388");
    }

    #[test]
    fn a_statement_is_one_line_of_its_table() {
        let tally = Tally {
            requests: 3,
            taken_in: 10,
            taken_out: 20,
            given_in: 1,
            given_out: 2,
            measured_mj: Millijoules(7_200_000),
            measured_out: 2,
            paid_ucr: MicroCredits(2_500_000),
            earned_ucr: MicroCredits(500_000),
            ..Tally::default()
        };
        let statement = Statement {
            account: name("anna"),
            group: Some(name("home")),
            month: "2026-11".parse().unwrap(),
            opening_ucr: MicroCredits(-1_000_000),
            tally,
            closing_ucr: MicroCredits(-3_000_000),
            issuance_ucr: MicroCredits::ZERO,
        };
        assert_eq!(statement.csv_row(), "anna,home,2026-11,-1,0.5,2.5,0,-3,3,30,0,3,0.002000,2,2,0");
        assert_eq!(CSV_HEAD.split(',').count(), statement.csv_row().split(',').count());
        let json = serde_json::to_value(&statement).unwrap();
        assert_eq!((&json["month"], &json["paid_ucr"]), (&"2026-11".into(), &2_500_000.into()));
        assert_eq!(serde_json::from_value::<Statement>(json).unwrap(), statement);
    }

    proptest! {
        /// Whatever is posted, every balance is the sum of its months, and all months together are zero.
        #[test]
        fn months_add_up_to_balances(
            postings in prop::collection::vec((0i64..1 << 41, any::<bool>(), 0usize..4, 0usize..4, 1i64..1 << 40), 0..60),
        ) {
            let accounts = ["a", "b", "fees", "issuance"].map(name);
            let mut tallies = Tallies::default();
            let mut balances: BTreeMap<AccountName, i64> = BTreeMap::new();
            for (at, is_request, from, to, amount) in postings {
                let (from, to) = (accounts[from].clone(), accounts[to].clone());
                *balances.entry(from.clone()).or_default() -= amount;
                *balances.entry(to.clone()).or_default() += amount;
                tallies.post(&Posting {
                    id: PostingId([1; 16]),
                    at: UnixMillis(at),
                    purpose: if is_request { Purpose::Request } else { Purpose::Grant },
                    from,
                    reserved: MicroCredits(amount),
                    credits: vec![Credit { to, amount: MicroCredits(amount) }],
                });
            }
            let mut nets: BTreeMap<AccountName, i64> = BTreeMap::new();
            for (account, _, tally) in tallies.iter() {
                *nets.entry(account.clone()).or_default() += tally.net().0;
            }
            prop_assert_eq!(nets.values().sum::<i64>(), 0);
            for (account, balance) in balances {
                prop_assert_eq!(nets.get(&account).copied().unwrap_or(0), balance);
            }
        }
    }
}
