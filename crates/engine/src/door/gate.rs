//! Who may come in: this address by name, this origin, this token.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use idlewatt_control::Code;
use subtle::ConstantTimeEq;

use super::{Shared, refusal};

const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

/// The names by which this door may be called.
#[derive(Clone)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    pub(super) fn of(address: SocketAddr) -> Self {
        let port = address.port();
        let mut names = vec![format!("localhost:{port}"), address.to_string()];
        // Both loopback families are this machine; a listener on one may be reached by the other's name.
        match address.ip() {
            IpAddr::V4(_) => names.push(format!("127.0.0.1:{port}")),
            IpAddr::V6(_) => names.push(format!("[::1]:{port}")),
        }
        Self(names.into())
    }

    fn is_host(&self, host: &str) -> bool {
        self.0.iter().any(|name| name.eq_ignore_ascii_case(host))
    }

    fn is_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.is_host(host))
    }
}

/// Every request: the right name, the right origin; every answer: the headers that keep it where it belongs.
pub(super) async fn gate(State(names): State<Names>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = text(headers, HOST).or_else(|| request.uri().authority().map(|it| it.as_str()));
    let api = request.uri().path().starts_with("/api/");
    let mut response = if !host.is_some_and(|host| names.is_host(host)) {
        refusal(
            StatusCode::FORBIDDEN,
            Code::Unauthorized,
            "The request does not name this address in its Host header.",
            "A page elsewhere may be trying to reach this machine under another name.",
            "Use the address that `idlewatt run` printed.",
        )
    } else if headers.contains_key(ORIGIN) && !text(headers, ORIGIN).is_some_and(|it| names.is_origin(it)) {
        refusal(
            StatusCode::FORBIDDEN,
            Code::Unauthorized,
            "The request comes from another page.",
            "Only this control panel's own pages may speak to it.",
            "Open the address that `idlewatt run` printed.",
        )
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    put(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    put(X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(X_FRAME_OPTIONS, "DENY");
    put(REFERRER_POLICY, "no-referrer");
    put(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    put(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    if api {
        put(CACHE_CONTROL, "no-store");
    }
    response
}

/// Requests that need the bearer token of the control file.
pub(super) async fn bearer(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if bears(request.headers(), &shared.token) {
        return next.run(request).await;
    }
    refusal(
        StatusCode::UNAUTHORIZED,
        Code::Unauthorized,
        "The bearer token is missing or wrong.",
        "The control panel is for the person at this machine.",
        "Open the link that `idlewatt run` printed, or run `idlewatt panel` for a new one.",
    )
}

/// Whether the request carries this bearer, compared in constant time.
pub(crate) fn bears(headers: &HeaderMap, token: &str) -> bool {
    text(headers, AUTHORIZATION)
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|given| given.as_bytes().ct_eq(token.as_bytes()).into())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
