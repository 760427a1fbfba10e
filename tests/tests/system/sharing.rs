//! When a node shares: the host's word and hours, several hubs at once, one engine to a home.

use std::time::Duration;

use idlewatt_tests::{Hub, System, claimed, until};

use crate::{chat, long_stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_stops_sharing_at_once_and_resume_starts_it_again() {
    let system = System::start().await;
    let mut answer =
        system.consumer.open("/v1/chat/completions", &long_stream("Tell a long story.")).await.unwrap();
    answer.pieces(5).await;
    assert_eq!(system.node.run(&["pause"]).code, Some(0));
    let answer = answer.rest().await;
    assert!(!answer.done && answer.error().is_some(), "the GPU is given back at once: {answer:?}");
    let idle = || async { (system.model.busy().await == 0).then_some(()) };
    let ((), took) = until(claimed(Duration::from_secs(1)), "the model server stops", idle).await;
    println!("slot idle {} ms after pause", took.as_millis());
    let status = system.node.status();
    assert_eq!(status["state"], "paused");
    assert_eq!(status["reasons"][0]["code"], "paused_by_host");

    let refused = until(claimed(Duration::from_secs(2)), "the hub knows", async || {
        let refused = system.consumer.chat(&chat("Hi", 4)).await;
        (refused.status == 503).then_some(refused)
    });
    let (refused, _) = refused.await;
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");

    assert_eq!(system.node.run(&["resume"]).code, Some(0));
    system.node.until_state("sharing").await;
    let answers = || async { (system.consumer.chat(&chat("Hi", 4)).await.status == 200).then_some(()) };
    until(claimed(Duration::from_secs(2)), "an answer after resume", answers).await;
    system.hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn share_windows_hold_from_the_moment_they_are_set() {
    let system = System::start().await;
    system.node.set("share.windows", "Mon-Fri 00:00-00:01");
    let now = std::process::Command::new("date").arg("+%H:%M").output().unwrap();
    assert_ne!(now.stdout, b"00:00\n", "this test cannot tell anything in that one minute");
    system.node.until_state("paused").await;
    let status = system.node.status();
    assert_eq!(status["reasons"][0]["code"], "outside_window", "{status}");
    assert!(status["reasons"][0]["until"].is_number(), "it says when it shares again: {status}");
    system.node.set("share.windows", "always");
    system.node.until_state("sharing").await;

    let wrong = system.node.run(&["config", "set", "share.windows", "Mon-Fri 25:00"]);
    assert_eq!(wrong.code, Some(8), "{wrong:?}");
    system.node.until_state("sharing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_serves_several_hubs_at_once_and_each_settles_its_own() {
    let system = System::start().await;
    let other = Hub::start();
    system.node.join(&other, "host").await;
    let guest = other.consumer("guest", 1_000);
    other.until_available(&guest, true).await;
    let (here, there) = (chat("Say one.", 8), chat("Say two.", 8));
    let (here, there) = tokio::join!(system.consumer.chat(&here), guest.chat(&there));
    assert_eq!((here.status, there.status), (200, 200));
    assert_eq!(guest.receipt(&there.id()).await.status, 200);
    assert_eq!(guest.receipt(&here.id()).await.status, 404, "a hub knows its own requests only");
    let settled = || async {
        let rows = system.node.requests();
        let earned = |id: &str| rows.iter().find(|row| row["id"] == id)?["earned_ucr"].as_i64();
        Some((earned(&here.id())?, earned(&there.id())?))
    };
    let ((here_ucr, there_ucr), _) =
        until(claimed(Duration::from_secs(5)), "both are settled", settled).await;
    assert_eq!(system.hub.account("host")["balance_ucr"].as_i64(), Some(here_ucr));
    assert_eq!(other.account("host")["balance_ucr"].as_i64(), Some(there_ucr));

    // Leaving one leaves the other.
    assert_eq!(system.node.run(&["leave", &other.url]).code, Some(0));
    other.until_available(&guest, false).await;
    assert_eq!(system.consumer.chat(&chat("Hi", 4)).await.status, 200);
    system.hub.check_ledger();
    other.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_comes_back_after_a_restart_with_all_that_it_knew() {
    let mut system = System::start().await;
    let before = system.consumer.chat(&chat("Say hi.", 8)).await;
    let kept = || async {
        let rows = system.node.requests();
        rows.iter().any(|row| row["id"] == before.id() && row["earned_ucr"].is_number()).then_some(())
    };
    until(claimed(Duration::from_secs(5)), "the request is settled", kept).await;
    assert_eq!(system.node.process.end(Duration::from_secs(20)), Some(0));
    system.node.restart();
    system.node.until_connected(&system.hub.url).await;
    system.hub.until_available(&system.consumer, true).await;
    let rows = system.node.requests();
    assert!(rows.iter().any(|row| row["id"] == before.id()), "requests outlive the engine");
    assert_eq!(system.consumer.chat(&chat("Hi", 4)).await.status, 200);
}
