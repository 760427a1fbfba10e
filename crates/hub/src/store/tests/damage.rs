//! A data folder in every bad state: one clear error each, and nothing lost.

use std::time::Duration;

use rusqlite::Connection;

use super::*;

fn refused(folder: &Path) -> OpenError {
    Store::open(folder, FeeRate::NONE).unwrap_err()
}

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join("hub.db")).unwrap()
}

#[tokio::test]
async fn two_hubs_never_share_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    assert!(matches!(refused(folder.path()), OpenError::InUse(_)));
    drop(store);
    open(folder.path());
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    database(folder.path()).pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(folder.path().join("hub.db")).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, OpenError::Newer { found: 99, known: 4, .. }), "{error}");
    assert!(matches!(check_folder(folder.path()), Err(OpenError::Newer { .. })));
    assert_eq!(std::fs::read(folder.path().join("hub.db")).unwrap(), before);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refused(&file.join("hub"));
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error}");
    assert!(matches!(check_folder(folder.path()), Err(OpenError::NoHub(_))));
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    std::fs::write(folder.path().join("hub.db"), [b'x'; 8192]).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::Corrupt { .. }));
    assert_eq!(std::fs::read(folder.path().join("hub.db")).unwrap(), [b'x'; 8192]);
}

#[tokio::test]
async fn a_lost_or_foreign_key_is_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let key = PublicKey::from(open(folder.path()).hub_key());
    let path = folder.path().join("hub.key");
    let kept = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::KeyMissing(_)));
    std::fs::write(&path, "00".repeat(32)).unwrap();
    assert!(matches!(refused(folder.path()), OpenError::KeyWrong(_)));
    std::fs::write(&path, "no key").unwrap();
    assert!(matches!(refused(folder.path()), OpenError::KeyWrong(_)));
    std::fs::write(&path, kept).unwrap();
    assert_eq!(PublicKey::from(open(folder.path()).hub_key()), key);
}

#[cfg(unix)]
#[tokio::test]
async fn key_and_ledger_are_their_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new");
    let _store = open(&data);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["hub.key", "hub.db", "hub.db-wal", "hub.lock"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

/// The disk fills up while requests are answered: their receipts wait, new requests are refused, and when there is
/// space again everything is kept.
#[tokio::test]
async fn a_full_disk_loses_no_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(100_000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    let anna = consumer(&store, "anna").await;
    let pages = |most: i64| {
        store.run(move |writer| {
            Ok(writer.db.pragma_update_and_check(None, "max_page_count", most, |row| row.get::<_, i64>(0))?)
        })
    };
    pages(1).await.unwrap();
    let mut kept = 0;
    let waiting = loop {
        let reservation = reserve(&store, kept, &anna, 100).unwrap();
        let other = store.clone();
        let mut task = tokio::spawn(async move { other.settle(settlement(reservation, node, 10)).await });
        tokio::select! {
            settled = &mut task => {
                settled.unwrap().unwrap();
                kept += 1;
            }
            () = until_failing(&store) => break task,
        }
    };
    assert_eq!(reserve(&store, 9999, &anna, 1).unwrap_err(), CannotReserve::Disk);
    assert!(!waiting.is_finished());
    assert_holds(folder.path());
    pages(1_000_000).await.unwrap();
    let settled = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(settled.file.verify().unwrap().receipt.id, id(kept));
    assert!(reserve(&store, 9999, &anna, 1).is_ok());
    assert_eq!(check_folder(folder.path()).unwrap().receipts, u64::from(kept) + 1);
    assert_holds(folder.path());
}

async fn until_failing(store: &Store) {
    while !store.0.state.failing.load(Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_kind_of_tampering_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    for number in 1..=3 {
        ask(&store, "anna", node, number, 10).await;
    }
    drop(store);
    assert_holds(folder.path());
    let whole = std::fs::read(folder.path().join("hub.db")).unwrap();
    for (tampering, found) in [
        ("UPDATE account SET balance = balance + 1 WHERE name = 'ben'", "its transfers add up to 30"),
        ("UPDATE transfer SET amount = 11 WHERE posting = 2", "the ledger says 11 from anna"),
        ("DELETE FROM transfer WHERE posting = 2", "moves nothing"),
        ("DELETE FROM receipt WHERE seq = 2", "was paid for and has no receipt"),
        ("DELETE FROM receipt WHERE seq = 2", "does not follow the one before it"),
        ("UPDATE receipt SET envelope = replace(envelope, '\"index\":0', '\"index\":1')", "does not hold"),
        ("UPDATE receipt SET account = 'ben' WHERE seq = 1", "micro-credits from ben"),
        ("UPDATE receipt SET id = randomblob(16) WHERE seq = 1", "is of req_00000001"),
        ("UPDATE node SET posted_seq = 1", "past their node's last"),
        ("DELETE FROM node_posting WHERE seq = 3", "to be told of 3 postings and are told of 2"),
        ("UPDATE posting SET reserved = 1 WHERE seq = 3", "where 1 were reserved"),
    ] {
        std::fs::write(folder.path().join("hub.db"), &whole).unwrap();
        let db = database(folder.path());
        db.pragma_update(None, "foreign_keys", false).unwrap();
        let table = tampering.split(' ').find(|word| {
            ["account", "transfer", "receipt", "node", "node_posting", "posting"].contains(word)
        });
        let immutable = ["transfer", "receipt", "posting"].contains(&table.unwrap());
        assert_eq!(db.execute(tampering, []).is_err(), immutable, "{tampering}");
        for kind in ["transfer", "receipt", "posting"] {
            db.execute_batch(&format!("DROP TRIGGER {kind}_stays; DROP TRIGGER {kind}_is_immutable"))
                .unwrap();
        }
        if immutable {
            assert!(db.execute(tampering, []).unwrap() > 0);
        }
        drop(db);
        let checked = check_folder(folder.path()).unwrap();
        assert!(!checked.ok);
        assert!(
            checked.breaches.iter().any(|words| words.contains(found)),
            "{tampering}: {:?}",
            checked.breaches
        );
    }
}
