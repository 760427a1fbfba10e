//! What people read, as snapshots.

use idlewatt_control::{Response, Status};
use idlewatt_protocol::Scope;
use idlewatt_protocol::bench::BenchReport;
use serde_json::json;

use super::{bench, measured, response};
use crate::measure::{Measured, Report};

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
fn a_shared_model_says_whom_it_answers() {
    let mut service = sharing().services.remove(0);
    let mut said = |scope| {
        service.scope = scope;
        response(&Response::Services(vec![service.clone()]), &now())
    };
    assert!(said(Scope::Own).contains(" shared with your own account alone ·"));
    assert!(said(Scope::Circle).contains(" shared with your circle ·"));
    assert!(said(Scope::Public).contains(" shared with strangers too, while share.strangers is set ·"));
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

#[test]
fn model_files_with_how_each_would_be_loaded() {
    let file = |id: &str, model: &str, size: u64, source: &str, plan: &str, fits: bool| {
        json!({ "id": id, "model": model, "path": "/m.gguf", "source": source, "size": size, "plan": plan,
            "fits": fits, "chosen": id == "qwen3-8b-0aa2c1f7" })
    };
    let files = serde_json::from_value(json!([
        file(
            "llama-3.3-70b-instruct-91b0e2aa",
            "llama-3.3-70b-instruct:q4_k_m",
            42_520_000_000,
            "LM Studio",
            "does not fit: it takes 43.1 GB of memory, 28.0 GB may be used",
            false
        ),
        file(
            "qwen3-8b-0aa2c1f7",
            "qwen3-8b:q4_k_m",
            5_030_000_000,
            "Hugging Face cache",
            "all 36 layers on the GPU, 4 × 8,192 tokens, 10.7 GB of VRAM",
            true
        ),
        file(
            "ollama-5d2c10bb",
            "broken:q8_0",
            1_000_000_000,
            "Ollama",
            "it is cut short: 8098525888 bytes are promised, 1000000000 are there",
            false
        ),
    ]))
    .unwrap();
    insta::assert_snapshot!(response(&Response::ModelFiles(files), &now()));
    insta::assert_snapshot!(response(&Response::ModelFiles(Vec::new()), &now()), @"No model file was found. Name a folder that has GGUF files: `idlewatt config set managed.folders PATH`.");
}

#[test]
fn a_command_that_was_measured() {
    let sensor = |name: &str, scope, energy_mj, error_mj, leaves_out: Option<&str>| Measured {
        id: name.into(),
        name: name.into(),
        scope,
        method: "NVML: instantaneous power, energy counter".into(),
        leaves_out: leaves_out.map(str::to_owned),
        energy_mj,
        error_mj,
        mean_mw: energy_mj / 75,
        peak_mw: energy_mj / 60,
        label: if error_mj.is_some() { "measured" } else { "estimated" },
    };
    let report = Report {
        exit_code: 0,
        seconds: 75.04,
        sensors: vec![
            sensor("NVIDIA GeForce RTX 4090", "board", 15_020_000, Some(40_000), None),
            sensor("processor", "package", 3_100_500, None, Some("memory and the board")),
        ],
        missing: vec!["The battery is full and tells nothing.".into()],
    };
    insta::assert_snapshot!(measured(&report));
}

#[test]
fn a_machine_without_a_sensor_says_so() {
    let missing = vec!["no NVIDIA driver (NVML) is installed".into()];
    insta::assert_snapshot!(measured(&Report { exit_code: 143, seconds: 5.0, sensors: Vec::new(), missing }));
}

#[test]
fn a_sweep_over_power_limits() {
    let point = |cap: i64, uj: i64, speed: i64| {
        json!({ "cap_mw": cap * 1000, "repeats": 5, "mean_mw": cap * 980, "peak_mw": cap * 1000, "temperature_c": 61,
            "label": "measured", "prefill": { "milli_tokens_per_s": speed * 40, "uj_per_token": uj / 40, "error_uj": 3_000 },
            "decode": { "milli_tokens_per_s": speed, "uj_per_token": uj, "error_uj": 90_000 } })
    };
    let report: BenchReport = serde_json::from_value(json!({
        "workload": "idlewatt-1", "version": "0.1.0", "started": 1_795_274_000_000_i64, "server": "llama.cpp b6000",
        "gpus": ["NVIDIA GeForce RTX 4090"], "method": "NVML: instantaneous power, energy counter",
        "artefact": { "model": "qwen3-30b", "quantisation": "q4_k_m", "engine": "llama.cpp", "engine_build": "b6000" },
        "points": [point(225, 3_500_000, 64_000), point(270, 3_420_000, 78_000), point(360, 4_100_000, 86_000),
            point(450, 5_100_000, 88_000)],
    }))
    .unwrap();
    insta::assert_snapshot!(bench(&report, true, &["https://hub.example/energy".to_owned()]));
}
