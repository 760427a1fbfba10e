//! `idlewatt status`.

use idlewatt_control::{Awake, Gpu, LastYield, NetworkState, Status};
use idlewatt_core::yielding::story::happened;
use jiff::Zoned;

use super::energy::{label, lines, watts};
use super::{columns, grouped, lists, moment};

pub(super) fn status(status: &Status, now: &Zoned) -> String {
    let mut out = format!("{}\n", status.sentence);
    for notice in &status.attention {
        out.push_str(&format!("\n! {}\n  {}\n  {}\n", notice.what, notice.why, notice.action));
    }
    out.push('\n');

    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut put = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    match status.gpus.as_slice() {
        [] => put("cards", "none found".to_owned()),
        gpus => gpus.iter().for_each(|it| put("card", gpu(it))),
    }
    match status.services.as_slice() {
        [] => put("models", "none found: start a model server, then `idlewatt doctor`".to_owned()),
        services => services.iter().for_each(|it| put("model", lists::service_line(it))),
    }
    match status.networks.as_slice() {
        [] => put("networks", "none joined: `idlewatt hub start`, or `idlewatt join INVITE`".to_owned()),
        networks => {
            for it in networks {
                let since = if it.state == NetworkState::Connected { "" } else { " since " };
                let when = if since.is_empty() { String::new() } else { moment(it.since, now) };
                put("network", format!("{}{since}{when}", lists::network_line(it)));
            }
        }
    }
    let today = &status.today;
    put(
        "today",
        format!(
            "{} requests · {} tokens in, {} out · {} credits earned",
            today.requests,
            grouped(today.tokens_in),
            grouped(today.tokens_out),
            today.earned_ucr
        ),
    );
    for (name, text) in lines(today) {
        put(name, text);
    }
    if status.running > 0 {
        put("running", format!("{} now", status.running));
    }
    if let Some(awake) = status.awake {
        let says = match awake {
            Awake::Held => "kept from sleeping while it shares",
            Awake::Released => {
                "may sleep now: kept from it only while it shares, on the mains, with its lid open"
            }
            Awake::Refused => "cannot be kept from sleeping: `idlewatt doctor` says why",
        };
        put("this PC", says.to_owned());
    }
    if let Some(last) = &status.last_yield {
        put("last yield", last_yield(last, now));
    }
    out.push_str(&columns(&rows));
    out
}

fn gpu(gpu: &Gpu) -> String {
    let mut parts = vec![gpu.name.clone()];
    match (gpu.power_mw, gpu.cap_mw) {
        (Some(power), Some(cap)) => {
            parts.push(format!("{} of {} ({})", watts(power), watts(cap), label(gpu.label)))
        }
        (Some(power), None) => parts.push(format!("{} ({})", watts(power), label(gpu.label))),
        (None, Some(cap)) => parts.push(format!("power unknown, cap {}", watts(cap))),
        (None, None) => parts.push("power unknown".to_owned()),
    }
    if let Some(temperature) = gpu.temperature_c {
        parts.push(format!("{temperature} °C"));
    }
    if let Some(used) = gpu.vram_used {
        let total = gpu.vram_total.map_or_else(String::new, |total| format!(" of {}", gib(total)));
        parts.push(format!("{}{total} VRAM", gib(used)));
    }
    parts.join(" · ")
}

fn gib(bytes: u64) -> String {
    let tenths = bytes / (1024 * 1024 * 1024 / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

fn last_yield(last: &LastYield, now: &Zoned) -> String {
    let freed = match (last.freed_ms, last.verified) {
        (Some(ms), true) => format!(", memory free in {ms} ms (checked)"),
        (Some(ms), false) => format!(", memory asked back in {ms} ms (not confirmed)"),
        (None, _) => String::new(),
    };
    let cause = happened(last.cause);
    let back =
        if last.closed_ms == 0 { "less than 1 ms".to_owned() } else { format!("{} ms", last.closed_ms) };
    format!("{}: {cause}; GPU back in {back}{freed}", moment(last.seen, now))
}
