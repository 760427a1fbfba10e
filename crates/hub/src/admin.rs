//! The operator's commands: what `idlewatt-hub key`, `invite`, `account`, `group`, `statement` and the others do.
//!
//! While a hub serves, it alone has the data folder, so a command goes to it through a door of that folder, `admin.sock`
//! or on Windows a named pipe: one JSON line with a [`Command`], one with its answer. The door is its owner's only (mode
//! 0600, and the peer's user is checked; on Windows the pipe's own rights). Otherwise the command opens the folder itself.
//! Both ways end in [`perform`].

#[cfg(unix)]
#[path = "admin/unix.rs"]
mod platform;
#[cfg(windows)]
#[path = "admin/windows.rs"]
mod platform;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_hub_core::ledger::{AccountName, FeeRate, Month, Statement};
use idlewatt_protocol::MicroCredits;
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::node_key::KEY_SHOWN;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::hub::now;
use crate::qr::{self, Picture};
use crate::store::{
    self, Account, Audited, BackedUp, BackupError, Group, Key, NewKey, Node, OpenError, Store, StoreError,
    Whom,
};

pub use platform::AdminDoor;

/// The longest command, bytes.
const MAX_COMMAND: u64 = 64 * 1024;
/// A connection fails when the process is out of files, mostly: others may close theirs within this time.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Make an API key, the account where missing, and grant credits.
    KeyCreate {
        /// For whom.
        account: AccountName,
        /// From `issuance`.
        credits: MicroCredits,
        /// What it may do.
        limits: KeyLimits,
    },
    /// Every key's first characters.
    KeyList,
    /// Set what a key may do, all of it.
    KeyLimit {
        /// Its first characters.
        key: String,
        /// What it may do.
        limits: KeyLimits,
    },
    /// Make a key that takes another's place.
    KeyRotate {
        /// The old one's first characters.
        key: String,
        /// For how long the old one goes on, seconds.
        grace_s: u64,
    },
    /// Revoke a key at once.
    KeyRevoke {
        /// Its first characters.
        key: String,
    },
    /// Make a single-use invite.
    InviteCreate {
        /// Whom the node will earn for.
        account: AccountName,
        /// Whether the node may make itself a key of this account.
        spends: bool,
        /// The group that the account is put into.
        #[serde(default)]
        group: Option<AccountName>,
    },
    /// Every account.
    AccountList,
    /// One account.
    AccountShow {
        /// Which.
        account: AccountName,
    },
    /// Grant credits, or take them back.
    AccountCredit {
        /// To whom.
        account: AccountName,
        /// How much; negative takes back.
        credits: MicroCredits,
    },
    /// Stop an account from asking for anything.
    AccountSuspend {
        /// Which.
        account: AccountName,
    },
    /// Let it ask again.
    AccountResume {
        /// Which.
        account: AccountName,
    },
    /// Have a host's nodes refuse somebody.
    AccountRefuse {
        /// The host.
        account: AccountName,
        /// Whom.
        whom: Whom,
    },
    /// Have a host's nodes answer somebody again.
    AccountAccept {
        /// The host.
        account: AccountName,
        /// Whom.
        whom: Whom,
    },
    /// Make a group.
    GroupCreate {
        /// Its name.
        group: AccountName,
        /// How far each member may owe.
        overdraft: MicroCredits,
    },
    /// Put an account into a group.
    GroupAdd {
        /// Which group.
        group: AccountName,
        /// Which account.
        account: AccountName,
        /// How far it may owe, where that is not what the group's members may.
        #[serde(default)]
        overdraft: Option<MicroCredits>,
    },
    /// Take an account out of a group.
    GroupRemove {
        /// Which group.
        group: AccountName,
        /// Which account.
        account: AccountName,
    },
    /// Set what every member of a group may owe.
    GroupLimit {
        /// Which group.
        group: AccountName,
        /// How much.
        overdraft: MicroCredits,
    },
    /// Every group.
    GroupList,
    /// One group.
    GroupShow {
        /// Which.
        group: AccountName,
    },
    /// Whether accounts of no group are strangers to each other.
    StrangersShow,
    /// Open the hub to strangers, or close it.
    StrangersSet {
        /// Whether it is open.
        are_let_in: bool,
    },
    /// What one account, or each, gave and took in a month.
    Statement {
        /// Which; without, each.
        account: Option<AccountName>,
        /// Which month; without, this one.
        month: Option<Month>,
    },
    /// Put a copy of the ledger and the hub's key aside.
    Backup {
        /// Into this folder, a whole path.
        folder: PathBuf,
    },
    /// What operators did.
    Audit {
        /// How many of the newest entries.
        most: u32,
    },
    /// Every node that ever joined.
    NodeList,
    /// The admin page's address, with a code that opens it once.
    AdminLink,
}

impl Command {
    /// Whether the admin page may ask for it: not what names files of this machine, nor what lets another one in.
    #[must_use]
    pub fn is_for_pages(&self) -> bool {
        !matches!(self, Self::Backup { .. } | Self::AdminLink)
    }

    /// Whether it makes sense on a folder where no hub ever was.
    #[must_use]
    pub fn begins_a_hub(&self) -> bool {
        matches!(
            self,
            Self::KeyCreate { .. }
                | Self::InviteCreate { .. }
                | Self::GroupCreate { .. }
                | Self::StrangersSet { .. }
        )
    }

    /// Whether it changes nothing, so that it is not written down.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Self::KeyList
                | Self::AccountList
                | Self::AccountShow { .. }
                | Self::GroupList
                | Self::GroupShow { .. }
                | Self::NodeList
                | Self::StrangersShow
                | Self::Statement { .. }
                | Self::Audit { .. }
        )
    }

    /// As it is written down: a key is named by its first characters, whatever was given.
    fn audited(&self) -> Value {
        let mut written = self.clone();
        if let Self::KeyRevoke { key } | Self::KeyLimit { key, .. } | Self::KeyRotate { key, .. } =
            &mut written
        {
            *key = key.chars().take(KEY_SHOWN).collect();
        }
        serde_json::to_value(&written).unwrap_or_default()
    }
}

/// What a command gives back.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A new key, seen this once.
    Key(NewKey),
    /// A key that was revoked.
    Revoked(Key),
    /// A key whose limits were set.
    Limited(Key),
    /// Keys without the keys.
    Keys(Vec<Key>),
    /// A new invite.
    Invite(NewInvite),
    /// One account.
    Account(Account),
    /// Accounts.
    Accounts(Vec<Account>),
    /// A new group.
    Group(Group),
    /// Groups.
    Groups(Vec<Group>),
    /// Nodes.
    Nodes(Vec<Node>),
    /// Whether the hub is open to strangers.
    Strangers {
        /// Whether it is.
        are_let_in: bool,
    },
    /// Statements of one month.
    Statements(Vec<Statement>),
    /// A backup that holds.
    Backup(BackedUp),
    /// What operators did, the newest last.
    Audit(Vec<Audited>),
    /// The admin page's address.
    AdminLink {
        /// A secret until it is used.
        link: String,
    },
}

/// An invite in two forms that say the same. Either is a secret until it is used.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewInvite {
    /// Opens Idlewatt, or is pasted into it: `idlewatt://join?…`.
    pub invite: String,
    /// Opens the hub's own page in a browser, on a telephone for example; only where who uses it may ask, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The page's address to be scanned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Picture>,
}

impl NewInvite {
    fn new(invite: &Invite, spends: bool) -> Self {
        let page = invite.page().filter(|_| spends).map(String::from);
        Self { invite: invite.to_string(), picture: page.as_deref().and_then(qr::picture), page }
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The data folder cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No backup was made.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The running hub refused, in its words.
    #[error("{0}")]
    Refused(String),
    /// The way to the running hub failed.
    #[error(
        "the hub that serves this folder broke off ({0}), so it is not known whether the command was done. Look with a \
         list command and try again"
    )]
    BrokeOff(#[source] io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Done(Answer),
    Refused(String),
}

/// Does one command on an open store, for `actor`: who asked, and which way. What changes something is written down before it
/// is done; where it cannot be, it is not done.
///
/// # Errors
/// When the store refuses.
pub async fn perform(store: &Store, actor: &str, command: Command) -> Result<Answer, CommandError> {
    if command.only_looks() {
        return act(store, command).await;
    }
    let entry = store.audit(actor.to_owned(), command.audited()).await?;
    let done = act(store, command).await;
    if let Err(error) = &done {
        let refused = json!({ "refused": entry, "why": error.to_string() });
        if let Err(error) = store.audit(actor.to_owned(), refused).await {
            tracing::error!(entry, %error, "that this act was refused is not in the audit log");
        }
    }
    done
}

async fn act(store: &Store, command: Command) -> Result<Answer, CommandError> {
    Ok(match command {
        Command::KeyCreate { account, credits, limits } => {
            Answer::Key(store.create_key(account, credits, limits).await?)
        }
        Command::KeyList => Answer::Keys(store.keys().await?),
        Command::KeyLimit { key, limits } => Answer::Limited(store.limit_key(key, limits).await?),
        Command::KeyRotate { key, grace_s } => {
            Answer::Key(store.rotate_key(key, Duration::from_secs(grace_s)).await?)
        }
        Command::KeyRevoke { key } => Answer::Revoked(store.revoke_key(key).await?),
        Command::InviteCreate { account, spends, group } => {
            Answer::Invite(NewInvite::new(&store.create_invite(account, spends, group).await?, spends))
        }
        Command::AccountList => Answer::Accounts(store.accounts().await?),
        Command::AccountShow { account } => Answer::Account(store.account(account).await?),
        Command::AccountCredit { account, credits } => Answer::Account(store.credit(account, credits).await?),
        Command::AccountSuspend { account } => Answer::Account(store.suspend(account, true).await?),
        Command::AccountResume { account } => Answer::Account(store.suspend(account, false).await?),
        Command::AccountRefuse { account, whom } => Answer::Account(store.refuse(account, whom, true).await?),
        Command::AccountAccept { account, whom } => {
            Answer::Account(store.refuse(account, whom, false).await?)
        }
        Command::GroupCreate { group, overdraft } => {
            Answer::Group(store.create_group(group, overdraft).await?)
        }
        Command::GroupAdd { group, account, overdraft } => {
            Answer::Account(store.join_group(group, account, overdraft).await?)
        }
        Command::GroupRemove { group, account } => Answer::Account(store.leave_group(group, account).await?),
        Command::GroupLimit { group, overdraft } => Answer::Group(store.limit_group(group, overdraft).await?),
        Command::GroupList => Answer::Groups(store.groups().await?),
        Command::GroupShow { group } => Answer::Group(store.group(group).await?),
        Command::NodeList => Answer::Nodes(store.nodes()),
        Command::AdminLink => Answer::AdminLink { link: store.admin_link()?.to_string() },
        Command::StrangersShow => Answer::Strangers { are_let_in: store.strangers(None).await? },
        Command::StrangersSet { are_let_in } => {
            Answer::Strangers { are_let_in: store.strangers(Some(are_let_in)).await? }
        }
        Command::Statement { account, month } => {
            let month = month.unwrap_or_else(|| Month::of(now()));
            Answer::Statements(store.statements(account, month).await?)
        }
        Command::Backup { folder } => Answer::Backup(store.back_up(folder).await?),
        Command::Audit { most } => Answer::Audit(store.audited(most).await?),
    })
}

/// Does one command on a data folder: through the hub that serves it, or directly where none does.
///
/// # Errors
/// When the folder cannot be opened, or the command is refused.
pub async fn perform_on(folder: &Path, command: Command) -> Result<Answer, CommandError> {
    if let Some(door) = platform::knock(folder).await {
        return exchange(door, &command).await;
    }
    if !command.begins_a_hub() {
        store::must_exist(folder)?;
    }
    let store = Store::open(folder, FeeRate::NONE)?;
    perform(&store, "command line", command).await
}

/// Sends one command to the hub behind `door` and waits for its answer.
async fn exchange(
    mut door: impl AsyncRead + AsyncWrite + Unpin,
    command: &Command,
) -> Result<Answer, CommandError> {
    let mut line = serde_json::to_vec(command).map_err(|error| CommandError::BrokeOff(error.into()))?;
    line.push(b'\n');
    door.write_all(&line).await.map_err(CommandError::BrokeOff)?;
    let mut reply = String::new();
    BufReader::new(door).read_line(&mut reply).await.map_err(CommandError::BrokeOff)?;
    match serde_json::from_str(&reply).map_err(|error| CommandError::BrokeOff(error.into()))? {
        Reply::Done(answer) => Ok(answer),
        Reply::Refused(why) => Err(CommandError::Refused(why)),
    }
}

/// Answers the commands of one caller until it hangs up.
async fn answer(store: Store, actor: String, caller: impl AsyncRead + AsyncWrite) {
    if let Err(error) = answer_lines(&store, &actor, caller).await {
        tracing::debug!(%error, "a command's answer was not taken");
    }
}

async fn answer_lines(store: &Store, actor: &str, caller: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(caller);
    let mut lines = BufReader::new(reader.take(MAX_COMMAND)).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match serde_json::from_str::<Command>(&line) {
            Ok(command) => match perform(store, actor, command).await {
                Ok(answer) => Reply::Done(answer),
                Err(error) => Reply::Refused(error.to_string()),
            },
            Err(error) => Reply::Refused(format!(
                "the running hub does not know this command ({error}): it is of another version, restart it"
            )),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        lines.get_mut().get_mut().set_limit(MAX_COMMAND);
    }
    Ok(())
}
