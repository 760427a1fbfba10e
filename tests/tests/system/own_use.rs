//! The host's own use of the model server beside Idlewatt: a prompt sent straight to it comes first.

use std::time::{Duration, Instant};

use idlewatt_tests::{Consumer, Stream, System, claimed, until};

use crate::{long_stream, stream};

/// Slots of the model server that [`System::start`] starts.
const SLOTS: usize = 4;

/// The claim is of a hundred prompts; a quick run sends fewer.
fn rounds() -> u32 {
    if std::env::var_os("IDLEWATT_STRICT").is_some() { 100 } else { 5 }
}

/// Time to the first piece of the answer to a prompt of some fifty tokens, another one each time.
async fn first_token(host: &Consumer, round: u32) -> Duration {
    let prompt = format!(
        "My {round}. question today: a train leaves at {round} minutes past nine and needs forty minutes to the next town. \
         When does it arrive there, and why?"
    );
    let begun = Instant::now();
    let mut answer = host.open("/v1/chat/completions", &stream(&prompt, 16)).await.unwrap();
    answer.pieces(1).await;
    begun.elapsed()
}

/// Fills every slot with shared work; returns when the model server is busy with all of it.
async fn fill(system: &System, round: u32) -> Vec<Stream> {
    // Not part of the claim: a busy machine may be short of memory for half a minute, and shares nothing then.
    until(Duration::from_secs(90), "the node shares", async || {
        let listed = system.consumer.listed().await?;
        listed.iter().any(|model| model["idlewatt"]["available"] == true).then_some(())
    })
    .await;
    let mut shared = Vec::new();
    for slot in 0..SLOTS {
        let body = long_stream(&format!("Count up from {round}{slot}, in words."));
        let mut answer = system.consumer.open("/v1/chat/completions", &body).await.unwrap();
        answer.pieces(1).await;
        shared.push(answer);
    }
    assert_eq!(system.model.busy().await, SLOTS, "all slots are full with shared work");
    shared
}

fn at(part: usize, times: &mut [Duration]) -> Duration {
    times.sort();
    times[(times.len() * part).div_ceil(100).max(1) - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_of_the_hosts_own_comes_first_with_all_slots_full() {
    let system = System::start().await;
    let host = system.model.consumer();
    let (mut alone, mut full, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds() {
        let idle = || async { (system.model.busy().await == 0).then_some(()) };
        until(claimed(Duration::from_secs(2)), "the model server is idle", idle).await;
        alone.push(first_token(&host, round).await);
        let shared = fill(&system, round).await;
        full.push(first_token(&host, round).await);
        let given_back = system.node.status()["last_yield"].clone();
        assert_eq!(given_back["cause"], "own_use");
        closed.push(given_back["closed_ms"].as_u64().unwrap());
        drop(shared);
    }
    let unshared = at(50, &mut alone);
    let bound = unshared.mul_f64(1.5) + Duration::from_millis(50);
    let (middle, p95) = (at(50, &mut full), at(95, &mut full));
    println!(
        "first token of the host's own prompt: alone {} ms (middle), {} ms (p95); with all {SLOTS} slots full {} ms, {} ms; \
         bound {} ms, {} rounds; from notice to the last closed connection at most {} ms",
        unshared.as_millis(),
        at(95, &mut alone).as_millis(),
        middle.as_millis(),
        p95.as_millis(),
        bound.as_millis(),
        rounds(),
        closed.iter().max().unwrap(),
    );
    assert!(p95 <= claimed(bound), "p95 is {p95:?}, the bound {bound:?}");
    // Sharing goes on by itself when the host is done.
    system.node.until_state("sharing").await;
    assert_eq!(system.hub.check_ledger()["ok"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_polls_the_model_server_pauses_nothing() {
    let system = System::start().await;
    let shared =
        system.consumer.open("/v1/chat/completions", &long_stream("Count up from 7, in words.")).await;
    let mut shared = shared.unwrap();
    shared.pieces(1).await;
    let host = system.model.consumer();
    for path in ["/health", "/slots", "/props", "/metrics", "/v1/models"].into_iter().cycle().take(50) {
        assert_eq!(host.get(path).await.status, 200, "{path}");
        shared.pieces(1).await;
    }
    assert_eq!(system.node.status()["state"], "sharing");
    assert!(shared.more().await, "the shared answer goes on");
}
