use idlewatt_protocol::sse::Splitter;
use idlewatt_protocol::usage::Reading;
use proptest::prelude::*;

use super::*;

const ENGLISH: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/chat-english.sse");
const EMOJI: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/completions-emoji.sse");
const CHINESE: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/completions-chinese.sse");
const WHOLE: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/chat-whole.json");
const LOGPROBS: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/chat-logprobs.json");
const EMBEDDINGS: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/embeddings.json");
const TOO_LONG: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/error-context.json");
const MALFORMED: &[u8] = include_bytes!("../../../servers/tests/fixtures/llama.cpp/error-json.json");

const CHAT: Endpoint = Endpoint::ChatCompletions;
const TEXT: Endpoint = Endpoint::Completions;

fn rewriting(endpoint: Endpoint, status: u16, streaming: bool) -> Rewriting {
    let artefact = Artefact {
        model: "smollm2-135m-instruct".into(),
        quantisation: Some("q4_1".into()),
        digest: None,
        engine: "llama.cpp".into(),
        engine_build: None,
    };
    let names = PublicNames::new(RequestId([7; 16]), endpoint, &artefact);
    Rewriting::new(names, endpoint, Head { status, streaming }, 100)
}

fn run(mut rewriting: Rewriting, chunks: &[&[u8]]) -> (Vec<Piece>, Option<Ending>) {
    let mut pieces = Vec::new();
    for chunk in chunks {
        rewriting.push(chunk);
        pieces.extend(std::iter::from_fn(|| rewriting.next_piece()));
    }
    rewriting.close();
    pieces.extend(std::iter::from_fn(|| rewriting.next_piece()));
    (pieces, rewriting.ending())
}

fn stream(endpoint: Endpoint, bytes: &[u8]) -> (Vec<Piece>, Option<Ending>) {
    run(rewriting(endpoint, 200, true), &[bytes])
}

fn whole(endpoint: Endpoint, status: u16, bytes: &[u8]) -> (Vec<Piece>, Option<Ending>) {
    run(rewriting(endpoint, status, false), &[bytes])
}

fn text(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text.as_str()).collect()
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| piece.bytes.to_vec()).collect()
}

/// What any reader of a stream sees in it.
fn readings(sse: &[u8]) -> Vec<Reading> {
    let mut splitter = Splitter::default();
    splitter.push(sse).unwrap();
    std::iter::from_fn(|| splitter.next_event()).filter_map(|event| Reading::of(&event.data?)).collect()
}

#[test]
fn recorded_streams_keep_every_byte_of_content_and_end_complete() {
    for (endpoint, recorded) in [(CHAT, ENGLISH), (TEXT, EMOJI), (TEXT, CHINESE)] {
        let (pieces, ending) = stream(endpoint, recorded);
        assert_eq!(ending, Some(Ending::Complete));
        let served: String = readings(recorded).iter().map(|reading| reading.text.as_str()).collect();
        assert!(served.len() > 20);
        assert_eq!(text(&pieces), served);
        let read: String = readings(&bytes(&pieces)).iter().map(|reading| reading.text.as_str()).collect();
        assert_eq!(read, served, "the hub reads the same text in the rewritten bytes");
    }
}

#[test]
fn nothing_of_the_host_or_the_server_leaves() {
    for (endpoint, recorded) in [(CHAT, ENGLISH), (TEXT, CHINESE)] {
        assert_clean(&bytes(&stream(endpoint, recorded).0));
    }
    for (endpoint, status, recorded) in [
        (CHAT, 200, WHOLE),
        (CHAT, 200, LOGPROBS),
        (Endpoint::Embeddings, 200, EMBEDDINGS),
        (CHAT, 400, TOO_LONG),
        (CHAT, 500, br#"{"error":{"message":"cannot open /srv/models/x.gguf"}}"#),
    ] {
        let (pieces, ending) = whole(endpoint, status, recorded);
        assert_eq!((pieces.len(), ending), (1, Some(Ending::Complete)));
        assert_clean(&pieces[0].bytes);
    }
    let extras = br#"data: {"choices":[{"index":0,"delta":{"content":"a","secret_x":"/srv"},"__verbose":{"p":"/srv"}}],"__verbose":{"prompt":"/srv"},"prompt_progress":{"total":3},"model":"/srv"}

data: [DONE]

"#;
    let (pieces, _) = stream(CHAT, extras);
    assert_eq!(text(&pieces), "a");
    assert_clean(&bytes(&pieces));
}

fn assert_clean(bytes: &[u8]) {
    let said = std::str::from_utf8(bytes).unwrap();
    for secret in
        ["/srv", "gguf", "timings", "predicted", "b0-unknown", "__verbose", "progress", "secret_x", "2048"]
    {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[test]
fn every_piece_knows_the_servers_own_counts() {
    let (pieces, _) = stream(CHAT, ENGLISH);
    let last = pieces.last().unwrap().usage;
    let served = readings(ENGLISH).iter().filter_map(|reading| reading.usage).next_back().unwrap();
    assert_eq!((last.prompt, last.completion), (served.prompt_tokens, served.completion_tokens));
    assert_eq!(last.source, UsageSource::Server);
    assert_eq!(pieces[0].usage, Usage::NONE, "the opening delta carries nothing");
    let counts: Vec<u32> = pieces[1..5].iter().map(|piece| piece.usage.completion).collect();
    assert_eq!(counts, [1, 2, 3, 4]);
    assert!(pieces[1..].iter().all(|piece| piece.usage.prompt == served.prompt_tokens));
}

#[test]
fn a_server_that_does_not_count_is_counted_until_it_does() {
    let sse = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n: ping\n\ndata: {\"choices\":[{\"delta\":{\"reasoning\":\"b\",\"reasoning_content\":\"b\"}}]}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n";
    let (pieces, _) = stream(CHAT, sse);
    let usages: Vec<Usage> = pieces.iter().map(|piece| piece.usage).collect();
    let estimated = |completion| Usage { prompt: 25, completion, source: UsageSource::Estimated };
    let server = Usage { prompt: 9, completion: 5, source: UsageSource::Server };
    assert_eq!(usages, [estimated(1), estimated(2), server, server]);
    let readings = readings(&bytes(&pieces));
    assert!(readings[1].generated && readings[1].text.is_empty(), "reasoning has one name on the wire");
}

#[test]
fn a_stream_without_its_end_is_broken_and_keeps_what_came() {
    let cut = &ENGLISH[..ENGLISH.len() - 20];
    let (pieces, ending) = stream(CHAT, cut);
    assert!(matches!(ending, Some(Ending::Broken(_))));
    assert!(pieces.len() > 20);
    for bad in [
        "data: {\"error\":{\"message\":\"/srv\"}}\n\n",
        "data: not json\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":7}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"abort\"}]}\n\n",
    ] {
        let (pieces, ending) = stream(CHAT, bad.as_bytes());
        assert_eq!(pieces, [], "{bad}");
        assert!(matches!(ending, Some(Ending::Broken(_))), "{bad}");
    }
    assert!(matches!(whole(CHAT, 200, b"{}").1, Some(Ending::Broken(_))));
    assert!(matches!(whole(CHAT, 200, b"").1, Some(Ending::Broken(_))));
}

#[test]
fn a_whole_answer_has_openais_form() {
    let (pieces, _) = whole(CHAT, 200, WHOLE);
    let answer: serde_json::Value = serde_json::from_slice(&pieces[0].bytes).unwrap();
    let served: serde_json::Value = serde_json::from_slice(WHOLE).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "smollm2-135m-instruct");
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-0707"));
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], served["choices"][0]["message"]["content"]);
    assert_eq!(message.get("refusal"), Some(&serde_json::Value::Null));
    assert_eq!(answer["usage"]["total_tokens"], served["usage"]["total_tokens"]);
    assert_eq!(pieces[0].text, served["choices"][0]["message"]["content"].as_str().unwrap());
    let (pieces, _) = whole(Endpoint::Embeddings, 200, EMBEDDINGS);
    let answer: serde_json::Value = serde_json::from_slice(&pieces[0].bytes).unwrap();
    let served: serde_json::Value = serde_json::from_slice(EMBEDDINGS).unwrap();
    assert_eq!(answer["data"][1]["embedding"], served["data"][1]["embedding"]);
    assert_eq!(pieces[0].text.as_bytes(), &pieces[0].bytes[..], "an embedding is committed to as a whole");
    assert!(pieces[0].usage.prompt > 0 && pieces[0].usage.completion == 0);
}

#[test]
fn a_prompt_that_is_too_long_is_told_apart_in_every_servers_words() {
    let said = |status, body: &[u8]| {
        let (pieces, _) = whole(CHAT, status, body);
        let error: serde_json::Value = serde_json::from_slice(&pieces[0].bytes).unwrap();
        error["error"]["code"].as_str().map(str::to_owned)
    };
    let words: [(&str, u16, &[u8]); 8] = [
        ("llama.cpp", 400, TOO_LONG),
        ("LocalAI", 500, br#"{"error":{"code":500,"message":"rpc error: request (9412 tokens) exceeds the available context size (8192 tokens), try increasing it"}}"#),
        ("vLLM", 400, br#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5000.","type":"BadRequestError","param":null,"code":400}}"#),
        ("vLLM, older", 400, br#"{"object":"error","message":"The decoder prompt (length 5000) is longer than the maximum model length of 4096.","type":"BadRequestError"}"#),
        ("SGLang", 400, br#"{"object":"error","message":"The input (5000 tokens) is longer than the model's context length (4096 tokens).","type":"BadRequest","param":null,"code":400}"#),
        ("LM Studio", 400, br#"{"error":"Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}"#),
        ("text-generation-webui", 400, br#"{"error":{"message":"This model maximum context length is 4096 tokens. However, your messages resulted in over 5000 tokens.","code":400,"param":"messages"}}"#),
        ("OpenAI", 400, br#"{"error":{"message":"Too much.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#),
    ];
    for (server, status, body) in words {
        assert_eq!(said(status, body).as_deref(), Some("context_length_exceeded"), "{server}");
    }
    let others: [&[u8]; 4] =
        [MALFORMED, b"<html>context length</html>", br#"{"detail":"context size"}"#, b"null"];
    for body in others {
        assert_eq!(said(400, body), None);
    }
}

#[test]
fn an_error_keeps_its_meaning_and_loses_its_words() {
    let code = |status, body| {
        let (pieces, _) = whole(CHAT, status, body);
        assert_eq!(pieces[0].usage, Usage::NONE);
        let error: serde_json::Value = serde_json::from_slice(&pieces[0].bytes).unwrap();
        assert!(Reading::of(&pieces[0].bytes).unwrap().error);
        error["error"]["code"].as_str().map(str::to_owned)
    };
    assert_eq!(code(400, TOO_LONG).as_deref(), Some("context_length_exceeded"));
    assert_eq!(code(400, MALFORMED), None);
    assert_eq!(code(503, b"<html>").as_deref(), Some("busy"));
    assert_eq!(code(500, b""), None);
}

#[test]
fn escapes_in_content_are_copied_and_understood() {
    let sse = br#"data: {"choices":[{"delta":{"content":"a\n\"\u00e9\ud83c\udf89\\"}}]}

"#;
    let (pieces, _) = stream(CHAT, sse);
    assert_eq!(text(&pieces), "a\n\"é🎉\\");
    assert!(String::from_utf8(bytes(&pieces)).unwrap().contains(r#""a\n\"\u00e9\ud83c\udf89\\""#));
}

#[test]
fn an_answer_past_64_mib_is_broken() {
    let mut it = rewriting(CHAT, 200, false);
    let chunk = vec![b' '; 1024 * 1024];
    for _ in 0..65 {
        it.push(&chunk);
    }
    assert!(matches!(it.ending(), Some(Ending::Broken(_))));
}

proptest! {
    /// However the bytes are cut on their way, the pieces are the same.
    #[test]
    fn cutting_changes_no_piece(cuts in proptest::collection::vec(0usize..CHINESE.len(), 0..40)) {
        let mut cuts = cuts;
        cuts.extend([0, CHINESE.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &CHINESE[pair[0]..pair[1]]).collect();
        prop_assert_eq!(run(rewriting(TEXT, 200, true), &chunks), stream(TEXT, CHINESE));
    }

    /// Whatever a server sends, what leaves is whole events of OpenAI's form, and nothing panics.
    #[test]
    fn any_bytes_are_pieces_or_an_ending(noise in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..ENGLISH.len()) {
        let mut bytes_in = ENGLISH.to_vec();
        for (slot, byte) in bytes_in[at..].iter_mut().zip(noise) {
            *slot = byte;
        }
        let (pieces, ending) = stream(CHAT, &bytes_in);
        prop_assert!(ending.is_some());
        for piece in pieces {
            prop_assert!(piece.bytes.starts_with(b"data: ") && piece.bytes.ends_with(b"\n\n"));
        }
    }
}

/// llama.cpp names the role with the first token only; where that is no whole character, never.
#[test]
fn a_chat_names_its_role_once_whether_the_server_does_or_not() {
    let event = |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
    let openings = |rewriting: Rewriting, deltas: [&str; 2]| {
        let sse = deltas.map(event).concat();
        let (pieces, _) = run(rewriting, &[sse.as_bytes()]);
        assert_eq!(text(&pieces), "晨食");
        String::from_utf8(bytes(&pieces)).unwrap().matches("\"role\":\"assistant\"").count()
    };
    let bare = [r#"{"content":"晨"}"#, r#"{"content":"食"}"#];
    let named = [r#"{"role":"assistant","content":"晨"}"#, bare[1]];
    assert_eq!(openings(rewriting(CHAT, 200, true), bare), 1);
    assert_eq!(openings(rewriting(CHAT, 200, true), named), 1);
    assert_eq!(openings(rewriting(CHAT, 200, true).going_on(), bare), 0);
}
