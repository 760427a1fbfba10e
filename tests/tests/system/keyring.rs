//! The node's key in a real keyring: locked at one start, unlocked while the engine runs.

use std::time::Duration;

use idlewatt_tests::{Keyring, Node, claimed, until};

/// `doctor`'s word on the key.
fn key(node: &Node) -> String {
    let doctor = node.run(&["doctor"]).stdout;
    doctor.lines().filter(|line| line.contains("key")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_keyring_is_said_and_waited_for_and_no_other_key_is_made() {
    let Some(mut keyring) = Keyring::start() else {
        println!("skipped: gnome-keyring is not installed here");
        return;
    };
    let mut node = Node::start_in(tempfile::tempdir().unwrap(), keyring.variables());
    let (hub, bound) = (idlewatt_tests::Hub::start(), claimed(Duration::from_secs(5)));
    let in_keyring = || async { key(&node).contains("is in the keyring").then_some(()) };
    until(bound, "the key is in the keyring", in_keyring).await;
    assert!(!node.home().join("data/node.key").exists(), "and in no file");
    node.join(&hub, "host").await;
    let known = hub.run(&["node", "list", "--json"]).json();

    node.process.kill();
    keyring.lock();
    node.restart();
    let locked = async || {
        let status = node.status();
        let notice = status["attention"].as_array()?.iter().find(|it| {
            it["what"].as_str().is_some_and(|what| what.contains("key") && what.contains("locked"))
        })?;
        assert!(notice["why"].is_string() && notice["do"].as_str()?.contains("Unlock"), "{notice}");
        Some(())
    };
    until(bound, "a person is told that the keyring is locked", locked).await;
    assert!(key(&node).contains("FAIL"), "{}", key(&node));
    assert!(!node.home().join("data/node.key").exists(), "no other key is made");
    let refused = node.run(&["join", &hub.invite("host")]);
    assert_eq!(refused.code, Some(9), "{refused:?}");
    assert!(refused.stderr.contains("why:") && refused.stderr.contains("do:"), "{refused:?}");

    keyring.unlock();
    // It is asked again each half minute.
    let back = || async { (node.status()["networks"][0]["state"] == "connected").then_some(()) };
    until(Duration::from_secs(90), "the same node is back by itself", back).await;
    let after = hub.run(&["node", "list", "--json"]).json();
    assert_eq!(after.as_array().map(Vec::len), Some(1), "{after}");
    assert_eq!(after[0]["node"], known[0]["node"], "it is the same node");
}
