//! The schema and its history. A migration is SQL text that imports nothing which may change; it is never edited once
//! released, and there is no way back: an older program refuses a newer file.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// What brings a database from version `n` to `n + 1`, in order.
pub(crate) const MIGRATIONS: &[&str] =
    &[include_str!("schema/1.sql"), include_str!("schema/2.sql"), include_str!("schema/3.sql")];

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

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_older_database_is_brought_up_to_date_step_by_step() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "ALTER TABLE a ADD COLUMN y DEFAULT 5", "UPDATE a SET y = y + 1"];
        assert!(matches!(migrate(&mut connection, &steps[..1]), Ok(Migrated::Current)));
        connection.execute("INSERT INTO a VALUES (1)", []).unwrap();
        assert!(matches!(migrate(&mut connection, &steps), Ok(Migrated::Current)));
        let y: i64 = connection.query_row("SELECT y FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!((y, version(&connection)), (6, 3));
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let mut connection = Connection::open_in_memory().unwrap();
        let steps = ["CREATE TABLE a (x)", "CREATE TABLE b (x); CREATE TABLE a (x)"];
        assert!(migrate(&mut connection, &steps).is_err());
        assert_eq!(version(&connection), 1);
        assert!(connection.prepare("SELECT * FROM b").is_err());
    }
}
