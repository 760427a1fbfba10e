//! Pages for people: `GET /` says what this hub does now, `GET /energy` what a token costs. No scripts, nothing loaded
//! from elsewhere.

mod energy;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use idlewatt_hub_core::routing::Model;
use idlewatt_protocol::{MicroCredits, UnixMillis};

use crate::hub::Hub;

pub(crate) use energy::energy;

const STYLE: &str = include_str!("pages/status.css");

/// The page changes by itself every so many seconds.
const REFRESH: &str = "10";

pub(crate) async fn status(State(hub): State<Arc<Hub>>) -> Response {
    let refresh = [(HeaderName::from_static("refresh"), HeaderValue::from_static(REFRESH))];
    (refresh, answer(page(&View::of(&hub)))).into_response()
}

/// A page on its way out.
fn answer(html: String) -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Html(html)).into_response()
}

/// What every page begins with. The title is HTML.
fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title><style>{STYLE}</style></head><body>"
    )
}

/// `2026-11-21`, in UTC.
pub(crate) fn day(at: UnixMillis) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0);
    at.map_or_else(|_| "?".to_owned(), |at| at.strftime("%Y-%m-%d").to_string())
}

/// Everything that the page shows.
struct View {
    nodes: usize,
    accepting: usize,
    running: usize,
    waiting: usize,
    models: Vec<Model>,
    tokens_per_second: f64,
    joules_per_token: Option<f64>,
    tokens: (u64, u64),
    receipts: (u64, u64),
    is_draining: bool,
    name: String,
    key: String,
}

impl View {
    fn of(hub: &Hub) -> Self {
        let routing = hub.routing();
        let (nodes, accepting) = routing.router.count();
        let (models, waiting) = (routing.router.models(), routing.waiting.total());
        drop(routing);
        Self {
            nodes,
            accepting,
            waiting,
            running: hub.under_way(),
            models,
            tokens_per_second: hub.metrics.tokens_per_second(),
            joules_per_token: hub.metrics.joules_per_token(),
            tokens: hub.metrics.tokens(),
            receipts: (hub.metrics.signed.get(), hub.metrics.unsigned.get()),
            is_draining: hub.is_draining(),
            name: hub.name.clone(),
            key: hub.key.short(),
        }
    }
}

fn page(view: &View) -> String {
    let mut out = head(&format!("{} · Idlewatt hub", escape(&view.name)));
    let _ = write!(out, "<main><h1>{}</h1><p class=\"soft\">{}</p>", sentence(view), detail(view));
    let energy = match view.joules_per_token {
        Some(joules) => format!("<b>{joules:.2}</b> J a token <i>measured by nodes</i>"),
        None => "<b>–</b> J a token <i>unknown: no node measured one yet</i>".into(),
    };
    let _ = write!(
        out,
        "<section class=\"figures\"><p><b>{:.1}</b> tokens a second <i>last minute</i></p><p>{energy}</p>\
         <p><b>{}</b> receipts <i>{} of them without the node's word</i></p></section>",
        view.tokens_per_second,
        thousands(view.receipts.0 + view.receipts.1),
        thousands(view.receipts.1),
    );
    out.push_str(
        "<h2>Models</h2><div class=\"scroll\"><table><thead><tr><th>Model</th><th>State</th><th class=\"n\">Nodes</th>\
         <th class=\"n\">Context</th><th class=\"n\">Credits a million tokens</th><th>Known by</th></tr></thead><tbody>",
    );
    for model in &view.models {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>declared</td></tr>",
            escape(&model.name),
            state(model),
            model.nodes,
            thousands(model.context.into()),
            price(model),
        );
    }
    if view.models.is_empty() {
        out.push_str(
            "<tr><td colspan=\"6\" class=\"soft\">No model yet. A node appears here when its host joins with an invite: \
             <code>idlewatt-hub invite create --account NAME</code></td></tr>",
        );
    }
    let _ = write!(
        out,
        "</tbody></table></div><p class=\"soft foot\">{}, key {} · {} prompt and {} completion tokens since the start · \
         <a href=\"/energy\">energy a token</a> · <a href=\"/metrics\">metrics</a> · <a href=\"/openapi.json\">API</a><br>Your prompt is read by the machine that \
         answers, and its owner can look. The hub passes it on and keeps nothing.</p></main></body></html>",
        escape(&view.name),
        escape(&view.key),
        thousands(view.tokens.0),
        thousands(view.tokens.1),
    );
    out
}

fn sentence(view: &View) -> String {
    if view.is_draining {
        return "This hub is <em class=\"off\">stopping</em>: what runs is finished, nothing new is taken."
            .into();
    }
    match (view.nodes, view.accepting) {
        (0, _) => "<em class=\"off\">Waiting</em> for a first node.".into(),
        (1, 0) => "<em class=\"off\">Resting</em>: the one node here takes no work now.".into(),
        (nodes, 0) => format!("<em class=\"off\">Resting</em>: none of {nodes} nodes takes work now."),
        (1, _) => "<em>Ready</em>: one node shares its idle watts.".into(),
        (nodes, accepting) => format!("<em>Ready</em>: {accepting} of {nodes} nodes share their idle watts."),
    }
}

fn detail(view: &View) -> String {
    match (view.running, view.waiting) {
        (0, _) => "No request is being answered.".into(),
        (running, 0) => format!("{running} under way, none waiting."),
        (running, waiting) => format!("{running} under way, {waiting} of them waiting for a free slot."),
    }
}

fn state(model: &Model) -> &'static str {
    match (model.available, model.warm) {
        (true, true) => "warm",
        (true, false) => "cold: loads when asked",
        (false, _) => "away",
    }
}

fn price(model: &Model) -> String {
    let credits = |price: idlewatt_protocol::Price| MicroCredits(price.0).to_string();
    let (low, high) = model.price;
    if low == high { credits(low) } else { format!("{} – {}", credits(low), credits(high)) }
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View {
            nodes: 0,
            accepting: 0,
            running: 0,
            waiting: 0,
            models: Vec::new(),
            tokens_per_second: 0.0,
            joules_per_token: None,
            tokens: (1_234_567, 0),
            receipts: (1, 2),
            is_draining: false,
            name: "garage".into(),
            key: "abc".into(),
        }
    }

    #[test]
    fn the_sentence_says_what_is_going_on() {
        let say = |nodes, accepting| sentence(&View { nodes, accepting, ..view() });
        assert!(say(0, 0).contains("Waiting</em> for a first node"));
        assert!(say(2, 0).contains("none of 2 nodes"));
        assert!(say(3, 2).contains("2 of 3 nodes share"));
        assert!(sentence(&View { is_draining: true, ..view() }).contains("stopping"));
    }

    #[test]
    fn an_empty_hub_says_how_to_begin_and_what_is_unknown() {
        let page = page(&view());
        assert!(page.contains("invite create") && page.contains("unknown") && page.contains("1,234,567"));
        assert!(!page.contains("<script"));
    }

    #[test]
    fn what_a_node_says_is_text() {
        assert_eq!(escape("<b>&\"</b>"), "&lt;b&gt;&amp;&quot;&lt;/b&gt;");
    }
}
