//! What one routing decision costs, by the size of the hub and by what it finds. Prints JSON; `script/bench` reads it.
//!
//! Targets: 5 µs at 10 nodes, 20 µs at 10,000, whatever is found.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: it prints, and stops at a fault"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::routing::{Ask, Router, Wanted, needs_of};
use idlewatt_protocol::message::{Endpoint, State};
use idlewatt_protocol::{Artefact, Capabilities, Price, PublicKey, Scope, ServiceOffer};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const DECISIONS: usize = 4_000;

/// A hub of so many nodes in one circle, each with a slot for itself, of which `free` of a hundred are free.
fn hub(nodes: usize, free: impl Fn(usize) -> bool, price: impl Fn(usize) -> i64) -> Router {
    let mut router = Router::default();
    for i in 0..nodes {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&i.to_le_bytes());
        let key = PublicKey(key);
        router.join(key, format!("host{i}").parse().unwrap());
        let offer = ServiceOffer {
            service: "s".into(),
            artefact: Artefact {
                model: "m".into(),
                quantisation: Some("q4".into()),
                digest: None,
                engine: "e".into(),
                engine_build: None,
            },
            slots: 4,
            context: 8192,
            price: Price(price(i)),
            capabilities: Capabilities { chat: true, streaming: true, ..Capabilities::default() },
            warm: true,
            load_ms: None,
            scope: Scope::Circle,
            region: None,
        };
        router.offer(&key, vec![offer]);
        let free_slots = if free(i) { 4 } else { 0 };
        router.state(&key, &State { accepting: true, own: false, free_slots, why: None, until: None });
    }
    router
}

/// Median and 99th percentile of one decision with its slot taken and given back.
fn measure(mut router: Router, wanted: &Wanted) -> (Duration, Duration) {
    let me: AccountName = "me".parse().unwrap();
    let mut random = 1u64;
    let mut took: Vec<Duration> = (0..DECISIONS)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let ask = Ask { account: &me, wanted, tried: &[] };
            let began = Instant::now();
            if let Ok(choice) = black_box(router.choose(&ask, random)) {
                router.release(&choice, None);
            }
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    (took[DECISIONS / 2], took[DECISIONS * 99 / 100])
}

fn main() {
    let mut needs = needs_of(Endpoint::ChatCompletions);
    needs.streaming = true;
    let wanted = Wanted { model: "m".into(), needs, ..Wanted::default() };
    let cheap = Wanted { max_price: Some(Price(1)), ..wanted.clone() };
    println!("[");
    for nodes in SIZES {
        let last = nodes - 1;
        let cases = [
            ("all free", measure(hub(nodes, |_| true, |_| 1), &wanted)),
            ("one in ten free", measure(hub(nodes, |i| i % 10 == 0, |_| 1), &wanted)),
            ("a single one free", measure(hub(nodes, |i| i == last, |_| 1), &wanted)),
            ("none free", measure(hub(nodes, |_| false, |_| 1), &wanted)),
            (
                "a single one cheap enough",
                measure(hub(nodes, |_| true, |i| i64::from(i != last) + 1), &cheap),
            ),
        ];
        for (number, (case, (p50, p99))) in cases.iter().enumerate() {
            let comma = if nodes == 10_000 && number == 4 { "" } else { "," };
            println!(
                "  {{\"nodes\": {nodes}, \"case\": \"{case}\", \"p50_ns\": {}, \"p99_ns\": {}}}{comma}",
                p50.as_nanos(),
                p99.as_nanos()
            );
        }
    }
    println!("]");
}
