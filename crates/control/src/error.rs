//! Errors that a person or a program sees: what happened, what it means, what to do.

use serde::{Deserialize, Serialize};

/// For programs. New codes may be added; existing ones keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request itself is malformed.
    BadRequest,
    /// No, or a wrong, bearer token.
    Unauthorized,
    /// No such hub, service, request, receipt or key.
    NotFound,
    /// A configuration value is not valid.
    BadValue,
    /// This may be set by the command line only.
    LocalOnly,
    /// The invite is malformed.
    BadInvite,
    /// The invite was used by another node.
    InviteUsed,
    /// The invite's time is over.
    InviteExpired,
    /// The invite is of another hub, or was withdrawn.
    InviteForeign,
    /// The hub shows another key than the invite's.
    WrongHubKey,
    /// The hub cannot be reached.
    HubDown,
    /// The keyring is locked or refuses.
    KeyringLocked,
    /// The home folder cannot be written.
    HomeReadOnly,
    /// The disk is full.
    DiskFull,
    /// Another engine owns the home folder.
    HomeTaken,
    /// The address to listen on is taken, or is not one of this machine.
    PortTaken,
    /// The settings file cannot be read.
    BadConfig,
    /// The database was written by a newer version.
    DatabaseNewer,
    /// The model server does not do what was asked.
    ServerFailed,
    /// The engine is stopping.
    Stopping,
    /// A defect of this program.
    Internal,
}

/// What happened, what it means, what to do, in that order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[error("{what}\n  why: {why}\n  do:  {action}")]
pub struct ControlError {
    /// For programs.
    pub code: Code,
    /// What happened.
    pub what: String,
    /// What it means.
    pub why: String,
    /// What to do.
    #[serde(rename = "do")]
    pub action: String,
}

impl ControlError {
    /// An error of three sentences.
    pub fn new(
        code: Code,
        what: impl Into<String>,
        why: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self { code, what: what.into(), why: why.into(), action: action.into() }
    }
}
