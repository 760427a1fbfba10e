//! The database's form, forward only: `user_version` counts the migrations that were applied.
//!
//! A migration, once released, is never changed; a newer database is refused and left as it is.

mod backfill;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::OpenError;
use super::folder::{DATABASE, must_exist};
use super::writer::now;

/// A step forward: its statements, and what they cannot say.
type Migration = (&'static str, Option<fn(&Connection) -> rusqlite::Result<()>>);

const MIGRATIONS: &[Migration] = &[
    (include_str!("schema/1.sql"), None),
    (include_str!("schema/2.sql"), None),
    (include_str!("schema/3.sql"), None),
    (include_str!("schema/4.sql"), Some(backfill::months)),
];

/// Opens the database for the one writer and brings it to this build's form.
pub(super) fn open(folder: &Path) -> Result<Connection, OpenError> {
    let refused = |error: rusqlite::Error| OpenError::sqlite(folder, &error);
    let mut db = Connection::open(folder.join(DATABASE)).map_err(refused)?;
    // Before anything is written, so that a newer database is left untouched.
    let version = known_version(folder, &db)?;
    let prepare = |db: &mut Connection| -> rusqlite::Result<()> {
        db.busy_timeout(Duration::from_secs(5))?;
        db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        db.pragma_update(None, "synchronous", "full")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.set_prepared_statement_cache_capacity(64);
        for ((statements, beyond), number) in MIGRATIONS.iter().zip(1..).skip(version) {
            let tx = db.transaction()?;
            tx.execute_batch(statements)?;
            if let Some(beyond) = beyond {
                beyond(&tx)?;
            }
            tx.pragma_update(None, "user_version", number)?;
            tx.commit()?;
        }
        // Finds a read-only or full disk now rather than at the first settlement.
        set_setting(db, "opened", &now().0.to_string())
    };
    prepare(&mut db).map_err(refused)?;
    Ok(db)
}

/// Opens the database to look only; another process may be its writer.
pub(super) fn open_to_read(folder: &Path) -> Result<Connection, OpenError> {
    must_exist(folder)?;
    // Reading a write-ahead log needs its shared index, hence write access where there is some.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(folder.join(DATABASE), flags)
        .and_then(|db| db.busy_timeout(Duration::from_secs(5)).map(|()| db))
        .map_err(|error| OpenError::sqlite(folder, &error))?;
    if known_version(folder, &db)? == 0 {
        return Err(OpenError::NoHub(folder.to_owned()));
    }
    Ok(db)
}

fn known_version(folder: &Path, db: &Connection) -> Result<usize, OpenError> {
    let found: i64 = db
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|error| OpenError::sqlite(folder, &error))?;
    match usize::try_from(found) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => {
            let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
            Err(OpenError::Newer { folder: folder.to_owned(), found, known })
        }
    }
}

/// Whether it has the form of this build; an older one gets it when a hub opens it.
pub(super) fn is_current(db: &Connection) -> rusqlite::Result<bool> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version) == Ok(MIGRATIONS.len()))
}

/// A setting that the hub keeps.
pub(super) fn setting(db: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()
}

pub(super) fn set_setting(db: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        [name, value],
    )?;
    Ok(())
}
