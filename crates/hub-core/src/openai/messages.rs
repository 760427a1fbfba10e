//! The conversation of a chat request: text, and images that are in the request themselves.
//!
//! An image by address would make a stranger's model server fetch it, so only `data:` URIs pass.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::ApiError;

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    image_url: Option<Image<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
}

/// Checks every message's role and content.
pub(super) fn check(raw: &RawValue) -> Result<(), ApiError> {
    let messages: Vec<&RawValue> = serde_json::from_str(raw.get())
        .map_err(|_| ApiError::invalid("messages", "it must be a list of messages"))?;
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "it must hold at least one message"));
    }
    for (i, raw) in messages.iter().enumerate() {
        let at = format!("messages[{i}]");
        let message: Message<'_> = serde_json::from_str(raw.get())
            .map_err(|_| ApiError::invalid(&at, "it must be an object with `role` and `content`"))?;
        match message.role.as_deref() {
            Some("system" | "developer" | "user" | "assistant" | "tool") => {}
            _ => {
                let must = "it must be system, developer, user, assistant or tool";
                return Err(ApiError::invalid(&format!("{at}.role"), must));
            }
        }
        let content = message.content.map_or("null", RawValue::get);
        match content.as_bytes().first() {
            Some(b'"' | b'n') => {}
            Some(b'[') => check_parts(&at, content)?,
            _ => {
                return Err(ApiError::invalid(
                    &format!("{at}.content"),
                    "it must be a string or a list of parts",
                ));
            }
        }
    }
    Ok(())
}

/// Each message of a conversation that was checked, as it came.
pub(super) fn each(raw: &str, see: impl FnMut(&str)) {
    let messages: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
    messages.into_iter().map(RawValue::get).for_each(see);
}

fn check_parts(at: &str, content: &str) -> Result<(), ApiError> {
    let parts: Vec<&RawValue> = serde_json::from_str(content)
        .map_err(|_| ApiError::invalid(&format!("{at}.content"), "it must be a list of parts"))?;
    for (j, raw) in parts.iter().enumerate() {
        let at = format!("{at}.content[{j}]");
        let part: Part<'_> = serde_json::from_str(raw.get())
            .map_err(|_| ApiError::invalid(&at, "it must be a part with a `type`"))?;
        match (part.kind.as_deref(), part.image_url) {
            // Whatever its type says: a server may go by the field.
            (Some("text" | "refusal" | "image_url"), Some(image)) if image.url.starts_with("data:") => {}
            (Some("text" | "refusal"), None) => {}
            (Some(_), Some(_)) => {
                let must = "images must be data: URIs, because a node fetches nothing from an address. Put the image \
                            itself into the request";
                return Err(ApiError::invalid(&format!("{at}.image_url"), must));
            }
            _ => {
                return Err(ApiError::invalid(
                    &at,
                    "only parts of type text and image_url are understood here",
                ));
            }
        }
    }
    Ok(())
}
