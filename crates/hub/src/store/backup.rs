//! A backup of the data folder while the hub serves: a folder that a hub can be started on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::check::{Checked, check_folder};
use super::folder::{self, DATABASE};
use super::{OpenError, Store, schema};

/// What was put aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Where.
    pub folder: PathBuf,
    /// Size of its database, bytes.
    pub bytes: u64,
    /// What `ledger check` says of it.
    pub checked: Checked,
}

/// Why there is no backup. Nothing that was there before was changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It would be written over.
    #[error("{0} is there already and is not empty: give a backup a folder of its own")]
    NotEmpty(PathBuf),
    /// The folder is relative, and whoever does this may stand elsewhere.
    #[error("{0} is no whole path: write it from the root on")]
    Relative(PathBuf),
    /// It cannot be written.
    #[error(
        "the backup in {folder} could not be written: {why}. Nothing of the hub was changed; remove what is there"
    )]
    Write {
        /// Where.
        folder: PathBuf,
        /// In the system's words.
        why: String,
    },
    /// It was written, and does not hold.
    #[error("the backup in {folder} is no good: {why}")]
    Unsound {
        /// Where.
        folder: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The hub stops.
    #[error("the hub is stopping, so no backup was made")]
    Closed,
}

impl Store {
    /// Writes a consistent copy of the ledger, and the hub's key, into `folder`, and checks it. Requests go on meanwhile: the
    /// copy is of the moment at which it began.
    ///
    /// # Errors
    /// When the folder is not empty, cannot be written, or what was written does not hold.
    pub async fn back_up(&self, folder: PathBuf) -> Result<BackedUp, BackupError> {
        let from = self.folder().to_owned();
        tokio::task::spawn_blocking(move || back_up(&from, &folder)).await.map_err(|_| BackupError::Closed)?
    }
}

/// Backs up a data folder, whether or not a hub runs on it.
///
/// # Errors
/// As [`Store::back_up`].
pub fn back_up(from: &Path, folder: &Path) -> Result<BackedUp, BackupError> {
    if !folder.is_absolute() {
        return Err(BackupError::Relative(folder.to_owned()));
    }
    match fs::read_dir(folder).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(BackupError::NotEmpty(folder.to_owned())),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(write(folder, &error)),
    }
    let unsound =
        |error: OpenError| BackupError::Unsound { folder: folder.to_owned(), why: error.to_string() };
    copy(from, folder)?;
    let checked = check_folder(folder).map_err(unsound)?;
    if let Some(why) = checked.breaches.first() {
        return Err(BackupError::Unsound { folder: folder.to_owned(), why: why.clone() });
    }
    let bytes = fs::metadata(folder.join(DATABASE)).map_err(|error| write(folder, &error))?.len();
    Ok(BackedUp { folder: folder.to_owned(), bytes, checked })
}

fn copy(from: &Path, folder: &Path) -> Result<(), BackupError> {
    let failed = |error: io::Error| write(folder, &error);
    // A connection of its own: one snapshot to read, while the writer writes on.
    let db = schema::open_to_read(from)
        .map_err(|error| BackupError::Write { folder: folder.to_owned(), why: error.to_string() })?;
    folder::make(folder).map_err(failed)?;
    folder::copy_key(from, folder).map_err(failed)?;
    // SQLite gives the file that it makes a mode of its own.
    let draft = folder.join("hub.db.new");
    folder::mine(&draft).map_err(failed)?;
    vacuum_into(&db, &draft).map_err(|error| BackupError::Write {
        folder: folder.to_owned(),
        why: OpenError::sqlite(folder, &error).to_string(),
    })?;
    File::open(&draft).and_then(|file| file.sync_all()).map_err(failed)?;
    fs::rename(&draft, folder.join(DATABASE)).map_err(failed)?;
    #[cfg(unix)]
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(())
}

/// Into an empty file, which SQLite takes as its own.
fn vacuum_into(db: &Connection, file: &Path) -> rusqlite::Result<()> {
    db.execute("VACUUM INTO ?1", [file.to_string_lossy()]).map(drop)
}

fn write(folder: &Path, error: &io::Error) -> BackupError {
    BackupError::Write { folder: folder.to_owned(), why: error.to_string() }
}
