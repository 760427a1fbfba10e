//! The loopback server: the control door, the window's files, metrics and the host's own OpenAI endpoint.
//!
//! Everything is for this machine only, and a browser on this machine runs strangers' pages. So every request must name
//! this very address in `Host` (a rebound DNS name does not) and, where a browser states an `Origin`, the same one;
//! nothing is ever allowed across origins; and the control door wants a bearer token that lives in a file of this user.
//! What the requests mean is the [`Resident`]'s business, not this module's.

mod events;
mod gate;
mod login;
mod metrics;
mod pages;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response as HttpResponse};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use bytes::Bytes;
use idlewatt_control::{Code, ControlError, Event, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

pub(crate) use gate::bears;
pub use login::LoginCodes;

/// Largest control request, bytes. The longest is an invite or a setting.
const MAX_REQUEST: usize = 64 * 1024;

/// What stands behind the door.
#[async_trait]
pub trait Resident: Send + Sync + 'static {
    /// Answers one request of a screen, the tray or the command line.
    async fn answer(&self, request: Request) -> Response;

    /// Everything that changes from now on.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// The door before it is opened.
pub struct Door {
    /// What answers.
    pub resident: Arc<dyn Resident>,
    /// The bearer token of the control file.
    pub token: String,
    /// Codes that a browser may trade for the token.
    pub codes: Arc<LoginCodes>,
    /// Further paths, with their own keys: `/v1/*`.
    pub own: Router,
}

/// What the control routes share.
#[derive(Clone)]
struct Shared {
    resident: Arc<dyn Resident>,
    token: Arc<str>,
    codes: Arc<LoginCodes>,
}

/// Binds the loopback address of the door.
///
/// # Errors
/// When it is not loopback, or taken.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ControlError> {
    if !address.ip().is_loopback() {
        return Err(ControlError::new(
            Code::PortTaken,
            format!("{address} is not a loopback address."),
            "The control panel can pause, join and read everything; it is for this machine only.",
            "Use 127.0.0.1 or [::1].",
        ));
    }
    TcpListener::bind(address).await.map_err(|error| {
        let why = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there".to_owned(),
            _ => error.to_string(),
        };
        ControlError::new(
            Code::PortTaken,
            format!("Cannot listen on {address}: {why}."),
            "The control panel and your own endpoint live there.",
            "Choose another with `--listen 127.0.0.1:PORT` or `idlewatt config set control.listen`; port 0 takes any \
             free one.",
        )
    })
}

/// Serves until `stop`; open event streams end with it.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, door: Door, stop: CancellationToken) -> io::Result<()> {
    let address = listener.local_addr()?;
    let app = router(door, address, stop.clone());
    axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(door: Door, address: SocketAddr, stop: CancellationToken) -> Router {
    let shared = Shared { resident: door.resident, token: door.token.into(), codes: Arc::clone(&door.codes) };
    let behind_bearer = Router::new()
        .route("/api/control", post(control))
        .route("/api/events", get(move |state| events::stream(state, stop.clone())))
        .layer(middleware::from_fn_with_state(shared.clone(), gate::bearer));
    let api = behind_bearer
        .route("/api/login", post(login::login))
        .layer(DefaultBodyLimit::max(MAX_REQUEST))
        .route("/metrics", get(metrics::metrics))
        .with_state(shared);
    Router::new()
        .merge(api)
        .merge(door.own)
        .fallback(pages::page)
        .layer(middleware::from_fn_with_state(gate::Names::of(address), gate::gate))
}

async fn control(State(shared): State<Shared>, body: Bytes) -> HttpResponse {
    match serde_json::from_slice::<Request>(&body) {
        Ok(request) => Json(shared.resident.answer(request).await).into_response(),
        Err(error) => refusal(
            StatusCode::BAD_REQUEST,
            Code::BadRequest,
            format!("The request is not one of this interface: {error}."),
            "Nothing was done.",
            "Compare the versions of both sides.",
        ),
    }
}

/// An answer of the door itself, in the same form as every other.
fn refusal(
    status: StatusCode,
    code: Code,
    what: impl Into<String>,
    why: impl Into<String>,
    action: impl Into<String>,
) -> HttpResponse {
    (status, Json(Response::Error(ControlError::new(code, what, why, action)))).into_response()
}
