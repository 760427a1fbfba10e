//! `idlewatt power`.

use idlewatt_control::{GpuPower, ModelEnergy, Power, Sensor, SensorScope};

use super::energy::{label, lines, money, watts};
use super::{columns, grouped};

pub(super) fn power(power: &Power) -> String {
    let mut out = format!("{}\n\n", power.sentence);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut put = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    for it in &power.gpus {
        put("card", card(it));
        if !it.actuator_text.is_empty() {
            put("", it.actuator_text.clone());
        }
    }
    if let Some(cap) = power.machine.cap_mw {
        put("all cards", format!("at most {}", watts(cap)));
    }
    if let Some(wall) = power.machine.wall_mw {
        put("wall", watts(wall));
    }
    for (name, today) in [("today", &power.today), ("month", &power.month)] {
        for (what, text) in lines(today) {
            put(name, format!("{what}: {text}"));
        }
    }
    if let Some(profitable) = power.profitable {
        let text = if profitable {
            "a token earns what its energy costs now, or more"
        } else {
            "not profitable: a token earns less than its energy costs now"
        };
        put("profit", text.to_owned());
    }
    for it in &power.models {
        put("model", model(it));
    }
    for it in &power.sensors {
        put("sensor", sensor(it));
    }
    out.push_str(&columns(&rows));
    out
}

fn card(it: &GpuPower) -> String {
    let mut parts = vec![it.gpu.name.clone()];
    parts.extend(it.gpu.power_mw.map(watts));
    if it.asleep {
        parts.push("asleep".to_owned());
    }
    parts.extend(it.binding.as_ref().map(|limit| format!("at most {}: {}", watts(limit.cap_mw), limit.text)));
    parts.extend(it.gpu.temperature_c.map(|it| format!("{it} °C")));
    parts.extend(it.hot_spot_c.map(|it| format!("hot spot {it} °C")));
    parts.extend(it.fan_percent.map(|it| format!("fan {it} %")));
    parts.join(" · ")
}

fn model(it: &ModelEnergy) -> String {
    let mut parts = vec![it.model.clone(), format!("{} requests", it.requests)];
    parts.push(format!("{} tokens out", grouped(it.tokens_out)));
    parts.push(it.uj_per_token.map_or_else(
        || "energy unknown".to_owned(),
        |energy| {
            let error = it.error_uj.map_or_else(String::new, |error| format!(" ± {}", joules(error)));
            format!("{}{error} J a token, {}", joules(energy), label(it.label))
        },
    ));
    parts.extend(it.cost.as_ref().map(|it| format!("energy cost {}", money(it))));
    parts.extend(it.net.as_ref().map(|it| format!("net {}", money(it))));
    parts.join(" · ")
}

fn sensor(it: &Sensor) -> String {
    let scope = match it.scope {
        SensorScope::Board => "board",
        SensorScope::Package => "package",
        SensorScope::Rail => "rail",
        SensorScope::Machine => "machine",
        SensorScope::Wall => "wall",
    };
    let mut parts = vec![it.name.clone(), scope.to_owned(), it.method.clone()];
    parts.extend(it.refresh_ms.map(|ms| format!("every {ms} ms")));
    parts.extend(it.power_mw.map(watts));
    parts.extend(it.leaves_out.as_ref().map(|what| format!("without {what}")));
    parts.join(" · ")
}

/// Microjoules as joules, in thousandths.
fn joules(micros: i64) -> String {
    format!("{}.{:03}", micros / 1_000_000, micros % 1_000_000 / 1000)
}
