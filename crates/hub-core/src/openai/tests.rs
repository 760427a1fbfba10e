use std::time::Duration;

use super::*;
use proptest::prelude::*;

const CHAT: Endpoint = Endpoint::ChatCompletions;

fn chat(fields: &str) -> Result<Validated, ApiError> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
    validate(CHAT, body.as_bytes())
}

fn refused(fields: &str) -> (u16, String) {
    let error = chat(fields).unwrap_err();
    (error.status, error.param.unwrap_or_default())
}

fn content(part: &str) -> Result<Validated, ApiError> {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{part}]}}]}}"#);
    validate(CHAT, body.as_bytes())
}

#[test]
fn forwarded_fields_keep_their_bytes_and_the_limit_is_explicit() {
    let it = chat(r#","temperature":0.0,"seed":7,"user":"me","stop":["\u00e9"]"#).unwrap();
    let forwarded = String::from_utf8(it.forward_body(12)).unwrap();
    assert_eq!(
        forwarded,
        r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0.0,"seed":7,"stop":["\u00e9"],"max_tokens":12}"#
    );
    assert_eq!(it.ignored, ["user"]);
}

#[test]
fn a_stream_always_asks_for_usage_and_remembers_who_wanted_it() {
    let silent = chat(r#","stream":true"#).unwrap();
    assert!(silent.stream && !silent.include_usage && silent.needs.streaming);
    let body = String::from_utf8(silent.forward_body(1)).unwrap();
    assert!(body.ends_with(r#","stream_options":{"include_usage":true}}"#), "{body}");
    assert!(chat(r#","stream":true,"stream_options":{"include_usage":true}"#).unwrap().include_usage);
    assert_eq!(refused(r#","stream_options":{"include_usage":true}"#), (400, "stream_options".into()));
    assert_eq!(refused(r#","stream":"yes""#), (400, "stream".into()));
}

#[test]
fn a_rejected_field_is_named() {
    for (field, name) in [
        (r#","n":2"#, "n"),
        (r#","audio":{}"#, "audio"),
        (r#","functions":[]"#, "functions"),
        (r#","slot_id":1"#, "slot_id"),
        (r#","cache_prompt":true"#, "cache_prompt"),
        (r#","temperature":"hot""#, "temperature"),
        (r#","temperature":3"#, "temperature"),
        (r#","max_tokens":0"#, "max_tokens"),
        (r#","max_tokens":1.5"#, "max_tokens"),
        (r#","max_completion_tokens":-1"#, "max_completion_tokens"),
        (r#","response_format":{"type":"xml"}"#, "response_format"),
        (r#","logit_bias":[]"#, "logit_bias"),
    ] {
        assert_eq!(refused(field), (400, name.into()), "{field}");
    }
    assert!(chat(r#","n":1,"audio":null,"functions":null,"max_tokens":null"#).is_ok());
}

#[test]
fn the_smaller_of_two_limits_counts() {
    let it = chat(r#","max_tokens":9,"max_completion_tokens":3"#).unwrap();
    assert_eq!(it.max_tokens_asked, Some(3));
    let it = chat(r#","max_tokens":3,"max_completion_tokens":9"#).unwrap();
    assert_eq!(it.max_tokens_asked, Some(3));
    assert_eq!(chat("").unwrap().max_tokens_asked, None);
}

#[test]
fn what_is_needed_is_read_from_the_fields() {
    let plain = chat(r#","logprobs":false,"tools":[],"response_format":{"type":"text"}"#).unwrap().needs;
    assert_eq!(plain, Capabilities { chat: true, ..Capabilities::default() });
    assert!(chat(r#","logprobs":true,"top_logprobs":2"#).unwrap().needs.logprobs);
    assert!(chat(r#","tools":[{"type":"function"}]"#).unwrap().needs.tools);
    assert!(chat(r#","response_format":{"type":"json_schema","json_schema":{}}"#).unwrap().needs.json_schema);
}

#[test]
fn only_a_stream_of_plain_text_may_be_continued() {
    let continues = |fields: &str| chat(&format!(r#","stream":true{fields}"#)).unwrap().continues;
    for plain in
        ["", r#","temperature":1.5,"seed":3,"stop":"x""#, r#","presence_penalty":0,"frequency_penalty":0.0"#]
    {
        assert!(continues(plain), "{plain}");
    }
    for other in [
        r#","logprobs":true"#,
        r#","tools":[{"type":"function"}]"#,
        r#","response_format":{"type":"json_object"}"#,
        r#","presence_penalty":0.1"#,
        r#","frequency_penalty":-1"#,
    ] {
        assert!(!continues(other), "{other}");
    }
    assert!(!chat("").unwrap().continues, "a whole answer is asked for anew");
}

#[test]
fn stop_strings_are_read_in_both_forms() {
    assert_eq!(chat(r#","stop":"END""#).unwrap().stops, ["END"]);
    assert_eq!(chat(r#","stop":["a","","\n\n"]"#).unwrap().stops, ["a", "\n\n"]);
}

#[test]
fn nothing_makes_a_node_fetch_an_address() {
    for url in ["http://10.0.0.1/x", "https://example.org/x.png", "file:///etc/passwd", "DATA:x", "//x"] {
        let part = format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
        let error = content(&part).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some("messages[0].content[0].image_url")));
    }
    assert!(content(r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}"#).is_ok());
    assert!(content(r#"{"type":"text","text":"x"},{"type":"input_audio"}"#).is_err());
    assert!(content(r#"{"type":"text","text":"x","image_url":{"url":"http://x"}}"#).is_err());
    assert!(content(r#"{"type":"image_url","image_url":{"url":"data:x","url":"http://x"}}"#).is_err());
    // The escape is undone before it is judged.
    assert!(content(r#"{"type":"image_url","image_url":{"url":"\u0068ttp://x"}}"#).is_err());
}

#[test]
fn malformed_json_is_placed_and_never_repeated() {
    let error = validate(CHAT, b"{\"model\":\"m\",\n  \"messages\" [secret]}").unwrap_err();
    assert_eq!(error.status, 400);
    assert_eq!(error.message, "The body is not JSON: it breaks at line 2, column 14.");
    let error = validate(CHAT, b"\"secret prompt\"").unwrap_err();
    assert_eq!(error.message, "The body must be one JSON object.");
    assert!(
        validate(CHAT, b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}").is_err()
    );
}

#[test]
fn a_body_over_4_mib_is_refused_before_it_is_read() {
    let error = validate(CHAT, &vec![b' '; MAX_REQUEST_BODY + 1]).unwrap_err();
    assert_eq!((error.status, error.code), (413, "request_too_large"));
}

#[test]
fn what_is_missing_is_named() {
    for (body, name) in
        [("{}", "model"), (r#"{"model":"m"}"#, "messages"), (r#"{"model":"","messages":[]}"#, "model")]
    {
        assert_eq!(validate(CHAT, body.as_bytes()).unwrap_err().param.as_deref(), Some(name), "{body}");
    }
    for bad in ["[]", "{}", "[7]", r#"[{"content":"x"}]"#, r#"[{"role":"user","content":7}]"#] {
        let body = format!(r#"{{"model":"m","messages":{bad}}}"#);
        assert_eq!(validate(CHAT, body.as_bytes()).unwrap_err().status, 400, "{bad}");
    }
}

#[test]
fn completions_take_one_prompt_and_embeddings_take_many() {
    let prompt = |prompt: &str| {
        let body = format!(r#"{{"model":"m","prompt":{prompt}}}"#);
        validate(Endpoint::Completions, body.as_bytes()).is_ok()
    };
    assert!(prompt("\"a\"") && prompt("[\"a\"]") && prompt("[1,2]"));
    assert!(!prompt("[\"a\",\"b\"]") && !prompt("[]") && !prompt("{}"));
    let it = validate(Endpoint::Embeddings, br#"{"model":"m","input":["a","b"],"user":"u"}"#).unwrap();
    assert!(it.needs.embeddings);
    assert_eq!(it.forward_body(0), br#"{"model":"m","input":["a","b"]}"#);
    assert!(validate(Endpoint::Embeddings, br#"{"model":"m","input":"a","max_tokens":3}"#).is_err());
}

#[test]
fn errors_have_openais_form() {
    let near = ["smollm2-135m-instruct".to_owned()];
    let json: serde_json::Value =
        serde_json::from_str(&ApiError::model_not_found("smolm2", &near).to_json()).unwrap();
    assert_eq!(json["error"]["code"], "model_not_found");
    assert_eq!(json["error"]["type"], "invalid_request_error");
    assert_eq!(json["error"]["param"], "model");
    let all = [
        ApiError::invalid_api_key(),
        ApiError::insufficient_quota(MicroCredits(2_500_000), MicroCredits(1), true),
        ApiError::model_not_found("smolm2", &near),
        ApiError::model_not_found("x", &[]),
        ApiError::too_large(),
        ApiError::busy(Duration::from_secs(2)),
        ApiError::unsupported("tools"),
        chat(r#","audio":{}"#).unwrap_err(),
        chat(r#","slot_id":1"#).unwrap_err(),
        chat(r#","temperature":3"#).unwrap_err(),
    ];
    let words: Vec<String> =
        all.iter().map(|error| format!("{} {}: {}", error.status, error.code, error.message)).collect();
    insta::assert_snapshot!(words.join("\n"));
}

#[test]
fn without_a_limit_one_gets_what_is_left_and_can_be_paid() {
    let it = chat("").unwrap();
    let rich = MicroCredits(1_000_000_000);
    assert_eq!(it.most(100_000, Price(1_000_000), rich).unwrap().completion, DEFAULT_MAX_TOKENS);
    assert_eq!(it.most(1000, Price::ZERO, MicroCredits::ZERO).unwrap().prompt, it.prompt_bound);
    assert!(it.most(1000, Price::ZERO, MicroCredits::ZERO).unwrap().completion < 1000);
    let poor = MicroCredits(i64::from(it.prompt_bound) + 10);
    assert_eq!(it.most(100_000, Price(1_000_000), poor).unwrap().completion, 10);
    let error = it.most(100_000, Price(1_000_000), MicroCredits(5)).unwrap_err();
    assert_eq!((error.status, error.code), (402, "insufficient_quota"));
    let asked = chat(r#","max_tokens":11"#).unwrap();
    assert_eq!(asked.most(100_000, Price(1_000_000), poor).unwrap_err().status, 402);
}

proptest! {
    /// Whatever is admitted can be paid, and is within the context.
    #[test]
    fn what_is_admitted_can_be_paid(
        context in 1u32..100_000, price in 0i64..10_000_000_000, available in 0i64..1_000_000_000_000,
        asked in prop::option::of(1u32..200_000), padding in 0usize..5000,
    ) {
        let limit = asked.map(|asked| format!(r#","max_tokens":{asked}"#)).unwrap_or_default();
        let it = chat(&format!("{limit}{}", " ".repeat(padding))).unwrap();
        if let Ok(most) = it.most(context, Price(price), MicroCredits(available)) {
            let worst = Price(price).cost(u64::from(most.prompt) + u64::from(most.completion));
            prop_assert!(worst <= MicroCredits(available));
            prop_assert!(most.prompt <= context && (1..=context).contains(&most.completion));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>) {
        let _ = validate(CHAT, &body);
    }

    /// What goes on is itself a request that would be taken.
    #[test]
    fn what_goes_on_is_valid(content: String, temperature in 0.0f64..2.0, stream: bool) {
        let body = serde_json::json!({
            "model": "m", "messages": [{"role": "user", "content": content}], "temperature": temperature, "stream": stream,
        });
        let it = validate(CHAT, body.to_string().as_bytes()).unwrap();
        let again = validate(CHAT, &it.forward_body(5)).unwrap();
        prop_assert_eq!(again.max_tokens_asked, Some(5));
        prop_assert_eq!(again.forwarded, it.forwarded);
    }
}
