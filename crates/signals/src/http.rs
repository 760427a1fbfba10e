//! One bounded question over HTTP, answered with JSON.

use std::time::Duration;

use reqwest::{StatusCode, redirect};
use serde_json::Value;
use url::Url;

use crate::PlugError;

/// The longest that one page of a plug is waited for.
pub const LIMIT: Duration = Duration::from_secs(3);

/// The longest answer that is read, bytes. The status of a plug with everything in it has 4 KiB.
pub(crate) const MOST: usize = 64 * 1024;

pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new() -> Result<Self, PlugError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            // A token is for the address that the host wrote down, and for no other.
            .redirect(redirect::Policy::none())
            .timeout(LIMIT)
            .build();
        client.map(Self).map_err(|error| PlugError::Unreachable(innermost(&error)))
    }

    pub(crate) async fn get(&self, url: Url, token: Option<&str>) -> Result<Value, PlugError> {
        let request = self.0.get(url);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        let mut answer = request.send().await.map_err(|error| broken(&error))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(PlugError::Password),
            status if status.is_redirection() => return Err(PlugError::Redirect),
            status => return Err(PlugError::Status(status.as_u16())),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| broken(&error))? {
            if body.len() + chunk.len() > MOST {
                return Err(PlugError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| {
            let page = body.trim_ascii_start().starts_with(b"<");
            if page { PlugError::WebPage } else { PlugError::NotJson }
        })
    }
}

fn broken(error: &reqwest::Error) -> PlugError {
    if error.is_timeout() { PlugError::Slow } else { PlugError::Unreachable(innermost(error)) }
}

/// The error at the bottom: those above it repeat the address.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
