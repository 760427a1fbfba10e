//! What people read: short, exact, every number with its unit. Pure text, so that it can be tested.

mod bench;
mod doctor;
mod energy;
mod hours;
mod invite;
mod lists;
mod measure;
mod power;
mod receipt;
mod schedule;
mod status;
#[cfg(test)]
mod tests;

use idlewatt_control::{ConfigEntry, Response};
use idlewatt_protocol::UnixMillis;
use jiff::Zoned;

pub(crate) use bench::{bench, verified_bench};
pub(crate) use measure::measured;
pub(crate) use receipt::receipt;

/// An answer of the engine, for people. `now` says what "today" is, and in which zone.
pub(crate) fn response(response: &Response, now: &Zoned) -> String {
    match response {
        Response::Status(it) => status::status(it, now),
        Response::Doctor(it) => doctor::doctor(it),
        Response::Services(it) => lists::services(it),
        Response::Networks(it) => lists::networks(it),
        Response::Schedule(it) => schedule::schedule(it, now),
        Response::Preview(it) => schedule::outlook(it, now),
        Response::Yields(it) => lists::yields(it, now),
        Response::ModelFiles(it) => lists::model_files(it),
        Response::Hours(it) => hours::hours(it),
        Response::Programs(it) => it.iter().map(|program| format!("{}\n", program.name)).collect(),
        Response::Requests(it) => lists::requests(it, now),
        Response::Config(it) => it.iter().map(setting).collect::<Vec<_>>().join("\n"),
        Response::Receipt(it) => match it.verify() {
            Ok(verified) => receipt(&verified),
            Err(error) => format!("This receipt does not verify: {error}\n"),
        },
        Response::OwnEndpoint { url, key } => format!("base URL  {url}\nkey       {key}\n"),
        Response::HubInvite(it) => invite::text(it),
        Response::OwnHub(Some(hub)) => format!("base URL  {}\nkey       {}\n", hub.url, hub.key),
        Response::OwnHub(None) => {
            "Your own hub is off. `idlewatt hub start` starts and joins it.\n".to_owned()
        }
        Response::Panel { url } => format!("{url}\n"),
        Response::Done => String::new(),
        Response::RequestDetail(_) | Response::Samples(_) | Response::LastSession(_) | Response::Days(_) => {
            "Shown with --json.\n".to_owned()
        }
        Response::Power(it) => power::power(it),
        Response::Published(pages) => pages.iter().map(|page| format!("{page}\n")).collect(),
        Response::Error(error) => format!("{error}\n"),
    }
}

/// One setting with its meaning.
pub(crate) fn setting(entry: &ConfigEntry) -> String {
    let default = if entry.value == entry.default {
        "default".to_owned()
    } else {
        format!("default {}", value(&entry.default))
    };
    format!("{} = {}  ({default})\n    {}\n", entry.key, value(&entry.value), entry.about)
}

/// A setting's value; an empty one is visible.
pub(crate) fn value(text: &str) -> &str {
    if text.is_empty() { "(empty)" } else { text }
}

/// Rows as columns, two spaces apart; the last column is as long as it likes.
fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `12,345`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `17:40` today, `Tue 19:40` within a week, a date otherwise.
fn moment(at: UnixMillis, now: &Zoned) -> String {
    let Ok(timestamp) = jiff::Timestamp::from_millisecond(at.0) else { return "?".to_owned() };
    let at = timestamp.to_zoned(now.time_zone().clone());
    let days = (now.timestamp().as_second() - timestamp.as_second()).abs() / 86_400;
    let form = match days {
        _ if at.date() == now.date() => "%H:%M",
        0..=5 => "%a %H:%M",
        _ => "%Y-%m-%d %H:%M",
    };
    at.strftime(form).to_string()
}

/// `0.8 s`, `42 s`, `3 min 20 s`.
fn span(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..60_000 => format!("{} s", ms / 1000),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}
