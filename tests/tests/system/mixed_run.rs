//! Many requests at once, some cancelled, some refused: the books of hub and node agree to the token.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::iter;
use idlewatt_tests::{Stream, System, claimed, until};
use serde_json::Value;

use crate::receipts::payload;
use crate::{chat, long_stream, stream};

/// What came of one request, as the consumer saw it.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Answered,
    Cancelled,
    Refused,
}

const REQUESTS: usize = 208;
const AT_ONCE: usize = 8;

/// Asks until the hub has room, as OpenAI's SDKs do; each refusal is one more request that was refused.
async fn open(system: &System, body: &Value, refused: &mut Vec<(Seen, String)>) -> Stream {
    loop {
        let answer = system.consumer.open("/v1/chat/completions", body).await.unwrap();
        if answer.status != 429 {
            return answer;
        }
        let again: u64 = answer.headers["retry-after-ms"].to_str().unwrap().parse().unwrap();
        refused.push((Seen::Refused, answer.answer.id()));
        assert!(refused.len() < 100, "the hub never has room");
        tokio::time::sleep(Duration::from_millis(again)).await;
    }
}

async fn one(system: &System, number: usize) -> Vec<(Seen, String)> {
    let mut all = Vec::new();
    let last = match number % 8 {
        0 | 1 => {
            let body = long_stream(&format!("Story number {number}."));
            let mut answer = open(system, &body, &mut all).await;
            answer.pieces(1 + number % 11).await;
            let id = answer.answer.id();
            drop(answer);
            (Seen::Cancelled, id)
        }
        2 => {
            let mut body = chat("Hi", 4);
            body["model"] = Value::from("no-such-model");
            let refused = system.consumer.chat(&body).await;
            assert_eq!(refused.status, 404, "{refused:?}");
            (Seen::Refused, refused.id())
        }
        3 | 4 => {
            let answer =
                open(system, &chat(&format!("Say {number} in words."), 12), &mut all).await.rest().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            (Seen::Answered, answer.id())
        }
        _ => {
            let answer =
                open(system, &stream(&format!("Say {number} in words."), 12), &mut all).await.rest().await;
            assert!(answer.done && answer.error().is_none(), "{answer:?}");
            (Seen::Answered, answer.id())
        }
    };
    all.push(last);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_one_receipt_and_the_books_agree() {
    let system = System::start().await;
    let begun = Instant::now();
    let system = &system;
    let seen: Vec<(Seen, String)> =
        iter(0..REQUESTS).map(|number| one(system, number)).buffer_unordered(AT_ONCE).concat().await;
    let took = begun.elapsed();

    let bound = claimed(Duration::from_secs(10));
    let mut receipts = BTreeMap::new();
    for (seen, id) in &seen {
        if *seen == Seen::Refused {
            assert_eq!(system.consumer.receipt(id).await.status, 404, "a refused request has no receipt");
            continue;
        }
        let (file, _) = until(bound, "a receipt", async || {
            let answer = system.consumer.receipt(id).await;
            (answer.status == 200).then(|| answer.parts[0].clone())
        })
        .await;
        let receipt = payload(&file);
        assert_eq!(receipt["id"], id.as_str());
        assert_eq!(receipt["cost"].as_i64(), cost(&receipt));
        let outcome = if *seen == Seen::Answered { "complete" } else { "cancelled" };
        // A consumer may leave when the last byte is already under way.
        assert!(receipt["outcome"] == outcome || receipt["outcome"] == "complete", "{receipt}");
        assert!(receipts.insert(id.clone(), receipt).is_none(), "one receipt a request");
    }
    let cancelled = receipts.values().filter(|it| it["outcome"] == "cancelled").count();
    assert!(cancelled >= REQUESTS / 8, "only {cancelled} were cancelled in the middle");
    let checked = system.hub.check_ledger();
    books_agree(system).await;

    // What was paid is what the receipts say, and what the node believes it earned.
    let sum = |key: &str| receipts.values().map(|it| it[key].as_i64().unwrap()).sum::<i64>();
    let rows = system.node.requests();
    let of =
        |id: &str| rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("the node knows {id}"));
    for (id, receipt) in &receipts {
        let (row, segment) = (of(id), &receipt["segments"][0]);
        assert_eq!(row["tokens_in"], segment["usage"]["prompt"], "{id}");
        assert_eq!(row["tokens_out"], segment["usage"]["completion"], "{id}");
        assert_eq!(row["earned_ucr"], segment["earned"], "{id}");
        assert!(segment["statement"]["signed"].is_object(), "{id} is signed: {segment}");
    }
    println!(
        "{REQUESTS} requests, {AT_ONCE} at once, in {:.1} s: {} receipts, {cancelled} cancelled, {} refused; {} µcr paid, {} µcr fees; ledger check: {checked}",
        took.as_secs_f64(),
        receipts.len(),
        seen.iter().filter(|(seen, _)| *seen == Seen::Refused).count(),
        sum("cost"),
        sum("fee"),
    );
}

/// ⌈tokens × price / 10⁶⌉
fn cost(receipt: &Value) -> Option<i64> {
    let usage = &receipt["segments"][0]["usage"];
    let tokens = usage["prompt"].as_i64()? + usage["completion"].as_i64()?;
    Some((tokens * receipt["price"].as_i64()? + 999_999) / 1_000_000)
}

/// The node's totals are the hub's, to the token and the micro-credit, once everything is settled.
pub(crate) async fn books_agree(system: &System) {
    let bound = claimed(Duration::from_secs(5));
    let settled = || async {
        let status = system.node.status();
        let unsettled = status["networks"]
            .as_array()?
            .iter()
            .map(|it| it["unsettled"].as_u64().unwrap_or(1))
            .sum::<u64>();
        // A row has its earnings once the hub has settled or voided it; between its end and its statement it has none. A
        // request whose hub was killed under it has no statement and never gets any.
        let orphaned = |row: &Value| row["outcome"] == "failed" && row["tokens_out"] == 0;
        let settled = |row: &Value| row["outcome"] == "lost" || orphaned(row) || row["earned_ucr"].is_i64();
        (unsettled == 0 && system.node.requests().iter().all(settled)).then_some(())
    };
    until(bound, "everything is settled", settled).await;
    let total = |key: &str| system.node.requests().iter().filter_map(|row| row[key].as_i64()).sum::<i64>();
    let host = system.hub.account("host");
    assert_eq!(total("earned_ucr"), host["balance_ucr"].as_i64().expect("a balance"), "{host}");
    let today = &system.node.status()["today"];
    assert_eq!(today["earned_ucr"].as_i64(), Some(total("earned_ucr")));
    assert_eq!(today["tokens_in"].as_i64(), Some(total("tokens_in")));
    assert_eq!(today["tokens_out"].as_i64(), Some(total("tokens_out")));
}
