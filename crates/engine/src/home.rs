//! Where a node's files are, and who owns them.
//!
//! `IDLEWATT_HOME` moves everything under one folder; without it the platform's own places are used. A lock file decides
//! which process owns a home: the kernel releases it when the process ends, however it ends, so there is nothing stale to
//! clean up. The owner writes down where its control door is ([`ControlFile`]); the file is readable by this user only.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use idlewatt_control::{CONTROL_VERSION, Code, ControlError};
use serde::{Deserialize, Serialize};

/// The variable that moves every file.
pub const HOME_VARIABLE: &str = "IDLEWATT_HOME";

/// The folders of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The settings file, `idlewatt.toml`.
    pub config: PathBuf,
    /// What is kept: database, choices, keys where there is no keyring.
    pub data: PathBuf,
    /// What lives as long as the engine: the lock and the control address.
    pub run: PathBuf,
}

/// Where a running engine listens, and the token that opens its door.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlFile {
    /// Loopback address of the control door.
    pub address: SocketAddr,
    /// Bearer token.
    pub token: String,
    /// Process id of the owner.
    pub pid: u32,
    /// The owner's version.
    pub version: String,
    /// Version of the control interface, [`CONTROL_VERSION`].
    pub control: u32,
}

impl fmt::Debug for ControlFile {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ControlFile");
        out.field("address", &self.address).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// The right to a home, held until dropped.
#[derive(Debug)]
pub struct Claim {
    _lock: File,
    control: PathBuf,
}

impl Home {
    /// The home of this user: `IDLEWATT_HOME`, or the platform's folders.
    ///
    /// # Errors
    /// When this user has no home folder at all.
    pub fn locate() -> Result<Self, ControlError> {
        if let Some(root) = std::env::var_os(HOME_VARIABLE).filter(|root| !root.is_empty()) {
            let root = std::path::absolute(&root).unwrap_or_else(|_| PathBuf::from(root));
            return Ok(Self::at(&root));
        }
        let dirs = directories::ProjectDirs::from("", "", "idlewatt").ok_or_else(|| {
            ControlError::new(
                Code::HomeReadOnly,
                "This user has no home folder.",
                "Idlewatt has nowhere to keep its settings.",
                format!("Set {HOME_VARIABLE} to a folder that may be written."),
            )
        })?;
        let data = dirs.data_local_dir().to_path_buf();
        let run = dirs.runtime_dir().map_or_else(|| data.join("run"), Path::to_path_buf);
        Ok(Self { config: dirs.config_dir().join("idlewatt.toml"), data, run })
    }

    /// Everything under one folder.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { config: root.join("idlewatt.toml"), data: root.join("data"), run: root.join("run") }
    }

    /// Makes the folders, for this user only.
    ///
    /// # Errors
    /// When one cannot be made or written.
    pub fn prepare(&self) -> Result<(), ControlError> {
        for folder in self.config.parent().into_iter().chain([self.data.as_path(), self.run.as_path()]) {
            private_folder(folder).map_err(|error| not_written(folder, &error))?;
        }
        Ok(())
    }

    /// Takes this home for this process.
    ///
    /// # Errors
    /// When another engine owns it, or the lock cannot be written.
    pub fn claim(&self) -> Result<Claim, ControlError> {
        self.prepare()?;
        let path = self.run.join("lock");
        let lock = open_private(&path).map_err(|error| not_written(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Claim { _lock: lock, control: self.run.join("control.json") }),
            Err(TryLockError::WouldBlock) => Err(self.taken()),
            Err(TryLockError::Error(error)) => Err(not_written(&path, &error)),
        }
    }

    /// The engine that owns this home now, if one does.
    #[must_use]
    pub fn resident(&self) -> Option<ControlFile> {
        // A control file without an owner is left by an engine that was killed.
        match File::open(self.run.join("lock")).ok()?.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            _ => return None,
        }
        serde_json::from_slice(&fs::read(self.run.join("control.json")).ok()?).ok()
    }

    fn taken(&self) -> ControlError {
        let who = self.resident().map_or_else(String::new, |it| format!(" (process {})", it.pid));
        ControlError::new(
            Code::HomeTaken,
            format!("Idlewatt already runs{who}."),
            "Two engines never share one home: they would spend the same slots and sign the same statements.",
            "Use `idlewatt status`, or end the other one first.",
        )
    }
}

impl Claim {
    /// Tells guests where the door is. Replaces what an earlier owner left.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, address: SocketAddr, token: &str) -> Result<(), ControlError> {
        let file = ControlFile {
            address,
            token: token.to_owned(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control: CONTROL_VERSION,
        };
        let json = serde_json::to_vec_pretty(&file).unwrap_or_default();
        write_private(&self.control, &json)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock goes with the file handle; the token must not outlive the engine that honours it.
        drop(fs::remove_file(&self.control));
    }
}

/// Writes a whole file so that after a crash or a full disk there is the old one or the new one, never half of one.
/// Readable by this user only.
///
/// # Errors
/// When it cannot be written; the old file is untouched.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), ControlError> {
    let write = || -> io::Result<()> {
        let temporary = path.with_extension(format!("new-{}", std::process::id()));
        let written = (|| {
            let mut file = open_private(&temporary)?;
            file.set_len(0)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            drop(fs::remove_file(&temporary));
        }
        written?;
        // The rename itself is durable once the folder is.
        if let Some(folder) = path.parent().filter(|_| cfg!(unix)) {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| not_written(path, &error))
}

/// What to say when a file or folder of the home cannot be written.
#[must_use]
pub fn not_written(path: &Path, error: &io::Error) -> ControlError {
    let path = path.display();
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return ControlError::new(
            Code::DiskFull,
            format!("{path} could not be written: the disk is full."),
            "Nothing was lost: what was kept before is still there.",
            "Free some space, then try again.",
        );
    }
    ControlError::new(
        Code::HomeReadOnly,
        format!("{path} could not be written: {error}."),
        "Idlewatt keeps settings, requests and statements there, and does not run without.",
        format!("Make it writable for this user, or set {HOME_VARIABLE} to a folder that is."),
    )
}

fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens a file for this user only, and makes it if it is not there.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_engines_never_share_a_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let claim = home.claim().unwrap();
        assert_eq!(home.claim().unwrap_err().code, Code::HomeTaken);
        drop(claim);
        home.claim().unwrap();
    }

    #[test]
    fn a_resident_is_seen_only_while_it_lives() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let claim = home.claim().unwrap();
        let address = "127.0.0.1:4180".parse().unwrap();
        claim.announce(address, "secret").unwrap();
        assert_eq!(home.resident().map(|it| (it.address, it.token)), Some((address, "secret".into())));
        let left_behind = fs::read(home.run.join("control.json")).unwrap();
        drop(claim);
        assert_eq!(home.resident(), None);
        fs::write(home.run.join("control.json"), left_behind).unwrap();
        assert_eq!(home.resident(), None, "a file that a killed engine left is not a resident");
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_are_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(&folder.path().join("home"));
        home.claim().unwrap().announce("127.0.0.1:1".parse().unwrap(), "t").unwrap();
        let path = home.data.join("x");
        write_private(&path, b"1").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&home.data), mode(&home.run), mode(&path)), (0o700, 0o700, 0o600));
    }

    #[test]
    fn a_full_disk_and_a_forbidden_folder_are_told_apart() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(not_written(Path::new("/x"), &full).code, Code::DiskFull);
        let forbidden = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(not_written(Path::new("/x"), &forbidden).code, Code::HomeReadOnly);
    }
}
