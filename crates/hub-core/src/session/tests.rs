//! One test for each thing that a hostile node may try.

use super::*;
use idlewatt_protocol::limits::HEARTBEAT;
use idlewatt_protocol::message::{Deadlines, Endpoint};
use idlewatt_protocol::{Artefact, Capabilities, Nonce, Price, RequestId, Scope, UsageSource};

const BODY: &[u8] = b"{\"messages\":[]}";
const MOST: Most = Most { prompt: 527, completion: 10 };

fn request() -> Request {
    Request {
        stream: 0,
        request: RequestId([1; 16]),
        service: "s".into(),
        endpoint: Endpoint::ChatCompletions,
        body_bytes: 0,
        salt: Nonce([2; 32]),
        own: false,
        max_tokens: 10,
        price: Price::ZERO,
        deadlines: Deadlines { first_token_ms: 1, between_ms: 1 },
        ids: false,
        prefix: None,
    }
}

/// A session with one open stream, number 1, owned by 7.
fn session() -> Session<u8> {
    let mut session = Session::new(Instant::now());
    let (stream, _) = session.open(Instant::now(), 7, request(), MOST, &Bytes::from_static(BODY)).unwrap();
    assert_eq!(stream, 1);
    session
}

fn with_head() -> Session<u8> {
    let mut session = session();
    let head = session.text(r#"{"type":"head","stream":1,"status":200,"streaming":true}"#).unwrap();
    assert_eq!(head, Heard::Head { owner: &7, status: 200, streaming: true });
    session
}

fn data(stream: u32, offset: u64, payload: &[u8]) -> Bytes {
    Frame { kind: Kind::Data, last: false, stream, offset, payload: Bytes::copy_from_slice(payload) }.encode()
}

fn end(length: u64, prompt: u32, completion: u32) -> String {
    serde_json::to_string(&NodeMessage::End(End {
        stream: 1,
        outcome: Outcome::Complete,
        length,
        usage: Usage { prompt, completion, source: UsageSource::Server },
        message: None,
    }))
    .unwrap()
}

#[test]
fn regression_after_a_breach_everyone_who_waits_is_still_known() {
    for text in [end(9, 1, 1), end(0, 9999, 1), r#"{"type":"refused","stream":1,"code":"busy"}"#.into()] {
        let mut session = with_head();
        assert!(session.text(&text).is_err());
        assert_eq!(session.close().collect::<Vec<_>>(), [7], "{text}");
    }
}

fn cut_off<T: std::fmt::Debug>(result: Result<T, Breach>, because: &str) {
    let breach = result.unwrap_err();
    assert!(breach.0.contains(because), "{breach} does not say {because:?}");
    assert_eq!(breach.refuse().code, RefuseCode::Protocol);
}

#[test]
fn an_answer_goes_through_in_order() {
    let mut session = with_head();
    assert_eq!(session.binary(&data(1, 0, b"ab")), Ok(Some((&7, Bytes::from_static(b"ab")))));
    assert_eq!(session.binary(&data(1, 2, b"c")), Ok(Some((&7, Bytes::from_static(b"c")))));
    assert!(matches!(session.text(&end(3, 1, 1)), Ok(Heard::Ended { owner: 7, .. })));
    assert_eq!(session.running(), 0);
}

#[test]
fn a_long_body_is_cut_into_frames_with_exact_offsets() {
    let mut session = Session::new(Instant::now());
    let body = Bytes::from(vec![b'x'; MAX_FRAME_PAYLOAD * 2 + 5]);
    let (_, out) = session.open(Instant::now(), 0u8, request(), MOST, &body).unwrap();
    let frames: Vec<(u64, usize, bool)> = out
        .iter()
        .filter_map(|out| match out {
            Outgoing::Body(frame) => Some((frame.offset, frame.payload.len(), frame.last)),
            Outgoing::Control(_) => None,
        })
        .collect();
    assert_eq!(
        frames,
        [(0, MAX_FRAME_PAYLOAD, false), (65_536, MAX_FRAME_PAYLOAD, false), (131_072, 5, true)]
    );
}

#[test]
fn an_oversized_frame_is_a_breach() {
    cut_off(with_head().binary(&data(1, 0, &vec![0; MAX_FRAME_PAYLOAD + 1])), "65,536");
}

#[test]
fn a_gap_and_an_overlap_are_breaches() {
    cut_off(with_head().binary(&data(1, 5, b"x")), "offset 5, where 0 was next");
    let mut session = with_head();
    session.binary(&data(1, 0, b"abc")).unwrap();
    cut_off(session.binary(&data(1, 2, b"c")), "offset 2, where 3 was next");
}

#[test]
fn data_of_a_foreign_or_ended_stream_is_a_breach() {
    cut_off(with_head().binary(&data(2, 0, b"x")), "stream 2, which is not open");
    let mut session = with_head();
    session.text(&end(0, 1, 1)).unwrap();
    cut_off(session.binary(&data(1, 0, b"x")), "stream 1, which is not open");
}

#[test]
fn the_order_within_a_stream_is_kept() {
    cut_off(session().binary(&data(1, 0, b"x")), "before its head");
    cut_off(session().text(&end(0, 1, 1)), "without a head");
    let head = r#"{"type":"head","stream":1,"status":200,"streaming":true}"#;
    cut_off(with_head().text(head), "second head");
    cut_off(with_head().text(r#"{"type":"refused","stream":1,"code":"busy"}"#), "after its head");
    let mut session = with_head();
    let last = Frame { kind: Kind::Data, last: true, stream: 1, offset: 0, payload: Bytes::new() };
    session.binary(&last.encode()).unwrap();
    cut_off(session.binary(&data(1, 0, b"x")), "after its last frame");
}

#[test]
fn more_than_was_credited_is_a_breach() {
    let piece = vec![b'x'; MAX_FRAME_PAYLOAD];
    let mut session = with_head();
    for i in 0..4 {
        session.binary(&data(1, i * MAX_FRAME_PAYLOAD as u64, &piece)).unwrap();
    }
    cut_off(session.binary(&data(1, STREAM_WINDOW, b"x")), "with a credit of 262144");
}

#[test]
fn credit_follows_the_consumer_in_steps_and_never_falls() {
    let piece = vec![b'x'; MAX_FRAME_PAYLOAD];
    let mut session = with_head();
    session.binary(&data(1, 0, &piece)).unwrap();
    assert_eq!(session.consumed(1, 100), None);
    let credit = HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + MAX_FRAME_PAYLOAD as u64 };
    assert_eq!(session.consumed(1, MAX_FRAME_PAYLOAD as u64), Some(credit));
    assert_eq!(session.consumed(1, 0), None);
}

#[test]
fn an_answer_past_the_limit_is_a_breach() {
    let piece = vec![b'x'; MAX_FRAME_PAYLOAD];
    let mut session = with_head();
    let mut offset = 0;
    while offset < MAX_RESPONSE_BODY {
        session.binary(&data(1, offset, &piece)).unwrap();
        offset += piece.len() as u64;
        session.consumed(1, offset);
    }
    cut_off(session.binary(&data(1, offset, b"x")), "bytes an answer");
}

#[test]
fn empty_frames_and_bodies_from_a_node_are_breaches() {
    cut_off(with_head().binary(&data(1, 0, b"")), "empty frame");
    let body =
        Frame { kind: Kind::Body, last: false, stream: 1, offset: 0, payload: Bytes::from_static(b"x") };
    cut_off(with_head().binary(&body.encode()), "no request bodies");
    cut_off(with_head().binary(&Bytes::from_static(b"short")), "shorter than");
}

#[test]
fn inflated_counts_are_breaches() {
    assert!(with_head().text(&end(0, 527, 10)).is_ok());
    cut_off(with_head().text(&end(0, 528, 10)), "prompt tokens claimed, this request can have 527");
    cut_off(with_head().text(&end(0, 1, 11)), "completion tokens claimed, 10 were allowed");
}

#[test]
fn an_end_at_another_length_is_a_breach() {
    cut_off(with_head().text(&end(1, 1, 1)), "ended at 1 bytes after 0 were sent");
}

#[test]
fn a_cancelled_stream_ends_at_what_was_delivered_and_its_late_bytes_are_dropped() {
    let now = Instant::now();
    let mut session = with_head();
    session.binary(&data(1, 0, b"abc")).unwrap();
    let cancel = HubMessage::Cancel { stream: 1, delivered: 2, reason: CancelReason::Consumer };
    assert_eq!(session.cancel(now, 1, 2, CancelReason::Consumer), Some(cancel));
    assert_eq!(session.cancel(now, 1, 2, CancelReason::Consumer), None);
    assert_eq!(session.binary(&data(1, 3, b"late")), Ok(None));
    cut_off(session.text(&end(3, 1, 1)), "ended at 3 bytes after 7");
    let mut session = with_head();
    session.binary(&data(1, 0, b"abc")).unwrap();
    session.cancel(now, 1, 2, CancelReason::Consumer);
    assert!(matches!(session.text(&end(2, 1, 1)), Ok(Heard::Ended { .. })));
}

#[test]
fn a_cancelled_stream_that_never_ends_is_a_breach() {
    let start = Instant::now();
    let mut session = with_head();
    session.cancel(start, 1, 0, CancelReason::Consumer);
    assert!(session.tick(start + CANCEL_GRACE).is_ok());
    session.alive(start + CANCEL_GRACE);
    cut_off(session.tick(start + CANCEL_GRACE + HEARTBEAT), "was cancelled and not ended");
}

#[test]
fn a_node_that_hears_nothing_is_not_blamed_for_a_cancel() {
    let mut session = with_head();
    let start = Instant::now();
    session.cancel(start, 1, 0, CancelReason::Consumer);
    assert_eq!(session.tick(start + WATCH), Ok(Due::Ping));
    assert_eq!(session.tick(start + WATCH * 2), Ok(Due::Silent));
    let late = start + CANCEL_GRACE + WATCH;
    assert_eq!(session.tick(late), Ok(Due::Ping));
    assert!(session.alive(late + WATCH));
    assert_eq!(session.tick(late + WATCH * 2), Ok(Due::Ping));
    assert!(!session.alive(late + WATCH * 3));
    cut_off(session.tick(late + CANCEL_GRACE + WATCH * 2), "was cancelled and not ended");
}

#[test]
fn a_node_is_watched_closely_only_while_someone_waits_for_it() {
    let start = Instant::now();
    let mut session = Session::new(start);
    assert_eq!(session.next_tick(), start + HEARTBEAT);
    session.open(start + WATCH, 7, request(), MOST, &Bytes::from_static(BODY));
    assert_eq!(session.next_tick(), start + WATCH * 2);
    assert_eq!(session.tick(start + WATCH * 2), Ok(Due::Ping));
    assert_eq!(session.tick(start + WATCH * 3), Ok(Due::Silent));
    assert_eq!(session.tick(start + WATCH * 4), Ok(Due::Ping), "said once");
    assert!(session.alive(start + WATCH * 4), "back");
    session.text(&end(0, 1, 1).replace("complete", "failed")).unwrap();
    assert_eq!(session.tick(start + WATCH * 5), Ok(Due::Ping));
    assert_eq!(session.next_tick(), start + WATCH * 5 + HEARTBEAT);
}

#[test]
fn a_node_is_dead_after_two_missed_heartbeats() {
    let start = Instant::now();
    let mut session: Session<u8> = Session::new(start);
    assert_eq!(session.tick(start), Ok(Due::Nothing));
    assert_eq!(session.tick(start + HEARTBEAT), Ok(Due::Ping));
    session.alive(start + HEARTBEAT);
    assert_eq!(session.tick(start + HEARTBEAT * 2), Ok(Due::Ping));
    assert_eq!(session.tick(start + HEARTBEAT * 3), Ok(Due::Ping));
    assert_eq!(session.tick(start + HEARTBEAT * 4), Ok(Due::Dead));
}

#[test]
fn offers_past_a_limit_are_breaches() {
    let service = |name: &str| ServiceOffer {
        service: name.into(),
        artefact: Artefact {
            model: "m".into(),
            quantisation: None,
            digest: None,
            engine: "e".into(),
            engine_build: None,
        },
        slots: 1,
        context: 1024,
        price: Price::ZERO,
        capabilities: Capabilities::default(),
        warm: true,
        load_ms: None,
        scope: Scope::Circle,
        region: None,
    };
    let say = |services: Vec<ServiceOffer>| serde_json::to_string(&NodeMessage::Offer { services }).unwrap();
    assert!(session().text(&say(vec![service("a"), service("b")])).is_ok());
    cut_off(session().text(&say(vec![service("a"), service("a")])), "share a name");
    cut_off(session().text(&say(vec![ServiceOffer { slots: 0, ..service("a") }])), "slots must be");
    let many = (0..=MAX_SERVICES).map(|i| service(&i.to_string())).collect();
    cut_off(session().text(&say(many)), "services offered");
}

#[test]
fn nonsense_is_a_breach() {
    cut_off(session().text("{"), "no message of this protocol");
    cut_off(session().text(r#"{"type":"surprise"}"#), "no message of this protocol");
    cut_off(session().text(r#"{"type":"head","stream":1,"status":42,"streaming":true}"#), "status 42");
    cut_off(session().text(&" ".repeat(MAX_CONTROL_BYTES + 1)), "over the limit");
    cut_off(session().text(r#"{"type":"head","stream":9,"status":200,"streaming":true}"#), "stream 9");
}

#[test]
fn a_closing_session_gives_back_everyone_who_waits() {
    let mut session = session();
    session.open(Instant::now(), 8, request(), MOST, &Bytes::new()).unwrap();
    let mut owners: Vec<u8> = session.close().collect();
    owners.sort_unstable();
    assert_eq!(owners, [7, 8]);
}
