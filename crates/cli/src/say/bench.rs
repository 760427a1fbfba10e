//! What a token costs, for people: a table of the limits, and the curve of tokens a joule.

use idlewatt_protocol::bench::{BenchPhase, BenchPoint, BenchReport, decimal, joules};
use idlewatt_protocol::{Milliwatts, PublicKey};

use super::columns;
use super::energy::watts;
use crate::bench::best;

/// Width of the longest bar.
const BAR: usize = 32;

/// The report of `idlewatt bench`.
pub(crate) fn bench(report: &BenchReport, kept: bool, pages: &[String]) -> String {
    let mut out = figures(report);
    match (pages, kept) {
        ([], true) => out.push_str("\nKept: the control panel's Power page shows it.\n"),
        ([], false) => out.push_str("\nNot kept: no engine runs. `--out FILE` writes it to a file.\n"),
        (pages, _) => {
            out.push_str("\nKept, and published:\n");
            out.extend(pages.iter().map(|page| format!("  {page}\n")));
        }
    }
    out
}

/// A report whose signature was checked.
pub(crate) fn verified_bench(report: &BenchReport, signer: &PublicKey) -> String {
    format!("{}\nSigned by node {} ({signer}); the figures are its word.\n", figures(report), signer.short())
}

fn figures(report: &BenchReport) -> String {
    let mut out = format!("{} on {}, {}\n", report.artefact.name(), report.hardware(), report.server);
    if !report.method.is_empty() {
        out.push_str(&format!("measured by {}\n", report.method));
    }
    out.push('\n');
    let head = ["cap", "prompt", "", "answer", "", "power", "peak", "hottest", "energy is"];
    let rows = report.points.iter().map(row);
    out.push_str(&columns(
        &std::iter::once(head.map(str::to_owned).to_vec()).chain(rows).collect::<Vec<_>>(),
    ));
    if report.points.len() > 1 {
        out.push_str(&curve(&report.points));
    }
    let repeats = report.points.iter().map(|it| it.repeats).max().unwrap_or_default();
    let times =
        if repeats == 1 { "once; no spread is known".to_owned() } else { format!("{repeats} times a limit") };
    out.push_str(&format!(
        "\nWorkload {}, {times}. ± is the 95 % interval of the mean with the sensor's error in it.\n",
        report.workload
    ));
    out
}

fn row(point: &BenchPoint) -> Vec<String> {
    let power = |power: Option<Milliwatts>| power.map_or_else(|| "–".to_owned(), watts);
    let energy = |phase: &BenchPhase| match phase.uj_per_token {
        Some(uj) => format!("{} J/token", joules(uj, phase.error_uj)),
        None => "energy unknown".to_owned(),
    };
    let speed = |phase: &BenchPhase| format!("{} tokens/s", decimal(phase.milli_tokens_per_s / 100, 1));
    vec![
        power(point.cap_mw),
        energy(&point.prefill),
        speed(&point.prefill),
        energy(&point.decode),
        speed(&point.decode),
        power(point.mean_mw),
        power(point.peak_mw),
        point.temperature_c.map_or_else(|| "–".to_owned(), |it| format!("{it} °C")),
        point.label.as_str().to_owned(),
    ]
}

/// Tokens a joule over the cap, the best named.
fn curve(points: &[BenchPoint]) -> String {
    let Some((best, alike)) = best(points) else { return String::new() };
    let least = best.decode.uj_per_token.unwrap_or_default().max(1);
    let fastest = points.iter().map(|it| it.decode.milli_tokens_per_s).max().unwrap_or_default().max(1);
    let rows = points.iter().map(|point| {
        let bar = point.decode.uj_per_token.filter(|it| *it > 0).map_or(0, |uj| {
            usize::try_from(i64::try_from(BAR).unwrap_or(0) * least / uj).unwrap_or_default().max(1)
        });
        let per_joule = point.decode.uj_per_token.filter(|it| *it > 0).map(|uj| 1e6 / uj as f64);
        vec![
            point.cap_mw.map_or_else(|| "–".to_owned(), watts),
            format!("{:<BAR$}", "█".repeat(bar)),
            per_joule.map_or_else(|| "–".to_owned(), |it| format!("{it:.3} tokens/J")),
            format!("{} % of full speed", point.decode.milli_tokens_per_s * 100 / fastest),
            if point == best { "← best".to_owned() } else { String::new() },
        ]
    });
    let mut out = format!("\nTokens a joule while answering\n{}", columns(&rows.collect::<Vec<_>>()));
    let cap = |it: &BenchPoint| it.cap_mw.map_or_else(|| "no cap".to_owned(), watts);
    out.push_str(&format!(
        "Most tokens a joule at {}, at {} % of full speed.",
        cap(best),
        best.decode.milli_tokens_per_s * 100 / fastest
    ));
    if !alike.is_empty() {
        let alike: Vec<String> = alike.into_iter().map(cap).collect();
        out.push_str(&format!(" Within its error: {}.", alike.join(", ")));
    }
    out.push('\n');
    out
}
