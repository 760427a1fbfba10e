//! `idlewatt hours`: what became of each day's share windows.

use idlewatt_control::{DayHours, PausedFor};
use idlewatt_core::hours::span;
use idlewatt_protocol::PauseCode;

use super::columns;

/// Parts of a day that are named; the rest is in `--json`.
const NAMED: usize = 3;

pub(super) fn hours(days: &[DayHours]) -> String {
    if days.is_empty() {
        return "Nothing is known yet: Idlewatt has only just begun.\n".to_owned();
    }
    let mut out = columns(&days.iter().map(row).collect::<Vec<_>>());
    let why = days.iter().filter_map(|it| Some(format!("{}: {}\n", it.day, it.sentence.as_ref()?)));
    let why: String = why.collect();
    if !why.is_empty() {
        out.push_str(&format!("\n{why}"));
    }
    if days.iter().any(|it| it.keep_awake_would_help) {
        out.push_str(
            "\nTo keep the PC awake while it shares: `idlewatt config set share.keep_awake true`.\n",
        );
    }
    out
}

fn row(day: &DayHours) -> Vec<String> {
    let mut parts: Vec<(u64, String)> = vec![
        (day.slept_ms, "slept".to_owned()),
        (day.off_ms, "off".to_owned()),
        (day.offline_ms, "offline".to_owned()),
    ];
    parts.extend(day.paused.iter().map(|PausedFor { code, ms }| (*ms, name(*code))));
    parts.retain(|(ms, _)| *ms >= 60_000);
    parts.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
    let parts: Vec<String> =
        parts.iter().take(NAMED).map(|(ms, what)| format!("{what} {}", span(*ms))).collect();
    let shared = format!("{} shared", span(day.shared_ms));
    vec![day.day.clone(), shared, format!("of {}", span(day.window_ms)), parts.join(" · ")]
}

/// As `status --json` names it, in words: `person here`.
fn name(code: PauseCode) -> String {
    let name = serde_json::to_value(code).ok();
    name.as_ref().and_then(|it| it.as_str()).unwrap_or("paused").replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_told_with_what_took_most_of_it_and_what_would_help() {
        const MIN: u64 = 60_000;
        let day = |day: &str, shared: u64, slept: u64, sentence: Option<&str>| DayHours {
            day: day.to_owned(),
            window_ms: 540 * MIN,
            shared_ms: shared * MIN,
            offline_ms: 0,
            slept_ms: slept * MIN,
            off_ms: 0,
            paused: vec![PausedFor { code: PauseCode::PersonHere, ms: (540 - shared - slept) * MIN }],
            sentence: sentence.map(str::to_owned),
            keep_awake_would_help: slept > 0,
        };
        let slept = "Your PC slept 5 h 40 of your 9 h window.";
        let days = [day("2026-11-21", 500, 0, None), day("2026-11-20", 20, 340, Some(slept))];
        insta::assert_snapshot!(hours(&days), @r"
        2026-11-21  8 h 20 shared  of 9 h  person here 40 min
        2026-11-20  20 min shared  of 9 h  slept 5 h 40 · person here 3 h

        2026-11-20: Your PC slept 5 h 40 of your 9 h window.

        To keep the PC awake while it shares: `idlewatt config set share.keep_awake true`.
        ");
        insta::assert_snapshot!(hours(&[]), @"Nothing is known yet: Idlewatt has only just begun.");
    }
}
