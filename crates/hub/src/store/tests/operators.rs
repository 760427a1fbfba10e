use serde_json::json;

use super::super::writer::now;
use super::*;
use crate::admin::{Answer, Command, CommandError, perform};

async fn act(store: &Store, command: Command) -> Result<Answer, CommandError> {
    perform(store, "tests", command).await
}

#[tokio::test]
async fn every_act_is_written_down_before_it_is_done_and_no_secret_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let limits = KeyLimits::default();
    let made = Command::KeyCreate { account: name("anna"), credits: MicroCredits(7), limits };
    let Answer::Key(key) = act(&store, made).await.unwrap() else { panic!("no key") };
    act(&store, Command::KeyRevoke { key: key.key.clone() }).await.unwrap();
    let nobody = act(&store, Command::AccountSuspend { account: name("nobody") }).await;
    assert!(nobody.is_err());
    act(&store, Command::AccountList).await.unwrap();
    let entries = store.audited(10).await.unwrap();
    let acts: Vec<_> = entries.iter().map(|it| it.act["command"].clone()).collect();
    assert_eq!(acts, [json!("key_create"), json!("key_revoke"), json!("account_suspend"), json!(null)]);
    assert_eq!((&entries[3].act["refused"], entries[3].seq), (&json!(3), 4));
    assert_eq!(entries[1].act["key"], key.key[..9]);
    assert!(!serde_json::to_string(&entries).unwrap().contains(&key.key));
    assert!(entries.iter().all(|it| it.actor == "tests" && it.at <= now()));
    assert_eq!(store.audited(1).await.unwrap()[0].seq, 4);
    assert_holds(folder.path());
}

#[tokio::test]
async fn an_act_that_cannot_be_written_down_is_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store
        .run(|writer| {
            Ok(writer.db.execute_batch(
                "CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'full'); END",
            )?)
        })
        .await
        .unwrap();
    let refused = act(&store, Command::GroupCreate { group: name("home"), overdraft: MicroCredits(1) }).await;
    assert!(refused.is_err());
    assert_eq!(store.groups().await.unwrap(), []);
}

#[tokio::test]
async fn a_changed_audit_log_is_found() {
    for tampering in [
        "UPDATE audit SET actor = 'somebody' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
        "UPDATE audit SET at = at + 1 WHERE seq = 1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        for _ in 0..3 {
            act(&store, Command::StrangersSet { are_let_in: false }).await.unwrap();
        }
        drop(store);
        assert_holds(folder.path());
        let db = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
        assert!(db.execute(tampering, []).is_err(), "{tampering}");
        db.execute_batch("DROP TRIGGER audit_is_immutable; DROP TRIGGER audit_stays").unwrap();
        assert_eq!(db.execute(tampering, []).unwrap(), 1);
        drop(db);
        let breaches = check_folder(folder.path()).unwrap().breaches;
        assert!(breaches.iter().any(|it| it.contains("of the audit log")), "{tampering}: {breaches:?}");
    }
}

#[tokio::test]
async fn tampering_with_months_and_days_is_found() {
    for (tampering, found) in [
        ("UPDATE account_month SET paid = paid + 1 WHERE account = 'anna'", "paid in"),
        ("UPDATE account_month SET earned = 0 WHERE account = 'ben'", "earned in"),
        ("UPDATE account_month SET taken_in = 0 WHERE account = 'anna'", "answered, in tokens"),
        ("UPDATE account_month SET given_in = given_in + 1 WHERE account = 'ben'", "differ by 1"),
        ("UPDATE account_month SET measured_out = 99 WHERE account = 'ben'", "more tokens measured"),
        ("DELETE FROM account_month WHERE account = 'issuance'", "was granted in"),
        ("UPDATE allowance_day SET spent = spent + 1 WHERE spent > 0", "spent more on day"),
        ("UPDATE account SET overdraft = 1 WHERE name = 'ben'", "ben may owe and is in no group"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
        let node = join(&store, "ben", 1).await;
        ask(&store, "anna", node, 1, 10).await;
        drop(store);
        assert_holds(folder.path());
        let db = rusqlite::Connection::open(folder.path().join("hub.db")).unwrap();
        assert!(db.execute(tampering, []).unwrap() > 0, "{tampering}");
        drop(db);
        let breaches = check_folder(folder.path()).unwrap().breaches;
        assert!(breaches.iter().any(|it| it.contains(found)), "{tampering}: {breaches:?}");
    }
}

/// While requests are settled, a backup is of one moment, holds, and can be served from.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_made_while_the_hub_serves_and_a_hub_starts_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let key =
        store.create_key(name("anna"), MicroCredits(1_000_000), KeyLimits::default()).await.unwrap().key;
    let node = join(&store, "ben", 1).await;
    let anna = store.authenticate(&key).unwrap();
    let settling: Vec<_> = (0..4u32)
        .map(|lane| {
            let (store, anna) = (store.clone(), anna.clone());
            tokio::spawn(async move {
                for number in 0..100 {
                    let reservation = reserve(&store, lane * 1000 + number, &anna, 100).unwrap();
                    store.settle(settlement(reservation, node, 10)).await.unwrap();
                }
            })
        })
        .collect();
    let mut backups = Vec::new();
    for number in 0..3 {
        let to = folder.path().join("backups").join(number.to_string());
        let made = store.back_up(to.clone()).await.unwrap();
        assert!(made.checked.ok && made.bytes > 0, "{made:?}");
        backups.push((to, made.checked.receipts));
    }
    for task in settling {
        task.await.unwrap();
    }
    assert_eq!(check_folder(folder.path()).unwrap().receipts, 400);
    for (to, receipts) in backups {
        let again = open(&to);
        assert_eq!(again.hub_key().to_bytes(), store.hub_key().to_bytes());
        assert!(again.authenticate(&key).is_some());
        assert_eq!(balance(&again, "anna").await, 1_000_000 - 10 * i64::try_from(receipts).unwrap());
        ask(&again, "anna", node, 900_000, 10).await;
        assert_holds(&to);
    }
}

#[tokio::test]
async fn a_backup_writes_over_nothing_and_is_its_owners_only() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("hub"));
    let to = folder.path().join("backup");
    store.back_up(to.clone()).await.unwrap();
    let twice = store.back_up(to.clone()).await.unwrap_err();
    assert!(matches!(twice, BackupError::NotEmpty(_)), "{twice}");
    let itself = store.back_up(folder.path().join("hub")).await.unwrap_err();
    assert!(matches!(itself, BackupError::NotEmpty(_)), "{itself}");
    assert!(matches!(store.back_up("backup".into()).await, Err(BackupError::Relative(_))));
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(store.back_up(file).await, Err(BackupError::Write { .. })));
    #[cfg(unix)]
    for (path, mode) in [(to.clone(), 0o700), (to.join("hub.db"), 0o600), (to.join("hub.key"), 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
}

#[tokio::test]
async fn every_transfer_can_be_exported() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.create_key(name("anna"), MicroCredits(1000), KeyLimits::default()).await.unwrap();
    let node = join(&store, "ben", 1).await;
    ask(&store, "anna", node, 1, 10).await;
    let exported = |wanted: Wanted| {
        let mut out = Vec::new();
        export(folder.path(), &wanted, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let all = exported(Wanted::default());
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "at,posting,purpose,from,to,amount_ucr"));
    assert!(
        lines[1].ends_with(",grant,issuance,anna,1000") && lines[2].ends_with(",request,anna,ben,10"),
        "{all}"
    );
    let json = exported(Wanted { account: Some(name("ben")), json: true, ..Wanted::default() });
    let line: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&line["to"], &line["amount_ucr"]), (&json!("ben"), &json!(10)));
    let before = Wanted { month: Some("2020-01".parse().unwrap()), ..Wanted::default() };
    assert_eq!(exported(before).lines().count(), 1);
}
