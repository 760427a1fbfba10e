//! The open table of energy a token, with a real hub and scripted nodes.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use idlewatt_protocol::bench::{BenchPhase, BenchPoint, BenchReport};
use idlewatt_protocol::receipt::Envelope;
use idlewatt_protocol::{Label, Milliwatts, UnixMillis};
use scripted::*;
use serde_json::{Value, json};

fn report(gpu: &str) -> BenchReport {
    let phase =
        |uj| BenchPhase { milli_tokens_per_s: 41_200, uj_per_token: Some(uj), error_uj: Some(90_000) };
    let point = |cap, uj| BenchPoint {
        cap_mw: Some(Milliwatts(cap)),
        repeats: 5,
        prefill: phase(120_000),
        decode: phase(uj),
        mean_mw: Some(Milliwatts(cap - 20_000)),
        peak_mw: Some(Milliwatts(cap)),
        temperature_c: Some(61),
        label: Label::Measured,
    };
    BenchReport {
        workload: "idlewatt-1".into(),
        version: "0.1.0".into(),
        started: UnixMillis(1_795_267_200_000),
        gpus: vec![gpu.into()],
        processor: None,
        server: "llama.cpp b6000".into(),
        artefact: offer().artefact,
        method: "NVML: instantaneous power, energy counter".into(),
        points: vec![point(250_000, 4_100_000), point(300_000, 4_850_000)],
    }
}

async fn publish(hub: &TestHub, envelope: &Envelope) -> (u16, Value) {
    let answer = hub.post("/energy/reports", &json!(envelope)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn what_a_node_published_is_shown_and_can_be_checked_by_anyone() {
    let hub = TestHub::start().await;
    let node = hub.node(1).await;
    let envelope = report("RTX <4090>").sign(&node.key);
    let (status, links) = publish(&hub, &envelope).await;
    assert_eq!(status, 201, "{links}");
    // What was shown before is no longer shown when another one comes.
    let count = async || {
        let listed: Value = hub.get("/energy.json").await.json().await.unwrap();
        listed["reports"].as_array().unwrap().len()
    };
    assert_eq!(count().await, 1);
    assert_eq!(publish(&hub, &report("B").sign(&node.key)).await.0, 201);
    assert_eq!(count().await, 2);
    // Sending it again changes nothing.
    let (status, again) = publish(&hub, &envelope).await;
    assert_eq!((status, &again), (200, &links));

    let anyone = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| anyone.get(hub.url(path)).send().await.unwrap();
    let page = get("/energy").await.text().await.unwrap();
    assert!(page.contains("RTX &lt;4090&gt;") && !page.contains("<4090>") && !page.contains("<script"));
    assert!(
        page.contains("4.850 ± 0.090") && page.contains("250 W") && page.contains("2 reports from 1 node")
    );
    assert!(page.contains(&idlewatt_protocol::PublicKey::from(&node.key).short()));
    assert!(page.find("4.100 ±") < page.find("4.850 ±"), "least energy first");

    let csv = get("/energy.csv").await.text().await.unwrap();
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert!(lines[0].contains("cap (W),prefill (J/token)"), "{}", lines[0]);
    assert_eq!((lines.len(), lines[1].matches(",4.1,").count()), (6, 1), "{csv}");

    let listed: Value = get("/energy.json").await.json().await.unwrap();
    assert_eq!(listed["reports"][1]["report"]["points"][1]["decode"]["uj_per_token"], 4_850_000);
    let path = links["report"].as_str().unwrap();
    assert_eq!(listed["reports"][1]["envelope"], path);
    let fetched: Envelope = get(path).await.json().await.unwrap();
    assert_eq!(BenchReport::open(&fetched), Ok(report("RTX <4090>")));
    assert_eq!(fetched.keyid, (&node.key).into());
    assert_eq!(get("/energy/reports/ff").await.status(), 404);
}

#[tokio::test]
async fn only_a_joined_nodes_own_whole_report_is_kept() {
    let hub = TestHub::start().await;
    let node = hub.node(1).await;
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let (status, error) = publish(&hub, &report("A").sign(&stranger)).await;
    assert_eq!((status, error["error"]["code"].as_str()), (403, Some("unknown_node")));

    let envelope = report("A").sign(&node.key);
    let forged = Envelope { payload: report("B").sign(&stranger).payload, ..envelope.clone() };
    assert_eq!(publish(&hub, &forged).await.0, 400);
    let mut beyond = report("A");
    beyond.points[0].decode.uj_per_token = Some(-1);
    assert_eq!(publish(&hub, &beyond.sign(&node.key)).await.0, 400);
    let large = hub.post("/energy/reports", &json!({ "payload": "x".repeat(200 * 1024) }));
    assert_eq!(large.send().await.unwrap().status(), 413);

    let listed: Value = hub.get("/energy.json").await.json().await.unwrap();
    assert_eq!(listed["reports"], json!([]));
    assert!(hub.get("/energy").await.text().await.unwrap().contains("idlewatt bench --publish"));
}

#[tokio::test]
async fn reports_outlive_a_restart() {
    let hub = TestHub::start().await;
    let node = hub.node(1).await;
    assert_eq!(publish(&hub, &report("A").sign(&node.key)).await.0, 201);
    drop(node);
    let hub = hub.restart().await;
    let listed: Value = hub.get("/energy.json").await.json().await.unwrap();
    assert_eq!(listed["reports"].as_array().unwrap().len(), 1);
}
