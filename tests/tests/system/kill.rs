//! `kill -9` of each part in the middle of a stream.

use std::time::{Duration, Instant};

use idlewatt_tests::{Answer, System, claimed, until};

use crate::{chat, long_stream};

/// The consumer can tell that the answer is not whole, and the answer does not claim to be.
fn is_broken_off(answer: &Answer) {
    assert!(!answer.done, "a broken stream must not end with [DONE]: {answer:?}");
    assert!(answer.error().is_some() || answer.broken, "nothing tells that the answer broke off: {answer:?}");
}

/// The system answers again, without help, in the claimed time.
async fn recovers(system: &System, since: Instant) -> Duration {
    let answers = || async {
        let answer =
            system.consumer.open("/v1/chat/completions", &chat("Say hi.", 4)).await.ok()?.rest().await;
        (answer.status == 200 && answer.error().is_none() && !answer.broken).then_some(())
    };
    until(claimed(Duration::from_secs(5)), "an answer, after the part came back", answers).await;
    since.elapsed()
}

/// What the request cost is what its receipt says, and no more than was delivered.
async fn bills_only_what_came(system: &System, id: &str, answer: &Answer) {
    let bound = claimed(Duration::from_secs(5));
    let (receipt, _) = until(bound, "the request's receipt", async || {
        let receipt = system.consumer.receipt(id).await;
        (receipt.status == 200).then(|| crate::receipts::payload(&receipt.parts[0]))
    })
    .await;
    let billed: u64 = receipt["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["usage"]["completion"].as_u64().unwrap())
        .sum();
    let delivered = answer.text().len() as u64;
    assert!(billed > 0 && billed <= delivered, "{billed} tokens billed for {delivered} bytes of content");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_model_server_breaks_the_answer_and_nothing_else() {
    let mut system = System::start().await;
    let mut answer =
        system.consumer.open("/v1/chat/completions", &long_stream("Tell a long story.")).await.unwrap();
    answer.pieces(10).await;
    system.model.process.kill();
    let answer = answer.rest().await;
    is_broken_off(&answer);
    assert!(answer.error().is_some(), "{answer:?}");
    bills_only_what_came(&system, &answer.id(), &answer).await;
    system.model.restart();
    let took = recovers(&system, Instant::now()).await;
    println!("recovered from a killed model server in {} ms", took.as_millis());
    system.hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_breaks_the_answer_and_bills_what_came() {
    let mut system = System::start().await;
    let mut answer =
        system.consumer.open("/v1/chat/completions", &long_stream("Tell a long story.")).await.unwrap();
    answer.pieces(10).await;
    system.node.process.kill();
    let answer = answer.rest().await;
    is_broken_off(&answer);
    assert!(answer.error().is_some(), "{answer:?}");
    bills_only_what_came(&system, &answer.id(), &answer).await;
    let stopped = || async { (system.model.busy().await == 0).then_some(()) };
    until(claimed(Duration::from_secs(1)), "the model server stops", stopped).await;
    system.node.restart();
    let took = recovers(&system, Instant::now()).await;
    println!("recovered from a killed node in {} ms", took.as_millis());
    system.hub.check_ledger();
    crate::mixed_run::books_agree(&system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_hub_loses_no_acknowledged_posting() {
    let mut system = System::start().await;
    let whole = system.consumer.chat(&chat("Say hi.", 8)).await;
    let acknowledged = system.consumer.receipt(&whole.id()).await;
    assert_eq!(acknowledged.status, 200);
    let mut answer =
        system.consumer.open("/v1/chat/completions", &long_stream("Tell a long story.")).await.unwrap();
    answer.pieces(10).await;
    system.hub.process.kill();
    is_broken_off(&answer.rest().await);
    // The node keeps the answer for a hub that comes back; one that knows nothing of it has no use for it.
    system.hub.restart();
    let took = recovers(&system, Instant::now()).await;
    let stopped = || async { (system.model.busy().await == 0).then_some(()) };
    until(claimed(Duration::from_secs(1)), "the model server stops", stopped).await;
    println!("recovered from a killed hub in {} ms", took.as_millis());
    system.hub.check_ledger();
    let again = system.consumer.receipt(&whole.id()).await;
    assert_eq!(again.raw, acknowledged.raw, "an acknowledged receipt is there after kill -9");
    crate::mixed_run::books_agree(&system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_told_to_end_drains_and_exits_with_zero() {
    let mut system = System::start().await;
    let whole = system.consumer.chat(&chat("Say hi.", 8)).await;
    assert_eq!(whole.status, 200);
    assert_eq!(system.hub.process.end(Duration::from_secs(20)), Some(0));
    system.hub.check_ledger();
    system.hub.restart();
    assert_eq!(system.consumer.receipt(&whole.id()).await.status, 200);
    assert_eq!(system.node.process.end(Duration::from_secs(20)), Some(0));
}
