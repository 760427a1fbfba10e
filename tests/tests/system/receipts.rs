//! Receipts: what a consumer holds in hand afterwards, and can check without anybody.

use std::time::Duration;

use data_encoding::BASE64;
use idlewatt_protocol::receipt::{ReceiptFile, commitment};
use idlewatt_tests::{System, node, until};
use serde_json::Value;

use crate::stream;

/// The receipt inside a file's envelope.
pub(crate) fn payload(file: &Value) -> Value {
    let bytes =
        BASE64.decode(file["receipt"]["payload"].as_str().expect("a payload").as_bytes()).expect("base64");
    serde_json::from_slice(&bytes).expect("a receipt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_verifies_offline_and_any_flipped_byte_is_caught() {
    let system = System::start().await;
    let answer = system.consumer.chat(&stream("Why is the sky blue?", 24)).await;
    let receipt = system.consumer.receipt(&answer.id()).await;
    assert_eq!(receipt.status, 200, "{receipt:?}");

    // Any user of an SDK can recompute what was delivered from the text alone.
    let file: ReceiptFile = serde_json::from_str(&receipt.raw).unwrap();
    let verified = file.verify().unwrap();
    let salt = file.salt.expect("the consumer gets the salt");
    assert_eq!(verified.receipt.response_commitment, commitment(&salt, answer.text().as_bytes()));
    let statement = verified.statements[0].as_ref().expect("signed by the node");
    assert_eq!(statement.response_commitment, verified.receipt.response_commitment);

    // Offline: a home where nothing ever ran, every other process gone.
    let folder = tempfile::tempdir().unwrap();
    drop(system);
    let path = folder.path().join("receipt.json");
    let verify = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        idlewatt_tests::Ran::of(node::command(folder.path()).args(["receipt", "verify"]).arg(&path)).code
    };
    let bytes = receipt.raw.as_bytes();
    assert_eq!(verify(bytes), Some(0));
    // The command itself on a spread of bytes; every single byte through the same check, in this process.
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        assert_eq!(verify(&flipped), Some(14), "byte {at} of {}", bytes.len());
    }
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        let good = serde_json::from_slice::<ReceiptFile>(&flipped).is_ok_and(|file| file.verify().is_ok());
        assert!(!good, "flipping byte {at} went unseen");
    }
    println!("a receipt of {} bytes: every flipped byte is caught", bytes.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_for_its_consumer_and_its_node_and_the_salt_for_the_consumer_alone() {
    let system = System::start().await;
    let answer = system.consumer.chat(&stream("Hi", 8)).await;
    let stranger = system.hub.consumer("stranger", 1);
    assert_eq!(stranger.receipt(&answer.id()).await.status, 404);
    let consumers: ReceiptFile =
        serde_json::from_str(&system.consumer.receipt(&answer.id()).await.raw).unwrap();
    let (shown, _) = until(Duration::from_secs(20), "the node has the receipt", async || {
        Some(system.node.run(&["receipt", "show", &answer.id(), "--json"]))
            .filter(|shown| shown.code == Some(0))
    })
    .await;
    let kept: ReceiptFile = serde_json::from_value(shown.json()).unwrap();
    assert_eq!(kept.receipt, consumers.receipt);
    assert_eq!(kept.salt, None);
    let out = system.node.home().join("exported.json");
    let path = out.to_str().unwrap();
    assert_eq!(system.node.run(&["receipt", "export", &answer.id(), "--out", path]).code, Some(0));
    assert_eq!(system.node.run(&["receipt", "verify", path]).code, Some(0));
}
