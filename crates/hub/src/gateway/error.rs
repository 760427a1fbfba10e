//! Errors as HTTP answers and as chunks of a stream.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use idlewatt_hub_core::openai::ApiError;
use idlewatt_protocol::sse;

/// An error before the head of an answer.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let mut response = (status, json, self.0.to_json()).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::TOO_MANY_REQUESTS && self.0.retry_after.is_none() {
            // Clients try a 429 again by themselves; this one never fits.
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
        }
        if let Some(after) = self.0.retry_after {
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
            headers.insert(HeaderName::from_static("retry-after-ms"), HeaderValue::from(millis));
        }
        response
    }
}

/// As a chunk of a stream whose head is out: clients raise on a top-level `error`, and only then on a missing `[DONE]`.
pub(crate) fn event(error: &ApiError) -> Bytes {
    sse::event(error.to_json().as_bytes())
}
