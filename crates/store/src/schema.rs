//! The schema and its history. A migration is SQL text that imports nothing which may change; it is never edited once
//! released, and there is no way back: an older program refuses a newer file.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// What brings a database from version `n` to `n + 1`, in order.
pub(crate) const MIGRATIONS: &[&str] = &[include_str!("schema/1.sql")];

/// The version that this program writes.
#[expect(clippy::cast_possible_wrap, reason = "a handful of migrations")]
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Page cache of each connection, KiB (negative: KiB rather than pages). A node is small.
const CACHE: &str = "PRAGMA cache_size=-512";

pub(crate) enum Migrated {
    Current,
    Newer { found: i64 },
}

/// Sets what holds for the connection that writes. A version is looked at first: a newer file is not even touched by
/// a change of its journal mode.
pub(crate) fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch(CACHE)?;
    connection.execute_batch("PRAGMA foreign_keys=ON")
}

pub(crate) fn migrate(connection: &mut Connection, migrations: &[&str]) -> rusqlite::Result<Migrated> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    let mut version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > known {
        return Ok(Migrated::Newer { found: version });
    }
    connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))?;
    connection.execute_batch("PRAGMA synchronous=FULL")?;
    while version < known {
        let index = usize::try_from(version).unwrap_or_default();
        let step = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        if let Some(sql) = migrations.get(index) {
            step.execute_batch(sql)?;
        }
        version += 1;
        step.pragma_update(None, "user_version", version)?;
        step.commit()?;
    }
    Ok(Migrated::Current)
}

pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch(CACHE)?;
    Ok(connection)
}
