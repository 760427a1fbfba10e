//! What a node keeps: requests, the outbox of signed statements, postings, samples, sessions, totals with what their
//! energy cost, and bench reports, in SQLite.
//!
//! One writer thread owns the only connection that writes; whatever waits in its queue is committed together, so that
//! a busy node syncs the disk once for many statements. A second, read-only connection answers questions beside it.
//! Each call gives a [`Reply`]: await it, or [`Reply::wait`] for it outside async code, or drop it.
//!
//! Two promises: a statement that was acknowledged survives `kill -9` and a power cut, and totals are kept in the same
//! transaction as what they add up, so they never drift. Never here: prompts, answers, keys and tokens.

mod bench;
mod column;
mod error;
mod hours;
mod requests;
mod samples;
mod schema;
mod sessions;
mod settings;
mod totals;
mod worker;
mod yields;

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use rusqlite::Connection;

use tokio::sync::watch;

pub use error::StoreError;
pub use hours::{HoursRow, SpanRow};
pub use requests::{Begun, Ended, Settled};
pub use samples::MAX_POINTS;
pub use sessions::SessionId;
pub use settings::{NetworkRow, ServiceRow};
pub use totals::{Cost, EnergyInterval};
pub use worker::Reply;

use worker::{Durability, Worker};

/// A node's database. Cheap to clone; the threads end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: Worker,
    reader: Worker,
    /// The number of the newest session.
    newest_session: Arc<AtomicI64>,
}

impl Store {
    /// Opens the database at `path`, makes it where there is none, and brings an older one up to date. Requests and
    /// sessions that a killed process left open are closed: such a request is `lost`.
    ///
    /// # Errors
    /// [`StoreError::Newer`] when a newer version wrote it (it is left untouched), [`StoreError::ReadOnly`],
    /// [`StoreError::Full`], [`StoreError::Damaged`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path);
        let mut connection = Connection::open(path).map_err(|error| StoreError::opening(path, error))?;
        schema::prepare(&mut connection).map_err(|error| StoreError::opening(path, error))?;
        let migrated = schema::migrate(&mut connection, schema::MIGRATIONS)
            .map_err(|error| StoreError::opening(path, error))?;
        if let schema::Migrated::Newer { found } = migrated {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: schema::VERSION });
        }
        requests::close_lost(&connection).map_err(|error| StoreError::opening(path, error))?;
        sessions::close_lost(&connection).map_err(|error| StoreError::opening(path, error))?;
        let newest = sessions::newest(&connection).map_err(|error| StoreError::opening(path, error))?;
        let reader = schema::open_reader(path).map_err(|error| StoreError::opening(path, error))?;
        let (writer, reader) = (Worker::writer(connection)?, Worker::reader(reader)?);
        Ok(Self { writer, reader, newest_session: Arc::new(AtomicI64::new(newest)) })
    }

    /// Why the disk did not keep what was last written, until it keeps something again.
    #[must_use]
    pub fn refusal(&self) -> watch::Receiver<Option<StoreError>> {
        self.writer.refusal()
    }

    /// Resolves when everything asked before is on the disk.
    pub fn flush(&self) -> Reply<()> {
        self.keep(|_| Ok(()))
    }

    /// Writes, and answers only once the disk has it.
    fn keep<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reply<T> {
        self.writer.submit(Durability::Disk, work)
    }

    /// Writes; a killed process loses nothing, a power cut may lose the last moments.
    fn note<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reply<T> {
        self.writer.submit(Durability::Cache, work)
    }

    fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Reply<T> {
        self.reader.submit(Durability::Cache, work)
    }
}

/// Makes the file for this user only where there is none; SQLite gives its other files the mode of the database.
fn make_private(path: &Path) {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Whatever hinders this hinders SQLite too, which says more about it.
    drop(options.open(path));
}
