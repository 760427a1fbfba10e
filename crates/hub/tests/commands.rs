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
