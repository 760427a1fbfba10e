//! What can go wrong with a data folder, in words for the person who runs the hub: what happened, what it means, what
//! to do.

use std::io;
use std::path::{Path, PathBuf};

use idlewatt_hub_core::allowance::LimitError;
use idlewatt_hub_core::ledger::{AccountName, CannotLimit, Refused, ReserveError};
use idlewatt_protocol::PublicKey;
use rusqlite::ErrorCode;

/// Why a data folder cannot be opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the data folder {0} is in use: another idlewatt-hub runs on it, and two must never share one ledger. Stop \
         that one, or give this one another folder with --data"
    )]
    InUse(PathBuf),
    /// It has no database.
    #[error("{0} holds no hub: no hub.db is there. Check --data; `idlewatt-hub serve` makes a new one")]
    NoHub(PathBuf),
    /// It cannot be written.
    #[error(
        "cannot write to the data folder {folder}: {why}. The hub keeps its ledger there and does not run without it. \
         Make the folder writable, or give another with --data"
    )]
    Unwritable {
        /// Which.
        folder: PathBuf,
        /// In the system's words.
        why: String,
    },
    /// No space.
    #[error(
        "the disk of {0} is full: the hub could not promise to keep anything. Nothing was lost. Make space and start \
         it again"
    )]
    Full(PathBuf),
    /// A newer version wrote it.
    #[error(
        "the database in {folder} was written by a newer idlewatt-hub (format {found}; this one knows up to {known}). \
         It was left untouched. Start the newer version, or give another folder with --data"
    )]
    Newer {
        /// Which folder.
        folder: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// Not a database.
    #[error(
        "hub.db in {folder} is not readable as a database: {why}. It was left untouched. Restore the folder from a \
         backup, or give another with --data"
    )]
    Corrupt {
        /// Which folder.
        folder: PathBuf,
        /// In SQLite's words.
        why: String,
    },
    /// The key is gone, the ledger is not.
    #[error(
        "hub.key is missing from {0}, but its ledger is there: nodes and receipts trust that key only, so no new one is \
         made. Put hub.key back from a backup"
    )]
    KeyMissing(PathBuf),
    /// The key is not the ledger's, or no key.
    #[error(
        "hub.key in {0} is not the key of the ledger beside it: nodes and receipts would not trust this hub. Put the \
         right hub.key back from a backup"
    )]
    KeyWrong(PathBuf),
}

impl OpenError {
    pub(super) fn unwritable(folder: &Path, source: &io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::Full(folder.to_owned());
        }
        Self::Unwritable { folder: folder.to_owned(), why: source.to_string() }
    }

    pub(super) fn sqlite(folder: &Path, source: &rusqlite::Error) -> Self {
        let folder = folder.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(folder),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(folder),
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::PermissionDenied,
            ) => Self::Unwritable { folder, why: source.to_string() },
            _ => Self::Corrupt { folder, why: source.to_string() },
        }
    }
}

/// Why something was not done. Where it was to be kept, nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the database refused.
    #[error("{}", in_words(.0))]
    Disk(#[from] rusqlite::Error),
    /// What is asked is a running hub's to give.
    #[error("no hub serves this folder now: start one with `idlewatt-hub serve`, then ask again")]
    NotServing,
    /// The store is closing.
    #[error("the hub is stopping, so nothing new is kept")]
    Closed,
    /// The ledger refused a posting.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The ledger could not set a grant aside.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// A settlement names a node that never joined.
    #[error("the node {0} never joined this hub")]
    UnknownNode(PublicKey),
    /// There is no such account.
    #[error(
        "there is no account {0}: `idlewatt-hub account list` shows all, `key create --account` makes one"
    )]
    UnknownAccount(AccountName),
    /// The hub's own accounts have no people.
    #[error(
        "{0} is the hub's own account: it has no key, invite, group, credit or refusal, and no group has its name"
    )]
    HubsOwn(AccountName),
    /// There is no such key.
    #[error("no key starts with {0}: `idlewatt-hub key list` shows all")]
    UnknownKey(String),
    /// Several keys fit.
    #[error("several keys start with {0}: give more of it")]
    AmbiguousKey(String),
    /// There is no such group.
    #[error("there is no group {0}: `idlewatt-hub group create` makes one")]
    UnknownGroup(AccountName),
    /// The group exists.
    #[error("the group {0} exists already")]
    GroupExists(AccountName),
    /// What an account may owe cannot be set so.
    #[error(transparent)]
    Limit(#[from] CannotLimit),
    /// A grant would mint credits where members settle among themselves.
    #[error(
        "{account} settles with the members of {group}, where nothing is minted: raise what it may owe (`idlewatt-hub group \
         add {group} {account} --overdraft N`), or take it out of the group first (`group remove {group} {account}`)"
    )]
    Mints {
        /// To whom.
        account: AccountName,
        /// Its group.
        group: AccountName,
    },
    /// The account is in another group, or none.
    #[error("{account} is not in the group {group}: `idlewatt-hub group show {group}` shows who is")]
    NoMember {
        /// Which group.
        group: AccountName,
        /// Who.
        account: AccountName,
    },
    /// A host would refuse itself.
    #[error("{0} cannot refuse its own requests: unshare a service on the node instead")]
    RefusesItself(AccountName),
    /// The limits of a key make no sense.
    #[error(transparent)]
    Limits(#[from] LimitError),
    /// A node's key is its node's to replace.
    #[error(
        "{0} is a node's own key, which only the node replaces: revoke it, and the node needs a new invite"
    )]
    NodesKey(String),
    /// The key lasts less long than it should.
    #[error("{0} ends earlier than that already: it was rotated before")]
    EndsEarlier(String),
    /// An invite would name an address that no node may use.
    #[error(
        "an invite for {0} would not work: nodes use plain http to this machine only. Start `idlewatt-hub serve` with \
         --public-url https://…"
    )]
    Address(url::Url),
    /// Something kept cannot be read back.
    #[error("the database holds {0} that cannot be read: run `idlewatt-hub ledger check`")]
    Unreadable(&'static str),
}

fn in_words(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            "the disk is full: nothing was kept. Make space and try again".to_owned()
        }
        Some(ErrorCode::ReadOnly) => {
            "the database cannot be written: nothing was kept. Make the data folder writable and try again"
                .to_owned()
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program holds the database: nothing was kept. Close it and try again".to_owned()
        }
        _ => format!("the database refused ({error}): nothing was kept"),
    }
}
