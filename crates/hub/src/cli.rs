//! The command line of `idlewatt-hub`. Results go to stdout, as text or with `--json` as JSON and nothing else; all that
//! goes wrong goes to stderr as what happened, what it means and what to do.

mod operate;
mod text;

use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use idlewatt_hub::admin::{Answer, CommandError, perform_on};
use idlewatt_hub::serve::{Network, ServeOptions, serve};
use idlewatt_hub::store::{ExportError, OpenError, Wanted, check_folder, default_folder, export};
use idlewatt_hub_core::ledger::{AccountName, FeeRate, Month};
use url::Url;

use text::{check_text, csv_text, json, text};

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
    Key(operate::Key),
    /// Invites for nodes and browsers
    #[command(subcommand)]
    Invite(operate::Invite),
    /// Accounts and their credits
    #[command(subcommand)]
    Account(operate::Account),
    /// Groups: accounts that share with each other alone, and may owe up to a limit
    #[command(subcommand)]
    Group(operate::Group),
    /// Nodes that joined
    #[command(subcommand)]
    Node(operate::Node),
    /// The page with all of this
    #[command(subcommand)]
    Admin(operate::Admin),
    /// Whether accounts of no group share with each other
    #[command(subcommand)]
    Strangers(operate::Strangers),
    /// What an account, or each, gave and took in a month
    Statement(operate::Statement),
    /// Put a copy of the ledger and the hub's key aside, while the hub serves or not
    Backup(operate::Backup),
    /// What operators did
    Audit(operate::Audit),
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
enum LedgerCommand {
    /// Rebuild every balance, check every invariant and receipt; exits 3 on a breach
    Check,
    /// Every transfer as CSV, or with --json one JSON object a line, oldest first
    Export {
        /// Those of this account only
        #[arg(long, value_name = "NAME")]
        account: Option<AccountName>,
        /// Those of this month only, such as 2026-11 (UTC)
        #[arg(long)]
        month: Option<Month>,
    },
}

/// Does what was asked. What is printed is in the text given back.
pub(crate) fn execute(cli: Cli) -> anyhow::Result<(String, ExitCode)> {
    let data = cli.data.or_else(default_folder).ok_or_else(|| {
        anyhow::anyhow!("there is no home folder to keep the hub's data in: give one with --data")
    })?;
    let mut csv = false;
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
        Command::Ledger(LedgerCommand::Export { account, month }) => {
            let wanted = Wanted { account, month, json: cli.json };
            export(&data, &wanted, &mut BufWriter::new(std::io::stdout().lock()))?;
            return Ok((String::new(), ExitCode::SUCCESS));
        }
        Command::Key(it) => it.into(),
        Command::Invite(it) => it.into(),
        Command::Account(it) => it.into(),
        Command::Group(it) => it.into(),
        Command::Node(it) => it.into(),
        Command::Admin(operate::Admin::Link) => idlewatt_hub::admin::Command::AdminLink,
        Command::Strangers(it) => it.into(),
        Command::Statement(it) => {
            csv = it.csv;
            it.into()
        }
        Command::Backup(it) => it.command()?,
        Command::Audit(it) => it.into(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(perform_on(&data, command))?;
    let text = match &answer {
        Answer::Statements(it) if csv => csv_text(it),
        it if cli.json => json(it)?,
        it => text(it),
    };
    Ok((text, ExitCode::SUCCESS))
}

/// The documented exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        let command = cause.downcast_ref::<CommandError>();
        let exported = cause.downcast_ref::<ExportError>();
        if cause.is::<OpenError>()
            || matches!(command, Some(CommandError::Open(_)))
            || matches!(exported, Some(ExportError::Open(_)))
        {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            "key create --account a --requests 60 --tokens 20000 --spend 2.5 --model m --model n:q4 --scope public",
            "key limit iw-abcdef --scope own",
            "key rotate iw-abcdef --grace 24h --json",
            "invite create --account a --group home",
            "account suspend a",
            "account resume a",
            "account refuse a --from b",
            "account accept a --from-group home",
            "group create home",
            "group add home a --overdraft 2",
            "group remove home a",
            "group limit home 3",
            "group show home --json",
            "strangers allow",
            "strangers forbid",
            "strangers show --json",
            "statement",
            "statement a --month 2026-11 --csv",
            "statement --json",
            "backup /x",
            "audit --last 10 --json",
            "ledger export --account a --month 2026-11 --json",
            "group list --json",
            "node list --json",
            "admin link --json",
            "ledger check --json",
        ] {
            let words = std::iter::once("idlewatt-hub").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "",
            "key create",
            "key create --account no/slash",
            "account refuse a",
            "account refuse a --from b --from-group c",
            "group limit home -3",
            "group create home --overdraft -1",
            "key create --account a --requests -1",
            "key create --account a --spend 99999999999",
            "key create --account a --scope galaxy",
            "key rotate iw-abcdef --grace forever",
            "statement --month November",
            "statement --csv --json",
            "audit --last -1",
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
