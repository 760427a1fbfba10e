//! The operator's commands: what `idlewatt-hub key`, `invite`, `account`, `group` and `node` do.
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
use std::path::Path;
use std::time::Duration;

use idlewatt_hub_core::ledger::{AccountName, FeeRate};
use idlewatt_protocol::MicroCredits;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::store::{self, Account, Group, Key, NewKey, Node, OpenError, Store, StoreError};

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
    },
    /// Every key's first characters.
    KeyList,
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
    },
    /// Every group.
    GroupList,
    /// Every node that ever joined.
    NodeList,
}

impl Command {
    /// Whether it makes sense on a folder where no hub ever was.
    #[must_use]
    pub fn begins_a_hub(&self) -> bool {
        matches!(self, Self::KeyCreate { .. } | Self::InviteCreate { .. } | Self::GroupCreate { .. })
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
    /// Keys without the keys.
    Keys(Vec<Key>),
    /// A new invite.
    Invite {
        /// The link.
        invite: String,
    },
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

/// Does one command on an open store.
///
/// # Errors
/// When the store refuses.
pub async fn perform(store: &Store, command: Command) -> Result<Answer, StoreError> {
    Ok(match command {
        Command::KeyCreate { account, credits } => Answer::Key(store.create_key(account, credits).await?),
        Command::KeyList => Answer::Keys(store.keys().await?),
        Command::KeyRevoke { key } => Answer::Revoked(store.revoke_key(key).await?),
        Command::InviteCreate { account, spends } => {
            Answer::Invite { invite: store.create_invite(account, spends).await?.to_string() }
        }
        Command::AccountList => Answer::Accounts(store.accounts().await?),
        Command::AccountShow { account } => Answer::Account(store.account(account).await?),
        Command::AccountCredit { account, credits } => Answer::Account(store.credit(account, credits).await?),
        Command::GroupCreate { group, overdraft } => {
            Answer::Group(store.create_group(group, overdraft).await?)
        }
        Command::GroupAdd { group, account } => Answer::Account(store.join_group(group, account).await?),
        Command::GroupList => Answer::Groups(store.groups().await?),
        Command::NodeList => Answer::Nodes(store.nodes()),
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
    Ok(perform(&store, command).await?)
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
async fn answer(store: Store, caller: impl AsyncRead + AsyncWrite) {
    if let Err(error) = answer_lines(&store, caller).await {
        tracing::debug!(%error, "a command's answer was not taken");
    }
}

async fn answer_lines(store: &Store, caller: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (reader, mut writer) = tokio::io::split(caller);
    let mut lines = BufReader::new(reader.take(MAX_COMMAND)).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match serde_json::from_str::<Command>(&line) {
            Ok(command) => match perform(store, command).await {
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
