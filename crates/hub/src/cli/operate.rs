//! The operator's commands as words: each becomes one [`Command`] of the admin door.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use idlewatt_hub::admin::Command;
use idlewatt_hub::store::Whom;
use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_hub_core::ledger::{AccountName, Month};
use idlewatt_protocol::{MicroCredits, Scope};

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a key; it is shown once and only its hash is kept
    Create {
        /// Whose; made where missing
        #[arg(long, value_name = "NAME")]
        account: AccountName,
        /// Credits to grant from issuance
        #[arg(long, default_value = "0", value_parser = credits, value_name = "N")]
        credits: MicroCredits,
        #[command(flatten)]
        limits: Limits,
    },
    /// Every key's first characters, limits and spending
    List,
    /// Set what a key may do, at once; what is not named is not limited
    Limit {
        /// Its first characters, as `key list` shows them
        key: String,
        #[command(flatten)]
        limits: Limits,
    },
    /// Make a key that takes another's place, with its limits
    Rotate {
        /// The old one's first characters, as `key list` shows them
        key: String,
        /// How long the old one goes on, such as 24h or 7d; without it, it ends at once
        #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
        grace: Duration,
    },
    /// Revoke a key, at once: what runs for it is broken off
    Revoke {
        /// Its first characters, as `key list` shows them
        key: String,
    },
}

/// What a key may do.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// At most so many requests in any minute
    #[arg(long, value_name = "N")]
    requests: Option<u32>,
    /// At most so many tokens, of prompts and answers, in any minute
    #[arg(long, value_name = "N")]
    tokens: Option<u32>,
    /// At most so many credits a day (UTC)
    #[arg(long, value_parser = credits, value_name = "N")]
    spend: Option<MicroCredits>,
    /// This model only, and others so named; without its quantisation, each of them
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// Whose nodes may answer: own, circle, or public
    #[arg(long, default_value_t)]
    scope: Scope,
}

impl From<Limits> for KeyLimits {
    fn from(it: Limits) -> Self {
        Self {
            requests_per_minute: it.requests,
            tokens_per_minute: it.tokens,
            spend_per_day_ucr: it.spend,
            models: Some(it.models).filter(|models| !models.is_empty()),
            scope: it.scope,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Invite {
    /// Make an invite: for one node, or one browser, for 24 hours
    Create {
        /// Whom the node will earn for; made where missing
        #[arg(long, value_name = "NAME")]
        account: AccountName,
        /// Put the account into this group
        #[arg(long)]
        group: Option<AccountName>,
        /// The node only earns: its host's own endpoint may not spend the account's credits
        #[arg(long)]
        earn_only: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Account {
    /// Every account, the hub's own included
    List,
    /// One account
    Show {
        /// Which
        account: AccountName,
    },
    /// Grant credits from issuance; a negative amount takes them back
    Credit {
        /// To whom
        account: AccountName,
        /// How many credits
        #[arg(value_parser = credits, allow_hyphen_values = true)]
        credits: MicroCredits,
    },
    /// Let an account ask for nothing, and break off what runs for it
    Suspend {
        /// Which
        account: AccountName,
    },
    /// Let a suspended account ask again
    Resume {
        /// Which
        account: AccountName,
    },
    /// Have a host's nodes refuse somebody's requests
    Refuse {
        /// The host
        account: AccountName,
        #[command(flatten)]
        whom: Who,
    },
    /// Have a host's nodes answer somebody again
    Accept {
        /// The host
        account: AccountName,
        #[command(flatten)]
        whom: Who,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Who {
    /// One account
    #[arg(long, value_name = "NAME")]
    from: Option<AccountName>,
    /// Everybody of a group
    #[arg(long, value_name = "GROUP")]
    from_group: Option<AccountName>,
}

impl Who {
    fn whom(self) -> Option<Whom> {
        self.from.map(Whom::Account).or(self.from_group.map(Whom::Group))
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Group {
    /// Make a group
    Create {
        /// Its name
        group: AccountName,
        /// Credits that each member may owe
        #[arg(long, default_value = "0", value_parser = credits, value_name = "N")]
        overdraft: MicroCredits,
    },
    /// Put an account into a group, out of the one it was in
    Add {
        /// Which group
        group: AccountName,
        /// Which account
        account: AccountName,
        /// Credits that it may owe, where not as many as the others
        #[arg(long, value_parser = credits, value_name = "N")]
        overdraft: Option<MicroCredits>,
    },
    /// Take an account that owes nothing out of a group
    Remove {
        /// Which group
        group: AccountName,
        /// Which account
        account: AccountName,
    },
    /// Set how many credits every member may owe
    Limit {
        /// Which group
        group: AccountName,
        /// Credits
        #[arg(value_parser = credits)]
        overdraft: MicroCredits,
    },
    /// Every group
    List,
    /// One group, its members, and what each owes
    Show {
        /// Which
        group: AccountName,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// An address that opens it once, within ten minutes, on this machine
    Link,
}

#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// Every node that ever joined
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum Strangers {
    /// Whether this hub is open to strangers
    Show,
    /// Open it: accounts of no group share with nobody unless a host offers a service to all
    Allow,
    /// Close it: accounts of no group share with everyone on this hub
    Forbid,
}

#[derive(Debug, Args)]
pub(super) struct Statement {
    /// Whose; without it, everyone's
    account: Option<AccountName>,
    /// Which month, such as 2026-11 [default: this one, UTC]
    #[arg(long)]
    month: Option<Month>,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub(super) csv: bool,
}

#[derive(Debug, Args)]
pub(super) struct Backup {
    /// An empty folder, or one to be made; a hub can be started on it
    folder: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Audit {
    /// So many of the newest entries
    #[arg(long, default_value_t = 100, value_name = "N")]
    last: u32,
}

impl From<Key> for Command {
    fn from(it: Key) -> Self {
        match it {
            Key::Create { account, credits, limits } => {
                Self::KeyCreate { account, credits, limits: limits.into() }
            }
            Key::List => Self::KeyList,
            Key::Limit { key, limits } => Self::KeyLimit { key, limits: limits.into() },
            Key::Rotate { key, grace } => Self::KeyRotate { key, grace_s: grace.as_secs() },
            Key::Revoke { key } => Self::KeyRevoke { key },
        }
    }
}

impl From<Invite> for Command {
    fn from(it: Invite) -> Self {
        let Invite::Create { account, group, earn_only } = it;
        Self::InviteCreate { account, spends: !earn_only, group }
    }
}

impl From<Account> for Command {
    fn from(it: Account) -> Self {
        match it {
            Account::List => Self::AccountList,
            Account::Show { account } => Self::AccountShow { account },
            Account::Credit { account, credits } => Self::AccountCredit { account, credits },
            Account::Suspend { account } => Self::AccountSuspend { account },
            Account::Resume { account } => Self::AccountResume { account },
            Account::Refuse { account, whom } => match whom.whom() {
                Some(whom) => Self::AccountRefuse { account, whom },
                None => Self::AccountShow { account },
            },
            Account::Accept { account, whom } => match whom.whom() {
                Some(whom) => Self::AccountAccept { account, whom },
                None => Self::AccountShow { account },
            },
        }
    }
}

impl From<Group> for Command {
    fn from(it: Group) -> Self {
        match it {
            Group::Create { group, overdraft } => Self::GroupCreate { group, overdraft },
            Group::Add { group, account, overdraft } => Self::GroupAdd { group, account, overdraft },
            Group::Remove { group, account } => Self::GroupRemove { group, account },
            Group::Limit { group, overdraft } => Self::GroupLimit { group, overdraft },
            Group::List => Self::GroupList,
            Group::Show { group } => Self::GroupShow { group },
        }
    }
}

impl From<Node> for Command {
    fn from(Node::List: Node) -> Self {
        Self::NodeList
    }
}

impl From<Strangers> for Command {
    fn from(it: Strangers) -> Self {
        match it {
            Strangers::Show => Self::StrangersShow,
            Strangers::Allow => Self::StrangersSet { are_let_in: true },
            Strangers::Forbid => Self::StrangersSet { are_let_in: false },
        }
    }
}

impl From<Statement> for Command {
    fn from(Statement { account, month, .. }: Statement) -> Self {
        Self::Statement { account, month }
    }
}

impl Backup {
    /// The hub that makes it may stand in another folder.
    pub(super) fn command(self) -> std::io::Result<Command> {
        Ok(Command::Backup { folder: std::path::absolute(self.folder)? })
    }
}

impl From<Audit> for Command {
    fn from(Audit { last }: Audit) -> Self {
        Self::Audit { most: last }
    }
}

/// Reads credits as people write them: `10`, `2.5`, at most six decimals.
fn credits(text: &str) -> Result<MicroCredits, String> {
    let error = || format!("{text:?} is no amount of credits: write it like 10 or 2.5, at most six decimals");
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(part) || part.len() > 6 || whole.len() > 9 {
        return Err(error());
    }
    let micro: i64 = format!("{whole}{part:0<6}").parse().map_err(|_| error())?;
    Ok(MicroCredits(sign * micro))
}

/// Reads a duration: a whole number and s, m, h or d, at most 90 days.
fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is no duration: write it like 30m, 24h or 7d, at most 90d");
    let number = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match text.strip_prefix(number) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => return Err(error()),
    };
    let is_plain = (1..=8).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let seconds = number.parse::<u64>().ok().filter(|_| is_plain).map(|number| number * unit);
    seconds.filter(|it| *it <= 90 * 86_400).map(Duration::from_secs).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credits_are_read_as_people_write_them() {
        assert_eq!(credits("10"), Ok(MicroCredits(10_000_000)));
        assert_eq!(credits("2.5"), Ok(MicroCredits(2_500_000)));
        assert_eq!(credits("-0.000001"), Ok(MicroCredits(-1)));
        for bad in ["", "-", "1e3", "1.0000001", "1,5", "+1", "9999999999", ".5", "1."] {
            assert!(credits(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        for bad in ["", "h", "24", "1w", "-1h", "1.5h", "91d", "999999999h", "1hh", "1h\u{7}"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
