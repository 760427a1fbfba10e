//! The built `idlewatt-hub`, as scripts use it: what is on stdout, and the documented exit codes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output};

use idlewatt_hub::admin::{self, Answer, perform_on};
use idlewatt_hub::store::Store;
use idlewatt_hub_core::ledger::FeeRate;
use serde_json::Value;

fn hub(data: &Path, words: &str) -> Output {
    let binary = env!("CARGO_BIN_EXE_idlewatt-hub");
    Command::new(binary).args(words.split(' ')).arg("--data").arg(data).output().unwrap()
}

fn json(data: &Path, words: &str) -> Value {
    let output = hub(data, &format!("{words} --json"));
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(data: &Path, words: &str, code: i32) -> String {
    let output = hub(data, words);
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{words}");
    assert!(output.stdout.is_empty());
    words
}

#[test]
fn keys_invites_accounts_and_groups_are_made_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let key = json(data, "key create --account anna --credits 2.5");
    assert_eq!(key["account"], "anna");
    assert!(key["key"].as_str().unwrap().starts_with("iw-"));
    let invite = json(data, "invite create --account ben");
    assert!(
        invite["invite"]
            .as_str()
            .unwrap()
            .starts_with("idlewatt://join?hub=http%3A%2F%2F127.0.0.1%3A4181&key=")
    );
    // The same for a telephone, with its secret where no server sees it.
    assert!(invite["page"].as_str().unwrap().starts_with("http://127.0.0.1:4181/join#"));
    assert!(invite["picture"]["path"].as_str().unwrap().starts_with("M4 4h1v1h-1z"));
    let earns = json(data, "invite create --account ben --earn-only");
    assert_eq!((earns.get("page"), earns.get("picture")), (None, None));
    let names: Vec<Value> =
        json(data, "account list").as_array().unwrap().iter().map(|it| it["account"].clone()).collect();
    assert_eq!(names, ["anna", "ben", "fees", "issuance"]);
    assert_eq!(json(data, "account credit anna -0.5")["balance_ucr"], 2_000_000);
    assert_eq!(json(data, "account show anna")["balance_ucr"], 2_000_000);
    json(data, "group create home --overdraft 5");
    assert_eq!(json(data, "group add home anna")["overdraft_ucr"], 5_000_000);
    assert_eq!(json(data, "group list")[0]["members"][0]["account"], "anna");
    assert_eq!(json(data, "node list"), Value::Array(Vec::new()));
    assert_eq!(json(data, "ledger check")["ok"], true);
    let text = String::from_utf8(hub(data, "account list").stdout).unwrap();
    assert!(text.contains("anna      2        0         5         home"), "{text}");
}

#[test]
fn a_circle_is_run_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let text = |words: &str| {
        let output = hub(data, words);
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    json(data, "group create home --overdraft 5");
    json(data, "invite create --account anna --group home");
    let key = json(data, "key create --account anna --requests 60 --spend 2.5 --model tiny --scope own");
    let shown = key["key"].as_str().unwrap()[..9].to_owned();
    let listed = &json(data, "key list")[0];
    let limits = serde_json::json!({
        "requests_per_minute": 60, "spend_per_day_ucr": 2_500_000, "models": ["tiny"], "scope": "own"
    });
    assert_eq!((&listed["limits"], &listed["spent_today_ucr"]), (&limits, &0.into()));
    let limited = json(data, &format!("key limit {shown} --tokens 100 --scope public"));
    assert_eq!(limited["limits"], serde_json::json!({ "tokens_per_minute": 100, "scope": "public" }));
    let rotated = json(data, &format!("key rotate {shown} --grace 24h"));
    assert_eq!(rotated["account"], "anna");
    assert!(json(data, "key list")[0]["expires"].as_i64().is_some());
    assert!(text("key list").contains("100 tokens/min, public"));

    assert!(fails(data, "account credit anna 1", 1).contains("nothing is minted"));
    json(data, "group add home anna --overdraft 2");
    json(data, "group limit home 3");
    let home = json(data, "group show home");
    assert_eq!((&home["members"][0]["overdraft_ucr"], &home["balance_ucr"]), (&3_000_000.into(), &0.into()));
    assert!(text("group show home").contains("what one owes, another is owed"));
    json(data, "account refuse anna --from-group home");
    assert_eq!(json(data, "account show anna")["refuses"]["groups"][0], "home");
    json(data, "account accept anna --from-group home");
    assert!(json(data, "account suspend anna")["suspended"].is_i64());
    assert!(text("account list").contains("suspended since"));
    json(data, "account resume anna");
    assert_eq!(json(data, "group remove home anna")["overdraft_ucr"], 0);
    assert_eq!(json(data, "strangers allow")["strangers"], true);
    assert!(text("strangers show").starts_with("Open to strangers"));

    json(data, "account credit anna 2");
    let statement = &json(data, "statement anna")[0];
    assert_eq!(
        (&statement["granted_ucr"], &statement["issuance_ucr"]),
        (&2_000_000.into(), &(-2_000_000).into())
    );
    let csv = text("statement --csv");
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(text("statement").contains("this hub granted out of nothing"));
    assert!(text("ledger export").lines().nth(1).unwrap().ends_with(",grant,issuance,anna,2000000"));
    assert!(text("ledger export --account nobody --json").is_empty());

    let copy = folder.path().join("copy");
    let made = json(data, &format!("backup {}", copy.display()));
    assert_eq!((&made["checked"]["ok"], made["folder"].as_str()), (&true.into(), copy.to_str()));
    assert_eq!(json(&copy, "account show anna")["balance_ucr"], 2_000_000);
    assert!(fails(data, &format!("backup {}", copy.display()), 1).contains("is not empty"));
    let entries = json(data, "audit --last 3");
    assert_eq!((entries.as_array().unwrap().len(), &entries[1]["act"]["command"]), (3, &"backup".into()));
    assert!(entries[2]["act"]["why"].as_str().unwrap().contains("is not empty"));
    assert!(text("audit --last 1").contains("command line"));
    assert_eq!(json(data, "ledger check")["ok"], true);
}

#[test]
fn input_that_makes_no_sense_is_told_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    json(data, "group create home --overdraft 5");
    json(data, "key create --account anna");
    for (words, told) in [
        ("group show nowhere", "there is no group nowhere"),
        ("group add nowhere anna", "there is no group nowhere"),
        ("group add home nobody", "there is no account nobody"),
        ("group remove home anna", "anna is not in the group home"),
        ("group create home", "the group home exists already"),
        ("group create fees", "fees is the hub's own account"),
        ("invite create --account ben --group nowhere", "there is no group nowhere"),
        ("key rotate iw-unknown", "no key starts with iw-unknow"),
        ("key limit iw-unknown", "no key starts with iw-unknow"),
        ("key create --account anna --requests 0", "a limit of 0 requests a minute"),
        ("account refuse anna --from anna", "anna cannot refuse its own requests"),
        ("account refuse anna --from-group nowhere", "there is no group nowhere"),
        ("account suspend issuance", "issuance is the hub's own account"),
        ("statement nobody", "there is no account nobody"),
    ] {
        let error = fails(data, words, 1);
        assert!(error.contains(told), "{words}: {error}");
    }
    for words in [
        "group create home\u{1b}[2J",
        "group create two\twords",
        "group limit home 9999999999999",
        "group add home anna --overdraft -1",
        "key create --account anna --tokens 4294967296",
        "key create --account anna --model",
        "statement --month 2026-13",
        "backup",
    ] {
        fails(data, words, 2);
    }
    let names: Vec<Value> =
        json(data, "account list").as_array().unwrap().iter().map(|it| it["account"].clone()).collect();
    assert_eq!(names, ["anna", "fees", "issuance"]);
    assert_eq!(json(data, "ledger check")["ok"], true);
}

#[test]
fn what_goes_wrong_has_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    assert!(fails(data, "ledger check", 4).contains("holds no hub"));
    assert!(fails(data, "account list", 4).contains("holds no hub"));
    fails(data, "key create", 2);
    assert!(fails(data, "serve --database postgres://x", 2).contains("--database is not in this version"));
    json(data, "key create --account anna");
    assert!(fails(data, "account show nobody", 1).contains("there is no account nobody"));
    let store = Store::open(data, FeeRate::NONE).unwrap();
    assert!(fails(data, "account list", 4).contains("in use"));
    drop(store);
    let db = rusqlite::Connection::open(data.join("hub.db")).unwrap();
    db.execute("UPDATE account SET balance = 7 WHERE name = 'anna'", []).unwrap();
    drop(db);
    let output = hub(data, "ledger check --json");
    assert_eq!(output.status.code(), Some(3));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(checked["ok"], false);
    assert_eq!(checked["breaches"].as_array().unwrap().len(), 2);
}

#[test]
fn a_port_in_use_is_said_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let words = fails(folder.path(), &format!("serve --listen {}", taken.local_addr().unwrap()), 5);
    assert!(words.contains("in use"), "{words}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_hub_serves_commands_go_through_its_socket() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), FeeRate::NONE).unwrap();
    let socket = admin::AdminDoor::bind(store.clone()).unwrap();
    let path = folder.path().join("admin.sock");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let serving = tokio::spawn(socket.serve());
    let data = folder.path().to_owned();
    let made = tokio::task::spawn_blocking(move || json(&data, "key create --account anna --credits 1"));
    let key = made.await.unwrap()["key"].as_str().unwrap().to_owned();
    assert_eq!(store.authenticate(&key).unwrap().account.as_str(), "anna");
    let refused =
        perform_on(folder.path(), admin::Command::AccountShow { account: "nobody".parse().unwrap() });
    assert!(refused.await.err().unwrap().to_string().contains("there is no account nobody"));
    let listed = perform_on(folder.path(), admin::Command::KeyList).await.unwrap();
    assert!(matches!(listed, Answer::Keys(keys) if keys[0].key == key[..9]));
    serving.abort();
    assert!(serving.await.unwrap_err().is_cancelled());
    assert!(!path.exists());
}

#[test]
fn a_hub_with_a_parent_ends_in_order_when_the_parent_is_gone() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let mut serving = Command::new(env!("CARGO_BIN_EXE_idlewatt-hub"))
        .args(["serve", "--with-parent", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(serving.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on "), "{line}");
    assert_eq!(serving.try_wait().unwrap(), None);
    // What the kernel does when a process is killed.
    drop(serving.stdin.take());
    assert!(serving.wait().unwrap().success());
}
