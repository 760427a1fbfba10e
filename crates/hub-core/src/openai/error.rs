//! Errors in OpenAI's form, so that every SDK raises the right exception with words that help.

use std::time::Duration;

use idlewatt_protocol::{MicroCredits, Scope};
use serde_json::json;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`, for programs.
    pub code: &'static str,
    /// The field it is about.
    pub param: Option<String>,
    /// For people: what happened, what it means, what to do.
    pub message: String,
    /// When to try again; the `retry-after` header in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

const CONTEXT_LENGTH_EXCEEDED: &str = "context_length_exceeded";
const REFUSED_BY_MODEL_SERVER: &str = "refused_by_model_server";

impl ApiError {
    /// The body, also of an error chunk in a stream.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self { kind, code, param, message, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } }).to_string()
    }

    /// Whether whoever asked has only itself to blame: asking again the same way comes to the same. What a node says is
    /// nobody's word but its own, and never held against the asker.
    #[must_use]
    pub fn is_the_askers(&self) -> bool {
        matches!(self.status, 400..=499)
            && !matches!(
                self.code,
                "insufficient_quota" | "key_ended" | CONTEXT_LENGTH_EXCEEDED | REFUSED_BY_MODEL_SERVER
            )
            && (self.status != 429 || self.code != "rate_limit_exceeded" || self.retry_after.is_none())
    }

    /// 401: no key, or not one of this hub's.
    #[must_use]
    pub fn invalid_api_key() -> Self {
        Self::new(
            401,
            INVALID,
            "invalid_api_key",
            "The API key is not one of this hub's, or was revoked. Send `Authorization: Bearer iw-…` with a key from \
             its operator (`idlewatt-hub key create`).",
        )
    }

    /// 401, or an error chunk: the key was revoked, or its account suspended, while it was being answered.
    #[must_use]
    pub fn key_ended() -> Self {
        Self::new(
            401,
            INVALID,
            "key_ended",
            "The API key was revoked, or its account suspended, while this was being answered. Only what reached you is \
             billed. Ask the hub's operator.",
        )
    }

    /// 403: the operator stopped this account.
    #[must_use]
    pub fn account_suspended() -> Self {
        Self::new(
            403,
            INVALID,
            "account_suspended",
            "This account is suspended: it can fetch its receipts, and ask for nothing. Ask the hub's operator.",
        )
    }

    /// 403: the key may not ask for this model.
    #[must_use]
    pub fn model_not_allowed(model: &str, allowed: &[String]) -> Self {
        let message = format!(
            "This key may not ask for {:?}. It may ask for: {}.",
            shortened(model),
            allowed.join(", ")
        );
        Self { param: Some("model".into()), ..Self::new(403, INVALID, "model_not_allowed", message) }
    }

    /// 402: the account cannot cover the worst case.
    #[must_use]
    pub fn insufficient_quota(wanted: MicroCredits, available: MicroCredits, limited: bool) -> Self {
        let lower = if limited { " with a lower max_tokens" } else { " with a shorter prompt" };
        Self::new(
            402,
            "insufficient_quota",
            "insufficient_quota",
            format!(
                "This request may cost up to {wanted} credits and the account can spend {available} now. Ask again\
                 {lower}, lend a GPU to earn credits, or ask the hub's operator for some."
            ),
        )
    }

    /// 404: no node ever offered it.
    #[must_use]
    pub fn model_not_found(model: &str, near: &[String]) -> Self {
        let near = if near.is_empty() {
            "GET /v1/models lists what there is.".to_owned()
        } else {
            format!("Did you mean {}?", near.join(" or "))
        };
        let message = format!("No node of this hub offers a model {:?}. {near}", shortened(model));
        Self { param: Some("model".into()), ..Self::new(404, INVALID, "model_not_found", message) }
    }

    /// 404: it is offered, but not within the scope of the request.
    #[must_use]
    pub fn out_of_scope(model: &str, scope: Scope, needs: Scope) -> Self {
        let (within, by) = match scope {
            Scope::Own => ("Your own nodes do not offer", "your circle"),
            Scope::Circle | Scope::Public => ("Nobody in your circle offers", "strangers"),
        };
        let by = if needs == Scope::Public { "strangers" } else { by };
        let message = format!(
            "{within} {:?}; nodes of {by} do. To let them read this request, send `x-idlewatt-scope: {needs}` with a key \
             that reaches as far.",
            shortened(model)
        );
        Self { param: Some("x-idlewatt-scope".into()), ..Self::new(404, INVALID, "out_of_scope", message) }
    }

    /// 413: over 4 MiB.
    #[must_use]
    pub fn too_large() -> Self {
        Self::new(
            413,
            INVALID,
            "request_too_large",
            "The request body is over 4 MiB, the most this hub takes. Send less.",
        )
    }

    /// 429: every slot is taken and the queue is full, or its deadline passed.
    #[must_use]
    pub fn busy(retry_after: Duration) -> Self {
        let message = "Every node that offers this model is busy. Try again shortly.";
        Self::new(429, "rate_limit_error", "rate_limit_exceeded", message).after(retry_after)
    }

    /// 503: the hub or its nodes cannot take it now; `message` says which and why.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self::new(503, SERVER, "unavailable", message).after(retry_after)
    }

    /// 502 or an error chunk: the node broke off.
    #[must_use]
    pub fn node_failed(message: impl Into<String>) -> Self {
        Self::new(502, SERVER, "node_failed", message)
    }

    /// 400: no service that has the model was seen to do this.
    #[must_use]
    pub fn unsupported(what: &str) -> Self {
        let message = format!(
            "No node that offers this model was seen to support {what}. Ask without it, or for another model."
        );
        Self::new(400, INVALID, "unsupported", message)
    }

    /// 400: a node says that prompt and answer are too long for its model.
    #[must_use]
    pub fn context_length_exceeded() -> Self {
        let message =
            "With the answer it does not fit the model's context. Send less, or ask for a shorter answer.";
        let error = Self::new(400, INVALID, CONTEXT_LENGTH_EXCEEDED, message);
        Self { param: Some("messages".into()), ..error }
    }

    /// A node's model server does not take the request: its own 4xx status, and its words where they may be repeated.
    #[must_use]
    pub fn refused_by_model_server(status: u16, words: Option<&str>) -> Self {
        let said = words.map_or_else(String::new, |words| format!(" It says: {words}"));
        let message = format!("The model server does not take this request (status {status}).{said}");
        Self::new(status, INVALID, REFUSED_BY_MODEL_SERVER, message)
    }

    /// 400: about one field, with what it must be.
    #[must_use]
    pub fn invalid(param: &str, must: &str) -> Self {
        let message = format!("`{}` is not right: {must}.", shortened(param));
        Self { param: Some(shortened(param)), ..Self::new(400, INVALID, "invalid_value", message) }
    }

    /// 400: a field of the third list.
    #[must_use]
    pub fn rejected(param: &str, why: &str) -> Self {
        let message = format!("`{param}` is not supported here: {why}.");
        Self { param: Some(param.into()), ..Self::new(400, INVALID, "unsupported_parameter", message) }
    }

    pub(super) fn unknown_field(param: &str) -> Self {
        let param = shortened(param);
        let message = format!("`{param}` is no field of this endpoint that this hub knows. Leave it out.");
        Self { param: Some(param), ..Self::new(400, INVALID, "unknown_parameter", message) }
    }

    pub(super) fn missing(param: &str) -> Self {
        let message = format!("`{param}` is missing.");
        Self { param: Some(param.into()), ..Self::new(400, INVALID, "missing_required_parameter", message) }
    }

    /// Says where, and never what: a parser's own words may repeat the prompt.
    pub(super) fn malformed(error: &serde_json::Error) -> Self {
        let message = if error.is_data() {
            "The body must be one JSON object.".to_owned()
        } else {
            format!("The body is not JSON: it breaks at line {}, column {}.", error.line(), error.column())
        };
        Self::new(400, INVALID, "invalid_json", message)
    }

    fn new(status: u16, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
