//! What can go wrong with a database, as far as a person can do something about it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;

/// Why the store could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer version of the program wrote this database. It was not touched.
    #[error("{} was written by a newer version (schema {found}, this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// The file or its folder cannot be written.
    #[error("the database cannot be written: its file or folder is read-only or not ours")]
    ReadOnly,
    /// The disk is full. Nothing of what was asked is kept; what was kept before is.
    #[error("the disk is full")]
    Full,
    /// The file is no database, or a damaged one. It was not touched.
    #[error("the database is damaged, or is no database: {0}")]
    Damaged(Arc<rusqlite::Error>),
    /// The store is closed, or its thread could not start.
    #[error("the database is closed")]
    Closed,
    /// SQLite refused for another reason.
    #[error("the database failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(Arc::new(error)),
            _ => Self::Sqlite(Arc::new(error)),
        }
    }
}

impl StoreError {
    /// SQLite says no more than "cannot open" where the folder is missing or closed to us.
    pub(crate) fn opening(path: &Path, error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) if path.parent().is_some_and(Path::is_dir) => Self::ReadOnly,
            _ => error.into(),
        }
    }
}
