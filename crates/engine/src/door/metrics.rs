//! `GET /metrics`: the node's figures for Prometheus. Counts, watts and states; nothing about the person.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response as HttpResponse};
use idlewatt_control::{NetworkState, Request, Response, State as NodeState, Status};

use super::Shared;

pub(super) async fn metrics(State(shared): State<Shared>) -> HttpResponse {
    let text = match shared.resident.answer(Request::Status).await {
        Response::Status(status) => exposition(&status),
        _ => String::new(),
    };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn exposition(status: &Status) -> String {
    let mut out = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, f64)>| {
        if rows.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP idlewatt_{name} {help}\n# TYPE idlewatt_{name} {kind}\n");
        for (labels, value) in rows {
            let _ = writeln!(out, "idlewatt_{name}{labels} {value}");
        }
    };
    let flag = |on: bool| if on { 1.0 } else { 0.0 };
    family("up", "gauge", "1 while the engine runs.", vec![(labels(&[("version", &status.version)]), 1.0)]);
    let sharing = status.state == NodeState::Sharing;
    family("sharing", "gauge", "1 while the node takes requests.", vec![(String::new(), flag(sharing))]);
    family("requests_running", "gauge", "Shared requests now.", vec![(String::new(), status.running.into())]);

    let gpu = |value: fn(&idlewatt_control::Gpu) -> Option<f64>| {
        let rows = status
            .gpus
            .iter()
            .filter_map(|it| Some((labels(&[("gpu", &it.id), ("name", &it.name)]), value(it)?)));
        rows.collect::<Vec<_>>()
    };
    family("gpu_power_watts", "gauge", "Power of a card.", gpu(|it| it.power_mw.map(|it| it.to_main_unit())));
    family("gpu_cap_watts", "gauge", "Cap in force.", gpu(|it| it.cap_mw.map(|it| it.to_main_unit())));
    family(
        "gpu_temperature_celsius",
        "gauge",
        "Core temperature.",
        gpu(|it| it.temperature_c.map(f64::from)),
    );
    family("gpu_vram_used_bytes", "gauge", "VRAM in use.", gpu(|it| it.vram_used.map(whole)));

    let service = |value: fn(&idlewatt_control::Service) -> f64| {
        let rows = status.services.iter();
        rows.map(|it| (labels(&[("service", &it.id), ("model", &it.model)]), value(it))).collect::<Vec<_>>()
    };
    family(
        "service_shared",
        "gauge",
        "1 where the host shares it.",
        service(|it| if it.shared { 1.0 } else { 0.0 }),
    );
    family(
        "service_ready",
        "gauge",
        "1 where it may be offered.",
        service(|it| if it.ready { 1.0 } else { 0.0 }),
    );
    family("service_slots", "gauge", "Requests at once.", service(|it| it.slots.into()));
    family("service_busy", "gauge", "Slots in shared use.", service(|it| it.busy.into()));

    let networks = status.networks.iter();
    let connected = |it: &idlewatt_control::Network| flag(it.state == NetworkState::Connected);
    let rows = networks.map(|it| (labels(&[("network", &it.name)]), connected(it))).collect();
    family("network_connected", "gauge", "1 while connected.", rows);

    let today = &status.today;
    let one = |value: f64| vec![(String::new(), value)];
    family("today_requests", "gauge", "Requests since local midnight.", one(today.requests.into()));
    family(
        "today_prompt_tokens",
        "gauge",
        "Prompt tokens since local midnight.",
        one(whole(today.tokens_in)),
    );
    family(
        "today_completion_tokens",
        "gauge",
        "Completion tokens since local midnight.",
        one(whole(today.tokens_out)),
    );
    family(
        "today_earned_credits",
        "gauge",
        "Earned since local midnight.",
        one(today.earned_ucr.to_main_unit()),
    );
    let energy = today.energy_mj.map(|it| (String::new(), it.to_main_unit()));
    family(
        "today_energy_joules",
        "gauge",
        "Energy of sharing since local midnight.",
        energy.into_iter().collect(),
    );
    out
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus knows floats only")]
fn whole(value: u64) -> f64 {
    value as f64
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
            format!("{name}=\"{value}\"")
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}
