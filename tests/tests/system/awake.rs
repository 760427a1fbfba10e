//! Sleep: kept from it while it shares, handed back before it, well again after it, and told of by the day.

use std::time::{Duration, Instant};

use idlewatt_tests::{Logind, ModelServer, System, claimed, until};
use serde_json::Value;

use crate::{chat, long_stream};

/// logind waits this long unless it is told otherwise (`InhibitDelayMaxSec`).
const LIMIT: Duration = Duration::from_secs(5);

async fn system() -> (Logind, System) {
    let logind = Logind::start().await;
    let model = ModelServer::start(&["--parallel", "4", "--threads", "1"]);
    let system = System::beside(model, logind.variables()).await;
    (logind, system)
}

async fn until_held(logind: &Logind, mode: &str, held: bool) -> Duration {
    let what = format!("{mode} is {}held", if held { "" } else { "not " });
    until(claimed(Duration::from_secs(1)), &what, async || (logind.holds(mode) == held).then_some(())).await.1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_is_kept_awake_only_while_it_shares_and_never_unasked() {
    let (logind, mut system) = system().await;
    system.node.until_state("sharing").await;
    until_held(&logind, "delay", true).await;
    assert!(!logind.holds("block"), "nobody asked for it");
    assert_eq!(system.node.status()["awake"], Value::Null);

    system.node.set("share.keep_awake", "true");
    let held = until_held(&logind, "block", true).await;
    assert_eq!(system.node.status()["awake"], "held");
    let doctor = system.node.run(&["doctor"]);
    assert!(doctor.stdout.contains("Kept awake while it shares"), "{doctor:?}");

    assert_eq!(system.node.run(&["pause"]).code, Some(0));
    let released = until_held(&logind, "block", false).await;
    assert_eq!(system.node.status()["awake"], "released");
    assert_eq!(system.node.run(&["resume"]).code, Some(0));
    until_held(&logind, "block", true).await;
    println!(
        "held {} ms after it was set, let go {} ms after a pause",
        held.as_millis(),
        released.as_millis()
    );

    system.node.set("share.keep_awake", "false");
    until_held(&logind, "block", false).await;
    system.node.set("share.keep_awake", "true");
    until_held(&logind, "block", true).await;
    system.node.process.kill();
    until_held(&logind, "block", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_handed_back_before_sleep_and_the_node_is_back_at_once_after_it() {
    let (logind, system) = system().await;
    let (mut slowest, mut back) = (Duration::ZERO, Duration::ZERO);
    for round in 0..5 {
        until_held(&logind, "delay", true).await;
        let body = long_stream(&format!("Count up from {round}, in words."));
        let mut answer = system.consumer.open("/v1/chat/completions", &body).await.unwrap();
        answer.pieces(5).await;
        let told = Instant::now();
        logind.sleeps(true).await;
        let released = || async { logind.released("delay") };
        let (released, _) = until(LIMIT, "the machine may sleep", released).await;
        slowest = slowest.max(released.duration_since(told));
        let idle = || async { (system.model.busy().await == 0).then_some(()) };
        until(claimed(Duration::from_secs(1)), "the model server sees that nobody listens", idle).await;
        let answer = answer.rest().await;
        assert!(!answer.done && answer.error().is_some(), "{answer:?}");
        system.hub.until_available(&system.consumer, false).await;
        assert_eq!(system.node.status()["reasons"][0]["code"], "asleep");

        let woke = Instant::now();
        logind.sleeps(false).await;
        system.node.until_connected(&system.hub.url).await;
        system.hub.until_available(&system.consumer, true).await;
        back = back.max(woke.elapsed());
        assert_eq!(system.consumer.chat(&chat("Hi", 4)).await.status, 200);
    }
    assert!(slowest <= claimed(Duration::from_secs(1)).min(LIMIT), "{slowest:?}");
    println!("handed back within {} ms, back within {} ms, in 5", slowest.as_millis(), back.as_millis());
    let settled = || async {
        let rows = system.node.requests();
        rows.iter().all(|row| row["earned_ucr"].is_number()).then_some(rows.len())
    };
    let (rows, _) = until(claimed(Duration::from_secs(5)), "every request is settled", settled).await;
    assert_eq!(rows, 10);
    system.hub.check_ledger();
}

/// A day's parts, ms: shared, off, and whether all add up to the window.
fn today(system: &System) -> (u64, u64) {
    let hours = system.node.run(&["hours", "--json"]).json();
    let day = &hours[0];
    let number = |name: &str| day[name].as_u64().unwrap_or_else(|| panic!("{name} in {day}"));
    let paused: u64 = day["paused"].as_array().unwrap().iter().map(|it| it["ms"].as_u64().unwrap()).sum();
    let parts = number("shared_ms") + number("offline_ms") + number("slept_ms") + number("off_ms") + paused;
    assert_eq!(parts, number("window_ms"), "not a millisecond more or less: {day}");
    (number("shared_ms"), number("off_ms"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_days_hours_add_up_through_pause_sleep_and_kill() {
    let (logind, mut system) = system().await;
    let begun = Instant::now();
    system.node.until_state("sharing").await;
    let (_, off) = today(&system);
    assert_eq!(off, 0);
    assert_eq!(system.node.run(&["pause"]).code, Some(0));
    assert_eq!(system.node.run(&["resume"]).code, Some(0));
    until_held(&logind, "delay", true).await;
    logind.sleeps(true).await;
    until_held(&logind, "delay", false).await;
    logind.sleeps(false).await;
    system.node.until_state("sharing").await;
    today(&system);

    let shares = Instant::now();
    let noted =
        || async { (today(&system).0 > 0 && shares.elapsed() > Duration::from_secs(1)).then_some(()) };
    until(claimed(Duration::from_secs(5)), "a second was shared", noted).await;
    system.node.process.kill();
    let down = Instant::now();
    system.node.restart();
    let down = down.elapsed();
    let (shared, off) = today(&system);
    let all = u64::try_from(begun.elapsed().as_millis()).unwrap();
    assert!(shared >= 1_000 && shared <= all, "{shared} ms shared of {all}");
    // Off from the last moment that was noted, which `hours` had just done.
    assert!(u128::from(off) + 50 >= down.as_millis(), "{off} ms off, and it was down for {down:?}");
    println!("{shared} ms shared, {off} ms off, all adds up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_stood_still_for_a_moment_goes_on() {
    let (_logind, system) = system().await;
    system.node.process.tell(libc::SIGSTOP);
    let body = chat("Say hi.", 4);
    let asked = system.consumer.chat(&body);
    tokio::pin!(asked);
    let still = tokio::time::timeout(Duration::from_secs(3), &mut asked).await;
    system.node.process.tell(libc::SIGCONT);
    assert!(still.is_err(), "nobody could answer: {still:?}");
    let answer = tokio::time::timeout(claimed(Duration::from_secs(5)), asked).await.expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
    today(&system);
    system.hub.check_ledger();
}
