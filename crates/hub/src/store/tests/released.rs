//! Every form that was ever released opens, keeps what it had, and holds. The dumps are of real hubs: one settled request
//! without a statement, one with measured and one with estimated energy, one by the consumer's own node, a group, grants.

use idlewatt_hub_core::ledger::Month;
use idlewatt_protocol::Millijoules;
use rusqlite::Connection;

use super::*;

const RELEASED: [&str; 3] =
    [include_str!("released/1.sql"), include_str!("released/2.sql"), include_str!("released/3.sql")];

fn folder_of(dump: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let db = Connection::open(folder.path().join("hub.db")).unwrap();
    db.pragma_update(None, "foreign_keys", false).unwrap();
    db.execute_batch(dump).unwrap();
    std::fs::write(folder.path().join("hub.key"), include_str!("released/hub.key")).unwrap();
    folder
}

#[tokio::test]
async fn every_released_form_is_brought_forward_and_holds() {
    for (dump, form) in RELEASED.iter().zip(1..) {
        let folder = folder_of(dump);
        assert_holds(folder.path());
        let store = Store::open(folder.path(), "10".parse().unwrap()).unwrap();
        assert_holds(folder.path());
        for (account, expected) in [("anna", 530), ("ben", 45), ("cleo", 18), ("fees", 7), ("issuance", -600)]
        {
            assert_eq!(balance(&store, account).await, expected, "{account} of form {form}");
        }
        let keys = store.keys().await.unwrap();
        assert_eq!(keys.len(), 2);
        assert_eq!(keys.iter().filter(|key| key.revoked.is_some()).count(), 1);
        assert!(keys.iter().all(|key| key.limits == KeyLimits::default()));
        let month: Month = "2026-11".parse().unwrap();
        let statements = store.statements(None, month).await.unwrap();
        let of = |account: &str| statements.iter().find(|it| it.account == name(account)).unwrap().clone();
        let (anna, ben, cleo) = (of("anna"), of("ben"), of("cleo"));
        assert_eq!((anna.tally.requests, anna.tally.own_tokens), (4, 50), "form {form}");
        assert_eq!((anna.tally.taken_in, anna.tally.taken_out), (54, 16));
        assert_eq!((anna.opening_ucr, anna.closing_ucr), (MicroCredits(0), MicroCredits(530)));
        assert_eq!((anna.tally.granted_ucr, anna.tally.paid_ucr), (MicroCredits(600), MicroCredits(70)));
        assert_eq!((ben.tally.given_in, ben.tally.given_out), (42, 8));
        assert_eq!((ben.tally.measured_mj, ben.tally.measured_out), (Millijoules(5000), 8));
        assert_eq!((cleo.tally.measured_mj, cleo.tally.earned_ucr), (Millijoules(0), MicroCredits(18)));
        // And it goes on: the chain of receipts, the numbers of nodes, the books.
        let ben = PublicKey::from(&node_key(1));
        let settled = ask(&store, "anna", ben, 100 + form, 10).await;
        assert!(settled.file.verify().unwrap().receipt.previous.is_some());
        assert_eq!(balance(&store, "anna").await, 520);
        assert_holds(folder.path());
    }
}

#[tokio::test]
async fn a_form_is_never_changed_once_it_is_released() {
    for (dump, form) in RELEASED.iter().zip(1..) {
        let folder = folder_of(dump);
        let released = schema_of(&folder.path().join("hub.db"));
        let path = format!("{}/src/store/schema/{form}.sql", env!("CARGO_MANIFEST_DIR"));
        let fresh = tempfile::tempdir().unwrap();
        let file = fresh.path().join("hub.db");
        let db = Connection::open(&file).unwrap();
        for number in 1..form {
            let before = format!("{}/src/store/schema/{number}.sql", env!("CARGO_MANIFEST_DIR"));
            db.execute_batch(&std::fs::read_to_string(before).unwrap()).unwrap();
        }
        db.execute_batch(&std::fs::read_to_string(path).unwrap()).unwrap();
        drop(db);
        assert_eq!(schema_of(&file), released, "form {form}");
    }
}

fn schema_of(file: &Path) -> Vec<String> {
    let db = Connection::open(file).unwrap();
    let mut select = db.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}
