//! `GET /energy`: what a token costs in joules, by model, hardware and power limit, as nodes measured and signed it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use idlewatt_protocol::bench::{BenchPhase, BenchPoint, decimal, joules};

use super::{answer, day, escape, head};
use crate::gateway::{Refusal, energy};
use crate::hub::Hub;
use crate::store::KeptReport;

/// Reports on the page; the files have more.
const ON_PAGE: usize = 500;

pub(crate) async fn energy(State(hub): State<Arc<Hub>>) -> Result<Response, Refusal> {
    let reports = hub.store.reports().await.map_err(|error| energy::failed(&error))?;
    Ok(answer(page(&hub.name, &reports[..reports.len().min(ON_PAGE)])))
}

/// One line of the table.
struct Line<'a> {
    kept: &'a KeptReport,
    point: &'a BenchPoint,
}

impl Line<'_> {
    /// Least energy a generated token first; unknown last.
    fn rank(&self) -> i64 {
        self.point.decode.uj_per_token.unwrap_or(i64::MAX)
    }
}

fn page(hub: &str, reports: &[KeptReport]) -> String {
    let mut models: BTreeMap<String, Vec<Line<'_>>> = BTreeMap::new();
    for kept in reports {
        let lines = models.entry(kept.report.artefact.name()).or_default();
        lines.extend(kept.report.points.iter().map(|point| Line { kept, point }));
    }
    let mut out = head(&format!("Energy a token · {}", escape(hub)));
    out.push_str("<main class=\"wide\"><h1>What a token costs, <em>in joules</em></h1>");
    let signers: std::collections::BTreeSet<_> = reports.iter().map(|kept| kept.signer.0).collect();
    let _ = write!(
        out,
        "<p class=\"soft\">{} from {}, measured with one fixed workload. Least energy first; ± is the 95 % interval over \
         repeats with the sensor's own error in it.</p>",
        counted(reports.len(), "report"),
        counted(signers.len(), "node"),
    );
    out.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>Model</th><th>Hardware</th><th class=\"n\">Cap</th>\
         <th class=\"n\">Answer, J/token</th><th class=\"n\">tokens/s</th><th class=\"n\">Prompt, J/token</th>\
         <th class=\"n\">tokens/s</th><th class=\"n\">Power</th><th>Known by</th><th>Signed by</th><th>Date</th></tr></thead><tbody>",
    );
    for (model, mut lines) in models {
        lines.sort_by_key(Line::rank);
        for (at, line) in lines.iter().enumerate() {
            row(&mut out, (at == 0).then_some(model.as_str()), line);
        }
    }
    if reports.is_empty() {
        out.push_str(
            "<tr><td colspan=\"11\" class=\"soft\">Nothing yet. On a node of this hub: \
             <code>idlewatt bench --publish</code></td></tr>",
        );
    }
    out.push_str(
        "</tbody></table></div><p class=\"soft foot\"><a href=\"/energy.csv\">CSV</a> · <a href=\"/energy.json\">JSON</a> · \
         <a href=\"/\">this hub</a><br>Each line links to the report as its node signed it; <code>idlewatt bench --verify \
         FILE</code> checks one. A signature says who measured, not that they measured well.</p></main></body></html>",
    );
    out
}

fn row(out: &mut String, model: Option<&str>, Line { kept, point }: &Line<'_>) {
    let watts = |power: Option<idlewatt_protocol::Milliwatts>| {
        power.map_or_else(|| "–".to_owned(), |power| format!("{:.0} W", power.to_main_unit()))
    };
    let energy = |phase: &BenchPhase| match phase.uj_per_token {
        Some(uj) => joules(uj, phase.error_uj),
        None => "–".to_owned(),
    };
    let speed = |phase: &BenchPhase| decimal(phase.milli_tokens_per_s / 100, 1);
    let report = &kept.report;
    let begins = if model.is_some() { " class=\"first\"" } else { "" };
    let _ = write!(
        out,
        "<tr{begins}><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td title=\"{}\">{}</td>\
         <td><a href=\"{}\"><code>{}</code></a></td><td>{}</td></tr>",
        escape(model.unwrap_or_default()),
        escape(&report.hardware()),
        watts(point.cap_mw),
        energy(&point.decode),
        speed(&point.decode),
        energy(&point.prefill),
        speed(&point.prefill),
        watts(point.mean_mw),
        escape(&format!("{}; {}; {}", report.server, report.method, report.workload)),
        point.label.as_str(),
        energy::path(&kept.id),
        kept.signer.short(),
        day(report.started),
    );
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
