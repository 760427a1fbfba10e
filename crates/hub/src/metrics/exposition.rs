//! `/metrics` in Prometheus' text form: base units (seconds, joules), one name a meaning, nothing about who or what was
//! asked.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{FIRST_TOKEN_MS, REFUSALS};
use crate::hub::Hub;

/// The whole page.
pub(crate) fn exposition(hub: &Hub) -> String {
    let it = &hub.metrics;
    let mut page = Page(String::with_capacity(8192));
    page.one(
        "idlewatt_hub_build_info",
        "gauge",
        "The version that runs.",
        &[(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1)],
    );
    let started = SystemTime::now().checked_sub(hub.started.elapsed());
    let started = started.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    page.one(
        "idlewatt_hub_start_time_seconds",
        "gauge",
        "When it started, since 1970.",
        &[("", started.as_secs())],
    );
    page.gauge("idlewatt_hub_draining", "1 while it takes nothing new.", usize::from(hub.is_draining()));

    let open = usize::try_from(it.connections_open.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    page.counter("idlewatt_hub_connections_total", "Connections taken.", &[("", it.connections.get())]);
    page.gauge(
        "idlewatt_hub_connections_open",
        "Connections of consumers, and of nodes in their handshake.",
        open,
    );
    let refused = [("", it.connections_refused.get())];
    page.counter(
        "idlewatt_hub_connections_refused_total",
        "Connections of addresses that had too many.",
        &refused,
    );

    page.counter("idlewatt_hub_requests_total", "Requests admitted.", &[("", it.requests.get())]);
    let name = "idlewatt_hub_refused_total";
    page.head(name, "counter", "Requests answered with an error before any byte, by HTTP status.");
    for (status, count) in REFUSALS.iter().zip(&it.refused) {
        page.line(name, &format!("status=\"{status}\""), count.get());
    }
    page.line(name, "status=\"other\"", it.refused.last().map_or(0, super::Counter::get));
    page.counter(
        "idlewatt_hub_answers_total",
        "Answers by how they ended.",
        &[
            ("outcome=\"complete\"", it.complete.get()),
            ("outcome=\"cancelled\"", it.cancelled.get()),
            ("outcome=\"broken\"", it.broken.get()),
        ],
    );
    let retries = [("", it.retries.get())];
    page.counter(
        "idlewatt_hub_retries_total",
        "Requests tried on another node before their first byte.",
        &retries,
    );
    let hedges = [("", it.hedges.get())];
    page.counter(
        "idlewatt_hub_hedges_total",
        "Requests for which a second node was asked because the first token was overdue.",
        &hedges,
    );
    let interrupted = [("", it.interrupted.get())];
    page.counter(
        "idlewatt_hub_interrupted_total",
        "Nodes that broke off after their first token.",
        &interrupted,
    );
    page.counter(
        "idlewatt_hub_continued_total",
        "Nodes that were asked to go on with what another delivered.",
        &[("", it.continued.get())],
    );
    page.counter(
        "idlewatt_hub_receipts_total",
        "Receipts with and without the node's own statement.",
        &[("statement=\"signed\"", it.signed.get()), ("statement=\"unsigned\"", it.unsigned.get())],
    );
    page.counter(
        "idlewatt_hub_breaches_total",
        "Nodes cut off for breaking the protocol.",
        &[("", it.breaches.get())],
    );
    let (prompt, completion) = it.tokens();
    let tokens = [("kind=\"prompt\"", prompt), ("kind=\"completion\"", completion)];
    page.counter("idlewatt_hub_tokens_total", "Tokens billed.", &tokens);
    let name = "idlewatt_hub_measured_energy_joules_total";
    page.head(name, "counter", "Energy of answers whose node measured it.");
    page.line(name, "", Thousandths(it.measured_mj.get()));

    let routing = hub.routing();
    let (nodes, accepting) = routing.router.count();
    let waiting = routing.waiting.total();
    drop(routing);
    page.gauge("idlewatt_hub_nodes", "Nodes connected.", nodes);
    page.gauge("idlewatt_hub_nodes_accepting", "Nodes that take requests now.", accepting);
    page.gauge(
        "idlewatt_hub_requests_under_way",
        "Requests between admission and settlement.",
        hub.under_way(),
    );
    page.gauge("idlewatt_hub_requests_waiting", "Requests that wait for a free slot.", waiting);

    let name = "idlewatt_hub_first_token_seconds";
    page.head(name, "histogram", "From admission to the first token.");
    for (bound, bucket) in FIRST_TOKEN_MS.iter().zip(&it.first_token) {
        let bucket_of = format!("le=\"{}\"", Thousandths(*bound));
        page.line("idlewatt_hub_first_token_seconds_bucket", &bucket_of, bucket.get());
    }
    let count = it.first_token_count.get();
    page.line("idlewatt_hub_first_token_seconds_bucket", "le=\"+Inf\"", count);
    page.line("idlewatt_hub_first_token_seconds_sum", "", Thousandths(it.first_token_ms.get()));
    page.line("idlewatt_hub_first_token_seconds_count", "", count);
    page.0
}

/// A number counted in thousandths.
struct Thousandths(u64);

impl std::fmt::Display for Thousandths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, part) => write!(f, "{whole}.{}", format!("{part:03}").trim_end_matches('0')),
        }
    }
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, values: &[(&str, u64)]) {
        self.head(name, kind, help);
        for (labels, value) in values {
            self.line(name, labels, value);
        }
    }

    fn counter(&mut self, name: &str, help: &str, values: &[(&str, u64)]) {
        self.one(name, "counter", help, values);
    }

    fn gauge(&mut self, name: &str, help: &str, value: usize) {
        self.head(name, "gauge", help);
        self.line(name, "", value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths_are_written_with_the_digits_they_need() {
        let written = [0, 10, 25, 1000, 2500, 60_000, 1].map(|it| Thousandths(it).to_string());
        assert_eq!(written, ["0", "0.01", "0.025", "1", "2.5", "60", "0.001"]);
    }
}
