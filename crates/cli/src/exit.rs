//! Exit codes. They are part of the command contract: scripts may rely on them.

use std::process::ExitCode;

use idlewatt_control::{Code, ControlError};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done = 0,
    /// It failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line was not understood.
    Usage = 2,
    /// No engine runs in this home.
    NotRunning = 3,
    /// Another engine owns this home.
    HomeTaken = 4,
    /// The address to listen on is taken, or not a loopback address.
    PortTaken = 5,
    /// The home folder cannot be written.
    HomeReadOnly = 6,
    /// The disk is full.
    DiskFull = 7,
    /// The settings file, or a value, is not valid.
    BadConfig = 8,
    /// The keyring is locked, or the node's key is lost.
    KeyringLocked = 9,
    /// The database was written by a newer version.
    DatabaseNewer = 10,
    /// The invite is malformed, used, expired, or another hub's.
    BadInvite = 11,
    /// The hub cannot be reached, or shows the wrong key.
    HubUnusable = 12,
    /// No such service, hub, request, receipt or setting.
    NotFound = 13,
    /// The receipt is not what it claims to be.
    NotVerified = 14,
    /// The model server does not do what was asked.
    ServerFailed = 15,
    /// `measure` did not run its command; the codes from here on are those of `env`, `timeout` and shells.
    NotRun = 125,
    /// `measure`'s command cannot be run.
    CommandNotExecutable = 126,
    /// `measure`'s command does not exist.
    CommandNotFound = 127,
    /// SIGHUP.
    #[cfg_attr(not(unix), expect(dead_code, reason = "a signal of Unix"))]
    HungUp = 129,
    /// Ctrl-C.
    Interrupted = 130,
    /// SIGTERM.
    #[cfg_attr(not(unix), expect(dead_code, reason = "a signal of Unix"))]
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::NotFound => Self::NotFound,
            Code::BadValue | Code::BadConfig => Self::BadConfig,
            Code::BadInvite | Code::InviteUsed | Code::InviteExpired | Code::InviteForeign => Self::BadInvite,
            Code::WrongHubKey | Code::HubDown => Self::HubUnusable,
            Code::KeyringLocked => Self::KeyringLocked,
            Code::HomeReadOnly => Self::HomeReadOnly,
            Code::DiskFull => Self::DiskFull,
            Code::HomeTaken => Self::HomeTaken,
            Code::PortTaken => Self::PortTaken,
            Code::DatabaseNewer => Self::DatabaseNewer,
            Code::ServerFailed => Self::ServerFailed,
            Code::BadRequest | Code::Unauthorized | Code::LocalOnly | Code::Stopping | Code::Internal => {
                Self::Failed
            }
        }
    }
}

/// A command that ended otherwise than well, for a person and for a script.
#[derive(Debug)]
pub(crate) struct Failure {
    /// For scripts.
    pub(crate) exit: Exit,
    /// For people: what, why, what to do.
    pub(crate) error: ControlError,
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        Self { exit: error.code.into(), error }
    }
}

impl Failure {
    /// A failure of this command line itself.
    pub(crate) fn new(
        exit: Exit,
        what: impl Into<String>,
        why: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self { exit, error: ControlError::new(Code::Internal, what, why, action) }
    }
}
