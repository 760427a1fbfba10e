//! One engine governs a card, machine-wide: two users' engines, or a system service and a tray, would each hold a cap of
//! their own and meter the other's work.
//!
//! On Linux the claim is a socket bound to an abstract name: any user can take it, the kernel gives it back when the
//! process ends, and it names its owner. Elsewhere it is a locked file. Containers with a network of their own do not see
//! the claims of the machine around them.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::CapError;
use crate::Places;

/// The machine whose cards are claimed.
pub(super) struct Machine {
    scope: String,
}

/// A card that is ours until this is dropped.
pub(super) struct Claim {
    _held: system::Held,
}

impl Machine {
    /// Cards behind another library or another sysfs are another machine's: tests', or a simulation's.
    pub(super) fn of(places: &Places) -> Self {
        let Places { nvml, sysfs, .. } = places;
        let usual = Places::default();
        let scope = if (nvml, sysfs) == (&usual.nvml, &usual.sysfs) {
            String::new()
        } else {
            let mut hasher = DefaultHasher::new();
            (nvml, sysfs).hash(&mut hasher);
            format!("{:016x}-", hasher.finish())
        };
        Self { scope }
    }

    pub(super) fn claim(&self, gpu: &str) -> Result<Claim, CapError> {
        system::hold(&self.name(gpu)).map(|held| Claim { _held: held })
    }

    /// Whether nobody has claimed it.
    pub(super) fn is_free(&self, gpu: &str) -> Result<(), CapError> {
        self.claim(gpu).map(drop)
    }

    fn name(&self, gpu: &str) -> String {
        // An abstract name has 107 bytes, a file name may not hold a colon on Windows.
        let gpu: String =
            gpu.chars().take(64).map(|it| if it.is_alphanumeric() { it } else { '-' }).collect();
        format!("idlewatt-gpu-{}{gpu}", self.scope)
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use super::CapError;

    pub(super) type Held = UnixListener;

    pub(super) fn hold(name: &str) -> Result<Held, CapError> {
        let address = SocketAddr::from_abstract_name(name).map_err(|error| problem(&error))?;
        UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => CapError::Taken { by: owner(&address) },
            _ => problem(&error),
        })
    }

    fn owner(address: &SocketAddr) -> String {
        let owner = UnixStream::connect_addr(address)
            .ok()
            .and_then(|stream| rustix::net::sockopt::socket_peercred(stream).ok());
        owner.map_or_else(
            || "another Idlewatt".into(),
            |it| format!("another Idlewatt (process {}, user {})", it.pid, it.uid),
        )
    }

    fn problem(error: &io::Error) -> CapError {
        CapError::Driver { problem: format!("the card cannot be claimed: {error}") }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::fs::{File, OpenOptions, TryLockError};
    use std::path::PathBuf;

    use super::CapError;

    pub(super) type Held = File;

    pub(super) fn hold(name: &str) -> Result<Held, CapError> {
        let path = folder().join(name).with_extension("lock");
        // A lock needs no right to write, and another user's file gives none.
        let file = File::open(&path)
            .or_else(|_| OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path));
        let problem = |error: std::io::Error| CapError::Driver {
            problem: format!("the card cannot be claimed: {}: {error}", path.display()),
        };
        let file = file.map_err(problem)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(CapError::Taken { by: "another Idlewatt".into() }),
            Err(TryLockError::Error(error)) => Err(problem(error)),
        }
    }

    /// A folder that all users share.
    fn folder() -> PathBuf {
        std::env::var_os("ProgramData").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }
}
