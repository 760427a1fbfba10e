//! What people read, as snapshots.

use idlewatt_control::{Response, Status};
use serde_json::json;

use super::response;

fn now() -> jiff::Zoned {
    "2026-11-21T18:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

/// A machine in the middle of an evening.
fn sharing() -> Status {
    let artefact = json!({ "model": "qwen3-30b", "quantisation": "q4_k_m", "engine": "ollama" });
    serde_json::from_value(json!({
        "version": "0.1.0", "control": 1, "state": "sharing", "since": 1_795_274_000_000_i64,
        "sentence": "Sharing: answering 1 request, 212 W.",
        "reasons": [], "presence": "away", "running": 1, "attention": [],
        "gpus": [{ "id": "GPU-1", "name": "NVIDIA GeForce RTX 4090", "power_mw": 212_400, "cap_mw": 360_000,
            "vram_used": 19_327_352_832_u64, "vram_total": 25_769_803_776_u64, "temperature_c": 61, "label": "measured" }],
        "services": [{ "id": "s1", "model": "qwen3-30b:q4_k_m", "server": "ollama · 127.0.0.1:11434", "shared": true,
            "reachable": true, "ready": true, "warm": true, "artefact": artefact, "slots": 2, "busy": 1,
            "context": 8192, "price": 1_500_000, "capabilities": {}, "milli_tokens_per_s": 84_200 }],
        "networks": [{ "id": "n1", "kind": "hub", "name": "garage", "url": "https://hub.example", "account": "ana",
            "state": "connected", "since": 1_795_274_000_000_i64, "requests_today": 12, "earned_today_ucr": 6_900,
            "unsettled": 1 }],
        "today": { "requests": 12, "tokens_in": 3_400, "tokens_out": 1_200, "earned_ucr": 6_900,
            "energy_mj": 180_000_000, "energy_label": "measured",
            "energy_split": { "answering": 60_000_000, "waiting": 120_000_000, "awake": 0 },
            "cost": { "micros": 15_500, "currency": "EUR" } },
        "last_yield": { "cause": "person_here", "seen": 1_795_270_000_000_i64, "closed_ms": 12, "verified": false }
    }))
    .unwrap()
}

#[test]
fn status_while_sharing() {
    insta::assert_snapshot!(response(&Response::Status(Box::new(sharing())), &now()));
}

#[test]
fn status_of_a_new_machine_says_what_to_do() {
    let status: Status = serde_json::from_value(json!({
        "version": "0.1.0", "control": 1, "state": "paused", "since": 0, "reasons": [], "presence": "headless",
        "sentence": "Paused: no model is shared and no network is joined.", "running": 0, "gpus": [], "services": [],
        "networks": [],
        "today": { "requests": 0, "tokens_in": 0, "tokens_out": 0, "earned_ucr": 0, "energy_label": "unknown",
            "energy_split": { "answering": 0, "waiting": 0, "awake": 0 } },
        "attention": [{ "what": "The node's key cannot be read: the keyring is locked.", "why": "Networks know it by this key.",
            "do": "Unlock the keyring." }]
    }))
    .unwrap();
    insta::assert_snapshot!(response(&Response::Status(Box::new(status)), &now()));
}
