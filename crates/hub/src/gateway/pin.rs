//! Puts the hub's own `id`, `created` and `model` into one JSON object of an answer, and copies the rest as it is.
//!
//! Works on the bytes of the object's top level; nothing below it is read or written anew.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

/// The values that the hub pins, each as JSON text.
#[derive(Debug)]
pub(crate) struct Pins {
    /// Absent for embeddings, which have none.
    pub(crate) id: Option<String>,
    pub(crate) created: Option<String>,
    pub(crate) model: String,
}

impl Pins {
    fn of(&self, key: &[u8]) -> Option<&str> {
        match key {
            b"id" => self.id.as_deref(),
            b"created" => self.created.as_deref(),
            b"model" => Some(&self.model),
            _ => None,
        }
    }

    /// Writes `json` with these values to `out`, those that it lacks first. `usage` becomes `null` where it is not
    /// wanted. `None`, with nothing written, when `json` is no object.
    pub(crate) fn write(&self, json: &[u8], keep_usage: bool, out: &mut BytesMut) -> Option<()> {
        let members = members(json)?;
        let open = json.iter().position(|b| *b == b'{')? + 1;
        out.reserve(json.len() + 128);
        out.put_u8(b'{');
        let named = [("id", &self.id), ("created", &self.created), ("model", &Some(self.model.clone()))];
        let mut is_first = true;
        for (key, value) in named {
            let Some(value) = value else { continue };
            if !members.iter().any(|member| &json[member.key.clone()] == key.as_bytes()) {
                if !is_first {
                    out.put_u8(b',');
                }
                is_first = false;
                out.put_u8(b'"');
                out.put_slice(key.as_bytes());
                out.put_slice(b"\":");
                out.put_slice(value.as_bytes());
            }
        }
        if !is_first && !members.is_empty() {
            out.put_u8(b',');
        }
        let mut at = open;
        for member in &members {
            let key = &json[member.key.clone()];
            let value = if key == b"usage" && !keep_usage { Some("null") } else { self.of(key) };
            if let Some(value) = value {
                out.put_slice(&json[at..member.value.start]);
                out.put_slice(value.as_bytes());
                at = member.value.end;
            }
        }
        out.put_slice(&json[at..]);
        Some(())
    }
}

/// Whether the object has this member.
pub(crate) fn has_member(json: &[u8], key: &str) -> bool {
    members(json)
        .is_some_and(|members| members.iter().any(|member| &json[member.key.clone()] == key.as_bytes()))
}

struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

/// The members of the top-level object. `json` is valid JSON (it was read before); `None` when it is no object.
fn members(json: &[u8]) -> Option<Vec<Member>> {
    let mut at = skip_space(json, 0);
    if json.get(at) != Some(&b'{') {
        return None;
    }
    let mut members = Vec::with_capacity(8);
    at = skip_space(json, at + 1);
    while json.get(at)? != &b'}' {
        let key_end = skip_string(json, at)?;
        let key = at + 1..key_end - 1;
        at = skip_space(json, key_end);
        (json.get(at)? == &b':').then_some(())?;
        let start = skip_space(json, at + 1);
        let end = skip_value(json, start)?;
        members.push(Member { key, value: start..end });
        at = skip_space(json, end);
        if json.get(at)? == &b',' {
            at = skip_space(json, at + 1);
        }
    }
    Some(members)
}

fn skip_space(json: &[u8], from: usize) -> usize {
    let rest = json.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// Position past the string that begins at `from`.
fn skip_string(json: &[u8], from: usize) -> Option<usize> {
    (json.get(from)? == &b'"').then_some(())?;
    let mut at = from + 1;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn skip_value(json: &[u8], from: usize) -> Option<usize> {
    match json.get(from)? {
        b'"' => skip_string(json, from),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = from;
            loop {
                match json.get(at)? {
                    b'"' => {
                        at = skip_string(json, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let rest = json.get(from..)?;
            let len = rest.iter().position(|b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace());
            Some(from + len.unwrap_or(rest.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pins() -> Pins {
        Pins { id: Some(r#""chatcmpl-1""#.into()), created: Some("7".into()), model: r#""m:q4""#.into() }
    }

    fn pinned(json: &str, keep_usage: bool) -> String {
        let mut out = BytesMut::new();
        pins().write(json.as_bytes(), keep_usage, &mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn only_the_pinned_values_change() {
        let json = r#"{"choices":[{"delta":{"content":"\"}{","id":"x"}}], "id" : "abc","created":1.5e3,"model":"/home/me/x.gguf","object":"c"}"#;
        let expected = r#"{"choices":[{"delta":{"content":"\"}{","id":"x"}}], "id" : "chatcmpl-1","created":7,"model":"m:q4","object":"c"}"#;
        assert_eq!(pinned(json, true), expected);
    }

    #[test]
    fn what_is_missing_is_added() {
        assert_eq!(pinned("{}", true), r#"{"id":"chatcmpl-1","created":7,"model":"m:q4"}"#);
        assert_eq!(pinned(r#" {"id":1}"#, true), r#"{"created":7,"model":"m:q4","id":"chatcmpl-1"}"#);
    }

    #[test]
    fn usage_nobody_asked_for_becomes_null() {
        let json = r#"{"usage":{"prompt_tokens":[1,{}]},"x":true}"#;
        let value: Value = serde_json::from_str(&pinned(json, false)).unwrap();
        assert_eq!((&value["usage"], &value["x"]), (&Value::Null, &json!(true)));
        assert!(pinned(json, true).contains("prompt_tokens"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "1", "\"x\"", "", "null"] {
            assert!(pins().write(text.as_bytes(), true, &mut BytesMut::new()).is_none(), "{text}");
        }
        assert!(has_member(br#"{"a":{"b":1}}"#, "a") && !has_member(br#"{"a":{"b":1}}"#, "b"));
    }
}
