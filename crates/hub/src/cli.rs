//! The command line of `idlewatt-hub`. Results go to stdout, as text or with `--json` as JSON and nothing else; all that
//! goes wrong goes to stderr as what happened, what it means and what to do.

mod text;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use idlewatt_hub::admin::{Command as AdminCommand, CommandError, perform_on};
use idlewatt_hub::serve::{Network, ServeOptions, serve};
use idlewatt_hub::store::{OpenError, check_folder, default_folder};
use idlewatt_hub_core::ledger::{AccountName, FeeRate};
use idlewatt_protocol::MicroCredits;
use url::Url;

use text::{check_text, json, text};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed; stderr says why
  2  the command line is wrong
  3  ledger check found a breach
  4  the data folder is in use, not writable, full, damaged, or of a newer version
  5  the address to listen on is in use";

/// An OpenAI-compatible gateway in front of nodes, with its ledger.
#[derive(Debug, Parser)]
#[command(name = "idlewatt-hub", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Folder of hub.db, hub.key and admin.sock [default: the system's place for program data]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Print JSON and nothing else
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve consumers and nodes until SIGTERM, then drain
    Serve(Serve),
    /// API keys of consumers
    #[command(subcommand)]
    Key(KeyCommand),
    /// Invites for nodes
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Accounts and their credits
    #[command(subcommand)]
    Account(AccountCommand),
    /// Groups: accounts that lend to each other up to a limit
    #[command(subcommand)]
    Group(GroupCommand),
    /// Nodes that joined
    #[command(subcommand)]
    Node(NodeCommand),
    /// The ledger
    #[command(subcommand)]
    Ledger(LedgerCommand),
}

/// A name that fits into a sentence and a table.
fn hub_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    if name.is_empty() || name.chars().count() > 40 || name.chars().any(char::is_control) {
        return Err("a name has 1 to 40 characters, none of them a control character".to_owned());
    }
    Ok(name.to_owned())
}

#[derive(Debug, Args)]
struct Serve {
    /// Address to listen on without encryption, for this machine or a proxy in front; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:4181")]
    listen: SocketAddr,
    /// Listen for the networks that this machine is in too, encrypted with a certificate of the hub's own key
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "0.0.0.0:4182")]
    lan: Option<SocketAddr>,
    /// Do not say in those networks that a hub is here
    #[arg(long)]
    unannounced: bool,
    /// Further address that invites and nodes are given: the public one
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,
    /// What nodes call this hub, such as `garage`; without it, its address
    #[arg(long, value_parser = hub_name)]
    name: Option<String>,
    /// End, as with SIGTERM, when stdin is closed: for a program whose hub must not outlive it
    #[arg(long)]
    with_parent: bool,
    /// The hub's part of each payment, per cent
    #[arg(long, default_value = "0", value_name = "PERCENT")]
    fee: FeeRate,
    /// PostgreSQL; not in this version, which keeps everything in SQLite in the data folder
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// NATS; not in this version, which runs as one process
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Proxies whose `x-forwarded-for` is believed, such as 127.0.0.1 or 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "CIDR")]
    trust_proxy: Vec<Network>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key; it is shown once and only its hash is kept
    Create {
        /// Whose; made where missing
        #[arg(long, value_name = "NAME")]
        account: AccountName,
        /// Credits to grant from issuance
        #[arg(long, default_value = "0", value_parser = credits, value_name = "N")]
        credits: MicroCredits,
    },
    /// Every key's first characters
    List,
    /// Revoke a key, at once
    Revoke {
        /// Its first characters, as `key list` shows them
        key: String,
    },
}

#[derive(Debug, Subcommand)]
enum InviteCommand {
    /// Make an invite: for one node, for 24 hours
    Create {
        /// Whom the node will earn for; made where missing
        #[arg(long, value_name = "NAME")]
        account: AccountName,
        /// The node only earns: its host's own endpoint may not spend the account's credits
        #[arg(long)]
        earn_only: bool,
    },
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
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
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
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
    },
    /// Every group
    List,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Every node that ever joined
    List,
}

#[derive(Debug, Subcommand)]
enum LedgerCommand {
    /// Rebuild every balance, check every invariant and receipt; exits 3 on a breach
    Check,
}

/// Does what was asked. What is printed is in the text given back.
pub(crate) fn execute(cli: Cli) -> anyhow::Result<(String, ExitCode)> {
    let data = cli.data.or_else(default_folder).ok_or_else(|| {
        anyhow::anyhow!("there is no home folder to keep the hub's data in: give one with --data")
    })?;
    let command = match cli.command {
        Command::Serve(options) => {
            options.refuse_what_is_missing()?;
            let Serve { listen, lan, unannounced, public_url, name, fee, with_parent, trust_proxy, .. } =
                options;
            let options = ServeOptions {
                lan,
                announce: !unannounced,
                proxies: trust_proxy,
                public_url,
                name,
                fee,
                ..ServeOptions::new(listen, data)
            };
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(options, with_parent))?;
            return Ok((String::new(), ExitCode::SUCCESS));
        }
        Command::Ledger(LedgerCommand::Check) => {
            let checked = check_folder(&data)?;
            let text = if cli.json { serde_json::to_string(&checked)? } else { check_text(&checked) };
            return Ok((text, if checked.ok { ExitCode::SUCCESS } else { ExitCode::from(3) }));
        }
        Command::Key(KeyCommand::Create { account, credits }) => AdminCommand::KeyCreate { account, credits },
        Command::Key(KeyCommand::List) => AdminCommand::KeyList,
        Command::Key(KeyCommand::Revoke { key }) => AdminCommand::KeyRevoke { key },
        Command::Invite(InviteCommand::Create { account, earn_only }) => {
            AdminCommand::InviteCreate { account, spends: !earn_only }
        }
        Command::Account(AccountCommand::List) => AdminCommand::AccountList,
        Command::Account(AccountCommand::Show { account }) => AdminCommand::AccountShow { account },
        Command::Account(AccountCommand::Credit { account, credits }) => {
            AdminCommand::AccountCredit { account, credits }
        }
        Command::Group(GroupCommand::Create { group, overdraft }) => {
            AdminCommand::GroupCreate { group, overdraft }
        }
        Command::Group(GroupCommand::Add { group, account }) => AdminCommand::GroupAdd { group, account },
        Command::Group(GroupCommand::List) => AdminCommand::GroupList,
        Command::Node(NodeCommand::List) => AdminCommand::NodeList,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(perform_on(&data, command))?;
    let text = if cli.json { json(&answer)? } else { text(&answer) };
    Ok((text, ExitCode::SUCCESS))
}

/// The documented exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        let command = cause.downcast_ref::<CommandError>();
        if cause.is::<OpenError>() || matches!(command, Some(CommandError::Open(_))) {
            return ExitCode::from(4);
        }
        let io = cause.downcast_ref::<std::io::Error>();
        if io.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            return ExitCode::from(5);
        }
        if cause.is::<NotInThisVersion>() {
            return ExitCode::from(2);
        }
    }
    ExitCode::FAILURE
}

#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is not in this version of idlewatt-hub: it keeps everything in SQLite in its data folder and runs as one process. Leave the option out"
)]
struct NotInThisVersion(&'static str);

impl Serve {
    fn refuse_what_is_missing(&self) -> Result<(), NotInThisVersion> {
        let given = [("--database", self.database.is_some()), ("--nats", self.nats.is_some())];
        given.into_iter().find(|(_, given)| *given).map_or(Ok(()), |(name, _)| Err(NotInThisVersion(name)))
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
    fn the_command_line_is_the_contract() {
        for line in [
            "serve",
            "serve --with-parent",
            "serve --listen 127.0.0.1:0 --data /x --public-url https://hub.example",
            "serve --database postgres://x --nats nats://x --trust-proxy 10.0.0.0/8",
            "serve --lan --trust-proxy 10.0.0.0/8 --trust-proxy ::1",
            "serve --lan 192.168.1.7:4182 --unannounced",
            "key create --account a --credits 10 --json",
            "key list",
            "key revoke iw-abcdef",
            "invite create --account a --json --data /x",
            "invite create --account a --earn-only",
            "account list --json",
            "account show a",
            "account credit a -2.5 --json",
            "group create home --overdraft 5",
            "group add home a",
            "group list --json",
            "node list --json",
            "ledger check --json",
        ] {
            let words = std::iter::once("idlewatt-hub").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "",
            "key create",
            "key create --account no/slash",
            "serve --trust-proxy here",
            "serve --listen here",
            "serve --fee 101",
        ] {
            let words =
                std::iter::once("idlewatt-hub").chain(line.split(' ').filter(|word| !word.is_empty()));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
