//! The data folder: who has it, and the hub's key in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;

use super::OpenError;

pub(super) const DATABASE: &str = "hub.db";
const KEY: &str = "hub.key";
const LOCK: &str = "hub.lock";

/// The data folder when none is given: `$IDLEWATT_HOME/hub`, or the system's place for a program's data.
#[must_use]
pub fn default_folder() -> Option<PathBuf> {
    if let Some(home) = std::env::var_os("IDLEWATT_HOME").filter(|home| !home.is_empty()) {
        return Some(PathBuf::from(home).join("hub"));
    }
    directories::ProjectDirs::from("", "", "idlewatt-hub").map(|dirs| dirs.data_dir().to_owned())
}

/// Checks that a hub was here, for those who would only look.
///
/// # Errors
/// When there is no database, or this user may not look.
pub fn must_exist(folder: &Path) -> Result<(), OpenError> {
    match folder.join(DATABASE).try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(OpenError::NoHub(folder.to_owned())),
        Err(error) => Err(OpenError::unwritable(folder, &error)),
    }
}

/// Makes the folder where it is missing and takes it for this process, for as long as the file lives.
pub(super) fn take(folder: &Path) -> Result<File, OpenError> {
    let unwritable = |error: io::Error| OpenError::unwritable(folder, &error);
    make(folder).map_err(unwritable)?;
    let lock = mine(&folder.join(LOCK)).map_err(unwritable)?;
    match lock.try_lock() {
        // SQLite gives its other files the mode of the database.
        Ok(()) => mine(&folder.join(DATABASE)).map(|_| lock).map_err(unwritable),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => Err(unwritable(error)),
    }
}

/// Makes a folder for its owner only, where it is missing.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Opens a file for its owner only, and makes it where it is missing.
pub(super) fn mine(file: &Path) -> io::Result<File> {
    owners_only().create(true).truncate(false).write(true).open(file)
}

/// Puts the hub's key into a backup.
pub(super) fn copy_key(from: &Path, to: &Path) -> io::Result<()> {
    let key = fs::read(from.join(KEY))?;
    let mut file = mine(&to.join(KEY))?;
    file.write_all(&key)?;
    file.sync_all()
}

/// Reads the hub's key; `None` when there is no such file.
pub(super) fn read_key(folder: &Path) -> Result<Option<SigningKey>, OpenError> {
    let text = match fs::read_to_string(folder.join(KEY)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(OpenError::unwritable(folder, &error)),
    };
    let seed: Option<[u8; 32]> =
        HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    match seed {
        Some(seed) => Ok(Some(SigningKey::from_bytes(&seed))),
        None => Err(OpenError::KeyWrong(folder.to_owned())),
    }
}

/// Makes a new key and keeps it before it is used.
pub(super) fn make_key(folder: &Path) -> Result<SigningKey, OpenError> {
    let seed: [u8; 32] = rand::random();
    let keep = || -> io::Result<()> {
        let draft = folder.join("hub.key.new");
        let mut file = owners_only().create(true).truncate(true).write(true).open(&draft)?;
        writeln!(file, "{}", HEXLOWER.encode(&seed))?;
        file.sync_all()?;
        fs::rename(draft, folder.join(KEY))?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    keep().map_err(|error| OpenError::unwritable(folder, &error))?;
    Ok(SigningKey::from_bytes(&seed))
}

fn owners_only() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "a mode is Unix'"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
