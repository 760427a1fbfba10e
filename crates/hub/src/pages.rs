//! Pages for people: `GET /` says what this hub does now, `GET /energy` what a token costs, both without scripts;
//! `GET /chat` asks its models. Nothing is loaded from elsewhere, and no script runs that is not a file of this hub's.

pub(crate) mod admin;
pub(crate) mod chat;
mod energy;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use idlewatt_hub_core::routing::Model;
use idlewatt_protocol::{MicroCredits, UnixMillis};

use crate::hub::Hub;

pub(crate) use energy::energy;

const STYLE: &str = concat!(include_str!("pages/look.css"), include_str!("pages/status.css"));

/// The page changes by itself every so many seconds.
const REFRESH: &str = "10";

pub(crate) async fn status(State(hub): State<Arc<Hub>>) -> Response {
    let refresh = [(HeaderName::from_static("refresh"), HeaderValue::from_static(REFRESH))];
    (refresh, answer(page(&View::of(&hub)))).into_response()
}

/// What the hub's pages are made of, beside their HTML: path, type, content.
pub(crate) const FILES: [(&str, &str, &str); 6] = [
    ("/chat.js", "text/javascript; charset=utf-8", include_str!("pages/chat.js")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("pages/page.js")),
    (
        "/chat.css",
        "text/css; charset=utf-8",
        concat!(include_str!("pages/look.css"), include_str!("pages/chat.css")),
    ),
    ("/admin.js", "text/javascript; charset=utf-8", include_str!("pages/admin.js")),
    (
        "/admin.css",
        "text/css; charset=utf-8",
        concat!(include_str!("pages/look.css"), include_str!("pages/admin.css")),
    ),
    ("/icon.svg", "image/svg+xml", include_str!("../../../ui/public/icon.svg")),
];

pub(crate) fn file(kind: &'static str, content: &'static str) -> MethodRouter<Arc<Hub>> {
    get(async move || {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (headers, content)
    })
}

/// A page without scripts on its way out.
fn answer(html: String) -> Response {
    under(
        "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        html,
    )
}

/// A page whose scripts, styles and requests are this hub's own and nobody else's, and which makes no HTML of text.
fn with_scripts(html: String) -> Response {
    under(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        html,
    )
}

fn under(policy: &'static str, html: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, Html(html)).into_response()
}

/// What a page without scripts begins with. The title is HTML.
fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}</title><link rel=\"icon\" type=\"image/svg+xml\" href=\"icon.svg\"><style>{STYLE}</style></head><body>"
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
        let (models, waiting) = (routing.router.models(None), routing.waiting.total());
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
    let name = escape(&view.name);
    let mut out = head(&format!("{name} · Idlewatt hub"));
    let _ = write!(
        out,
        "<main><div class=\"row apart\"><span class=\"brand\"><img src=\"icon.svg\" alt=\"\"><span>{name}</span></span>\
         <a class=\"button\" href=\"chat\">Chat</a></div><header><h1>{}</h1><p class=\"soft\">{}</p></header>",
        sentence(view),
        detail(view)
    );
    let energy = match view.joules_per_token {
        Some(joules) => format!("<b>{joules:.2}</b> J a token <i>measured by nodes</i>"),
        None => "<b>–</b> J a token <i>unknown: no node measured one yet</i>".into(),
    };
    let unsigned = match view.receipts.1 {
        0 => "each with its node's signed word".to_owned(),
        some => format!("{} of them without the node's word", thousands(some)),
    };
    let _ = write!(
        out,
        "<section class=\"figures\" aria-label=\"Figures\"><p class=\"card\"><b>{:.1}</b> tokens a second <i>last minute</i></p>\
         <p class=\"card watts\">{energy}</p><p class=\"card\"><b>{}</b> receipts <i>{unsigned}</i></p></section>",
        view.tokens_per_second,
        thousands(view.receipts.0 + view.receipts.1),
    );
    out.push_str("<section class=\"card\" aria-labelledby=\"models\"><h2 id=\"models\">Models</h2>");
    if view.models.is_empty() {
        out.push_str(
            "<p class=\"soft\">None that everyone here may ask. One appears when a host joins with an invite and shares it: \
             <code>idlewatt-hub invite create --account NAME</code></p>",
        );
    } else {
        models(&mut out, &view.models);
    }
    let _ = write!(
        out,
        "</section><footer class=\"soft foot\"><p>Your prompt is read by the machine that answers, and its owner can look. \
         If that machine drops out or is too slow to begin, a second one may read it. The hub passes it on and keeps nothing.</p><p>{name}, key <code>{}</code> · {} prompt and {} completion tokens since \
         the start · <a href=\"energy\">energy a token</a> · <a href=\"metrics\">metrics</a> · \
         <a href=\"openapi.json\">API</a></p></footer></main></body></html>",
        escape(&view.key),
        thousands(view.tokens.0),
        thousands(view.tokens.1),
    );
    out
}

fn models(out: &mut String, models: &[Model]) {
    out.push_str(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"models\"><table><thead><tr><th>Model</th><th>State</th>\
         <th class=\"n\">Nodes</th><th class=\"n\">Context</th><th class=\"n\">Credits a million tokens</th><th>Known by</th>\
         </tr></thead><tbody>",
    );
    for model in models {
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
    out.push_str("</tbody></table></div>");
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
