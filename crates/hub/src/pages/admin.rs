//! `GET /admin`: the operator's commands as a page. It is opened with a code that `idlewatt-hub admin link` prints, from
//! this machine or through the encrypted door of the networks that it is in, never through a proxy. Every act goes the way
//! of the command line's, into the audit log too.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use idlewatt_hub_core::ledger::{CSV_HEAD, Statement};
use serde::Deserialize;
use serde_json::{Value, json};

use super::chat::take;
use super::{escape, with_scripts};
use crate::admin::{Answer, Command, CommandError, perform};
use crate::doors::Peer;
use crate::gateway::{Refusal, bearer, refusal};
use crate::hub::Hub;
use crate::store::SESSION_LIFE;

const PAGE: &str = include_str!("admin.html");
/// How the audit log names who acted here.
const ACTOR: &str = "admin page";

/// Somebody on this machine, or behind the encrypted door.
pub(crate) struct Near;

impl FromRequestParts<Arc<Hub>> for Near {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Hub>) -> Result<Self, Refusal> {
        let forwarded =
            parts.headers.contains_key("x-forwarded-for") || parts.headers.contains_key("forwarded");
        let near = parts.extensions.get::<Peer>().is_some_and(|it| it.encrypted || it.address.is_loopback());
        if near && !forwarded {
            return Ok(Self);
        }
        Err(refusal(
            403,
            "not_near",
            "The admin page is for the hub's own machine, and for the networks that it is in through its encrypted door. Open \
             it there, with the address that `idlewatt-hub admin link` prints.",
        ))
    }
}

/// An operator: near, and with the secret of a session.
pub(crate) struct Operator(String);

impl FromRequestParts<Arc<Hub>> for Operator {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Refusal> {
        Near::from_request_parts(parts, hub).await?;
        let session = bearer(&parts.headers).filter(|session| hub.store.is_admin(session));
        session.map(|it| Self(it.to_owned())).ok_or_else(|| {
            refusal(
                401,
                "not_admin",
                "This page is open no more: it was closed, its twelve hours are over, or the hub was started anew. Ask for a new \
                 address with `idlewatt-hub admin link`.",
            )
        })
    }
}

pub(crate) async fn page(_: Near, State(hub): State<Arc<Hub>>) -> Response {
    with_scripts(PAGE.replace("{name}", &escape(&hub.name)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    code: String,
}

/// `POST /admin/open`: a code for a session.
pub(crate) async fn open(
    _: Near,
    State(hub): State<Arc<Hub>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let Open { code } = take(request).await?;
    let Some(session) = hub.store.open_admin(&code) else {
        return Err(refusal(
            403,
            "code_unknown",
            "This code opens nothing: each works once, for ten minutes, and not after the hub was started anew. Ask for a new one \
             with `idlewatt-hub admin link`.",
        ));
    };
    tracing::info!("the admin page was opened");
    Ok(Json(json!({ "session": session, "seconds": SESSION_LIFE.as_secs() })))
}

/// `POST /admin/close`: ends the session.
pub(crate) async fn close(operator: Operator, State(hub): State<Arc<Hub>>) -> Json<Value> {
    hub.store.close_admin(&operator.0);
    Json(json!({ "closed": true }))
}

/// `POST /admin/act`: one command, as at the command line.
pub(crate) async fn act(
    _: Operator,
    State(hub): State<Arc<Hub>>,
    request: Request,
) -> Result<Json<Answer>, Refusal> {
    let command: Command = take(request).await?;
    done(&hub, command).await.map(Json)
}

/// `POST /admin/statements`: a month's statements as CSV.
pub(crate) async fn statements(
    _: Operator,
    State(hub): State<Arc<Hub>>,
    request: Request,
) -> Result<Response, Refusal> {
    let command: Command = take(request).await?;
    let Answer::Statements(list) = done(&hub, command).await? else {
        return Err(refusal(400, "bad_body", "Only the command `statement` gives statements."));
    };
    let rows = list.iter().map(Statement::csv_row);
    let text: String =
        std::iter::once(CSV_HEAD.to_owned()).chain(rows).flat_map(|row| [row, "\n".into()]).collect();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/csv; charset=utf-8"));
    Ok((headers, text).into_response())
}

async fn done(hub: &Hub, command: Command) -> Result<Answer, Refusal> {
    if !command.is_for_pages() {
        return Err(refusal(
            403,
            "command_line_only",
            "This names files of the hub's machine, so it is done at its command line only.",
        ));
    }
    perform(&hub.store, ACTOR, command)
        .await
        .map_err(|error: CommandError| refusal(409, "not_done", &format!("Not done: {error}.")))
}
