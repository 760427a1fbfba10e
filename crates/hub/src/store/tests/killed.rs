//! kill -9: what was acknowledged is there, whatever else was under way.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::*;

const FOLDER: &str = "IDLEWATT_TEST_FOLDER";
const FIRST: &str = "IDLEWATT_TEST_FIRST";

/// The process that is killed: this test binary again.
fn settling(folder: &Path, first: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::killed::settles_until_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
#[ignore = "run by the test below, in a process of its own"]
async fn settles_until_killed() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let store = open(Path::new(&folder));
    let node = match store.nodes().first() {
        Some(node) => node.node,
        None => {
            store.create_key(name("anna"), MicroCredits(1_000_000_000), KeyLimits::default()).await.unwrap();
            join(&store, "ben", 1).await
        }
    };
    let first: u32 = first.parse().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (first + lane..).step_by(8) {
                ask(&store, "anna", node, number, 10).await;
                // One write a line, so that a kill cuts none in two.
                std::io::stdout().write_all(format!("ack {number}\n").as_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn every_acknowledged_receipt_survives_kill_nine() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..3u32 {
        let mut child = settling(folder.path(), round * 1_000_000);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        while seen < 60 + round * 17 {
            let line = lines.next().unwrap().unwrap();
            if let Some(number) = line.strip_prefix("ack ") {
                acknowledged.insert(number.parse::<u32>().unwrap());
                seen += 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("ack ") {
                acknowledged.insert(number.parse::<u32>().unwrap());
            }
        }
        assert_holds(folder.path());
    }
    let store = open(folder.path());
    for number in &acknowledged {
        let file = store.receipt(id(*number), &name("anna")).await.unwrap();
        assert!(
            file.is_some_and(|file| file.verify().is_ok()),
            "receipt {number} was acknowledged and is gone"
        );
    }
    assert!(acknowledged.len() >= 3 * 60);
    drop(store);
    assert_holds(folder.path());
}
