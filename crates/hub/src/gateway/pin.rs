//! Puts the hub's own `id`, `created` and `model` into one JSON object of an answer, takes out what is between node and hub,
//! and copies the rest as it is.
//!
//! Works on the bytes of the object's top level; nothing below it is read or written anew.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use idlewatt_protocol::continuation::IDS_MEMBER;

/// The values that the hub pins, each as JSON text.
#[derive(Debug)]
pub(crate) struct Pins {
    /// Absent for embeddings, which have none.
    pub(crate) id: Option<String>,
    pub(crate) created: Option<String>,
    pub(crate) model: String,
}

impl Pins {
    /// Writes `json` with these values to `out`, those that it lacks last, without the ids of its text. `usage` becomes
    /// `null` where it is not wanted. `None` when `json` is no object; what was written by then is of no use.
    pub(crate) fn write(&self, json: &[u8], keep_usage: bool, out: &mut BytesMut) -> Option<()> {
        let named =
            [("id", self.id.as_deref()), ("created", self.created.as_deref()), ("model", Some(&*self.model))];
        let mut has = [false; 3];
        let mut members = Members::of(json)?;
        let mut is_empty = true;
        let mut at = 0;
        // End of the last member that went on; and whether what comes before the next one is skipped.
        let mut kept = None;
        let mut is_skipping = false;
        out.reserve(json.len() + 128);
        for member in &mut members {
            let key = &json[member.key.clone()];
            if key == IDS_MEMBER.as_bytes() {
                // With the comma before it, or where it comes first, the one after it.
                if !is_skipping {
                    let before = kept.unwrap_or(member.key.start - 1);
                    out.put_slice(json.get(at..before).unwrap_or_default());
                }
                at = member.value.end;
                is_skipping = kept.is_none();
                continue;
            }
            if std::mem::take(&mut is_skipping) {
                at = member.key.start - 1;
            }
            is_empty = false;
            kept = Some(member.value.end);
            let value = match named.iter().position(|(name, _)| name.as_bytes() == key) {
                Some(i) => {
                    has[i] = true;
                    named[i].1
                }
                None => (key == b"usage" && !keep_usage).then_some("null"),
            };
            if let Some(value) = value {
                out.put_slice(&json[at..member.value.start]);
                out.put_slice(value.as_bytes());
                at = member.value.end;
            }
        }
        let end = members.end?;
        out.put_slice(if is_skipping { &[] } else { &json[at..end] });
        for ((name, value), has) in named.into_iter().zip(has) {
            let Some(value) = value.filter(|_| !has) else { continue };
            let comma = if is_empty { "" } else { "," };
            is_empty = false;
            for part in [comma, "\"", name, "\":", value] {
                out.put_slice(part.as_bytes());
            }
        }
        out.put_slice(&json[end..]);
        Some(())
    }
}

/// Whether the object has this member.
pub(crate) fn has_member(json: &[u8], key: &str) -> bool {
    Members::of(json).is_some_and(|mut members| members.any(|member| &json[member.key] == key.as_bytes()))
}

struct Member {
    key: Range<usize>,
    value: Range<usize>,
}

/// The members of a top-level object, in order. What it walks is valid JSON, which was read before.
struct Members<'a> {
    json: &'a [u8],
    at: usize,
    /// Where the closing brace is, once it was reached.
    end: Option<usize>,
}

impl<'a> Members<'a> {
    /// `None` when `json` is no object.
    fn of(json: &'a [u8]) -> Option<Self> {
        let open = skip_space(json, 0);
        (json.get(open)? == &b'{').then_some(Self { json, at: open + 1, end: None })
    }
}

impl Iterator for Members<'_> {
    type Item = Member;

    fn next(&mut self) -> Option<Member> {
        let json = self.json;
        let mut open = skip_space(json, self.at);
        if json.get(open)? == &b',' {
            open = skip_space(json, open + 1);
        }
        if json.get(open)? == &b'}' {
            self.end = Some(open);
            return None;
        }
        let close = skip_string(json, open)?;
        let colon = skip_space(json, close);
        (json.get(colon)? == &b':').then_some(())?;
        let start = skip_space(json, colon + 1);
        self.at = skip_value(json, start)?;
        Some(Member { key: open + 1..close - 1, value: start..self.at })
    }
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
        assert_eq!(pinned(r#" {"id":1} "#, true), r#" {"id":"chatcmpl-1","created":7,"model":"m:q4"} "#);
    }

    #[test]
    fn a_name_that_comes_twice_is_pinned_twice() {
        assert_eq!(
            pinned(r#"{"id":1,"created":2,"model":3,"id":4}"#, true),
            r#"{"id":"chatcmpl-1","created":7,"model":"m:q4","id":"chatcmpl-1"}"#
        );
    }

    #[test]
    fn usage_nobody_asked_for_becomes_null() {
        let json = r#"{"usage":{"prompt_tokens":[1,{}]},"x":true}"#;
        let value: Value = serde_json::from_str(&pinned(json, false)).unwrap();
        assert_eq!((&value["usage"], &value["x"]), (&Value::Null, &json!(true)));
        assert!(pinned(json, true).contains("prompt_tokens"));
    }

    #[test]
    fn ids_are_taken_out_wherever_they_stand() {
        let rest = r#""id":"chatcmpl-1","created":7,"model":"m:q4""#;
        for json in [
            r#"{"iw_ids":[1,2],"id":1,"created":2,"model":3}"#,
            r#"{"iw_ids":[], "id":1,"created":2,"model":3}"#,
            r#"{"id":1,"iw_ids":[1,2],"created":2,"model":3}"#,
            r#"{"id":1,"created":2,"model":3 , "iw_ids":[1]}"#,
            r#"{"iw_ids":[1],"iw_ids":[1],"id":1,"iw_ids":[3],"iw_ids":[4],"created":2,"model":3,"iw_ids":[2]}"#,
            r#"{"iw_ids":[1]}"#,
            r#"{ "iw_ids":[1] }"#,
        ] {
            assert_eq!(pinned(json, true).replace(' ', ""), format!("{{{rest}}}"), "{json}");
        }
        let below = r#"{"id":1,"created":2,"model":3,"x":{"iw_ids":[1]}}"#;
        assert!(pinned(below, true).contains("iw_ids"), "only the top level is between node and hub");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "1", "\"x\"", "", "null"] {
            assert!(pins().write(text.as_bytes(), true, &mut BytesMut::new()).is_none(), "{text}");
        }
        assert!(has_member(br#"{"a":{"b":1}}"#, "a") && !has_member(br#"{"a":{"b":1}}"#, "b"));
    }
}
