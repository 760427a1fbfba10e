use idlewatt_protocol::handshake::{hello_is_signed, sign_welcome};
use idlewatt_protocol::limits::{CREDIT_TIMEOUT, MAX_FRAME_PAYLOAD, MAX_REQUEST_BODY, STREAM_WINDOW};
use idlewatt_protocol::message::{CancelReason, Deadlines, Endpoint, HubMessage, Request};
use idlewatt_protocol::receipt::{
    Energy, RECEIPT_TYPE, Receipt, Segment, Signed, Timings, commitment, sign_batch,
};
use idlewatt_protocol::{
    Artefact, Capabilities, Digest, Joined, MicroCredits, Price, Scope, UnixMillis, UsageSource,
};
use jiff::tz::TimeZone;

use super::*;

const SALT: Nonce = Nonce([5; 32]);

fn start() -> Now {
    Now { monotonic: Instant::now(), wall: "2026-11-21T10:00:00Z".parse().unwrap(), zone: TimeZone::UTC }
}

pub(super) struct Bench {
    pub(super) session: Session,
    hub: SigningKey,
    pub(super) now: Now,
}

fn artefact() -> Artefact {
    Artefact {
        model: "m".into(),
        quantisation: None,
        digest: None,
        engine: "llama.cpp".into(),
        engine_build: None,
    }
}

impl Bench {
    /// A session on a fresh connection, before its handshake.
    pub(super) fn fresh() -> Self {
        let hub = SigningKey::from_bytes(&[1; 32]);
        let now = start();
        let introduction = Introduction {
            key: Arc::new(SigningKey::from_bytes(&[2; 32])),
            hub_key: PublicKey::from(&hub),
            token: None,
            agent: "test/1".into(),
            name: None,
            posted_through: 7,
            nonce: Nonce([4; 32]),
            network: "circle".into(),
        };
        Self { session: Session::new(introduction, &now), hub, now }
    }

    /// A session that is in.
    pub(super) fn joined() -> Self {
        let mut bench = Self::fresh();
        let challenge = bench.challenge();
        bench.tell(&HubMessage::Challenge(challenge.clone()));
        let hello = bench.hello();
        assert!(hello_is_signed(&challenge, &hello));
        bench.tell(&HubMessage::Welcome(bench.welcome(&challenge, &hello)));
        assert!(matches!(bench.effects()[..], [Effect::Welcomed(_)]));
        bench
    }

    pub(super) fn challenge(&self) -> Challenge {
        Challenge { nonce: Nonce([3; 32]), versions: vec![1], hub_key: PublicKey::from(&self.hub) }
    }

    pub(super) fn hello(&mut self) -> Hello {
        match self.messages().pop() {
            Some(NodeMessage::Hello(hello)) => *hello,
            other => panic!("no hello but {other:?}"),
        }
    }

    pub(super) fn welcome(&self, challenge: &Challenge, hello: &Hello) -> Welcome {
        Welcome {
            epoch: 1,
            signature: sign_welcome(&self.hub, challenge, hello, 1),
            heartbeat_s: 20,
            account: "anna".into(),
            hub_name: "hub".into(),
            urls: vec![],
            resumed: vec![],
        }
    }

    pub(super) fn tell(&mut self, message: &HubMessage) {
        self.session.text(&serde_json::to_string(message).unwrap(), &self.now);
    }

    pub(super) fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.session.next_effect()).collect()
    }

    fn messages(&mut self) -> Vec<NodeMessage> {
        let texts = self.effects().into_iter().filter_map(|effect| match effect {
            Effect::Text(text) => Some(serde_json::from_str(&text).unwrap()),
            _ => None,
        });
        texts.collect()
    }

    fn frames(&mut self) -> Vec<Frame> {
        let frames = self.effects().into_iter().filter_map(|effect| match effect {
            Effect::Binary(bytes) => Some(Frame::decode(&bytes).unwrap()),
            _ => None,
        });
        frames.collect()
    }

    fn closed(&mut self) -> Option<Closed> {
        self.effects().into_iter().find_map(|effect| match effect {
            Effect::Close(why) => Some(why),
            _ => None,
        })
    }

    /// What the hub says of one of this node's requests, with its receipt.
    pub(super) fn posted(&self, seq: u64) -> Posted {
        let node = PublicKey::from(&SigningKey::from_bytes(&[2; 32]));
        let receipt = Receipt {
            id: RequestId([9; 16]),
            hub: PublicKey::from(&self.hub),
            consumer: "c".into(),
            model: "m".into(),
            endpoint: Endpoint::ChatCompletions,
            outcome: Outcome::Complete,
            salt_digest: Digest::of(&SALT.0),
            also_asked: Vec::new(),
            request_commitment: commitment(&SALT, b"in"),
            response_commitment: commitment(&SALT, b"out"),
            segments: vec![Segment {
                node,
                artefact: artefact(),
                joined: Joined::Single,
                usage: tokens(1),
                earned: MicroCredits(1),
                statement: Signed::Unsigned("node lost".into()),
            }],
            joined: Joined::Single,
            price: Price(1),
            cost: MicroCredits(1),
            fee: MicroCredits(0),
            verification: "declared".into(),
            started: UnixMillis(1),
            issued: UnixMillis(2),
            previous: None,
        };
        let payload = serde_json::to_vec(&receipt).unwrap();
        let envelope = sign_batch(&self.hub, RECEIPT_TYPE, &[payload]).remove(0);
        Posted::of(seq, &node, &receipt, envelope).unwrap()
    }

    pub(super) fn announce(&mut self, stream: u32, body_bytes: u64) {
        self.tell(&HubMessage::Request(Request {
            stream,
            request: RequestId([9; 16]),
            service: "m".into(),
            endpoint: Endpoint::ChatCompletions,
            body_bytes,
            salt: SALT,
            own: false,
            max_tokens: 64,
            price: Price(1),
            deadlines: Deadlines { first_token_ms: 1000, between_ms: 1000 },
            ids: false,
            prefix: None,
        }));
    }

    pub(super) fn body(&mut self, stream: u32, offset: u64, last: bool, payload: &'static [u8]) {
        let payload = Bytes::from_static(payload);
        let frame = Frame { kind: Kind::Body, last, stream, offset, payload };
        self.session.binary(&frame.encode(), &self.now);
    }

    /// A request whose answer has begun.
    pub(super) fn answering(stream: u32) -> Self {
        let mut bench = Self::joined();
        bench.announce(stream, 4);
        bench.body(stream, 0, true, b"{..}");
        assert!(matches!(bench.effects()[..], [Effect::Begin { through: STREAM_WINDOW, .. }]));
        bench.session.head(stream, Head { status: 200, streaming: true });
        assert!(matches!(bench.messages()[..], [NodeMessage::Head { status: 200, streaming: true, .. }]));
        bench
    }

    pub(super) fn piece(&mut self, stream: u32, length: usize, text: &str, completion: u32) {
        let bytes = Bytes::from(vec![b'x'; length]);
        self.session.piece(
            stream,
            Piece { bytes, text: text.into(), usage: tokens(completion), cached: 0 },
            self.now.monotonic,
        );
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now.later(time);
        self.session.time(&self.now);
    }
}

pub(super) fn tokens(completion: u32) -> Usage {
    Usage { prompt: 3, completion, source: UsageSource::Server }
}

pub(super) fn finished(outcome: Outcome, usage: Usage) -> Finished {
    Finished {
        outcome,
        artefact: artefact(),
        usage,
        started: UnixMillis(1),
        timings: Timings::default(),
        energy: Energy::default(),
        message: None,
    }
}

pub(super) fn end_and_statement(effects: Vec<Effect>) -> (End, Option<Statement>) {
    let mut end = None;
    let mut statement = None;
    for effect in effects {
        match effect {
            Effect::Text(text) => match serde_json::from_str(&text).unwrap() {
                NodeMessage::End(it) => end = Some(it),
                other => panic!("{other:?}"),
            },
            Effect::Sign(it) => statement = Some(*it),
            other => panic!("{other:?}"),
        }
    }
    (end.unwrap(), statement)
}

pub(super) fn finish_of(effects: &[Effect]) -> Option<(Option<Outcome>, Usage)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Finish { outcome, usage, .. } => Some((*outcome, *usage)),
        _ => None,
    })
}

#[test]
fn the_hello_names_the_last_posting_and_the_wrong_hub_gets_none() {
    let mut bench = Bench::fresh();
    let challenge = bench.challenge();
    bench.tell(&HubMessage::Challenge(challenge));
    assert_eq!(bench.hello().posted_through, 7);

    let mut bench = Bench::fresh();
    let other = Challenge { hub_key: PublicKey([8; 32]), ..bench.challenge() };
    bench.tell(&HubMessage::Challenge(other));
    assert_eq!(bench.closed(), Some(Closed::Distrusted(HubDistrusted::OtherKey)));
}

#[test]
fn a_recorded_handshake_played_again_is_not_believed() {
    let mut first = Bench::fresh();
    let challenge = first.challenge();
    first.tell(&HubMessage::Challenge(challenge.clone()));
    let recorded = first.welcome(&challenge, &first.session_hello());
    let mut second = Bench::fresh();
    second.session.intro.nonce = Nonce([44; 32]);
    second.tell(&HubMessage::Challenge(challenge));
    second.tell(&HubMessage::Welcome(recorded));
    assert_eq!(second.closed(), Some(Closed::Distrusted(HubDistrusted::BadSignature)));
}

impl Bench {
    pub(super) fn session_hello(&self) -> Hello {
        match &self.session.stage {
            Stage::Welcome { hello, .. } => (**hello).clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn offer_and_state_are_sent_when_they_change_and_not_otherwise() {
    let mut bench = Bench::joined();
    let service = ServiceOffer {
        service: "m".into(),
        artefact: finished(Outcome::Complete, Usage::NONE).artefact,
        slots: 1,
        context: 2048,
        price: Price(0),
        capabilities: Capabilities::default(),
        warm: true,
        load_ms: None,
        scope: Scope::Circle,
        region: None,
    };
    let too_many = ServiceOffer { slots: 0, ..service.clone() };
    let state = State { accepting: true, own: false, free_slots: 1, why: None, until: None };
    bench.session.offer(vec![service.clone(), too_many]);
    bench.session.state(state);
    let sent = bench.messages();
    assert_eq!(sent, [NodeMessage::Offer { services: vec![service.clone()] }, NodeMessage::State(state)]);
    bench.session.offer(vec![service]);
    bench.session.state(state);
    assert_eq!(bench.messages(), []);
    bench.session.state(State { accepting: false, ..state });
    assert_eq!(bench.messages().len(), 1);
}

#[test]
fn a_body_is_put_together_by_exact_offsets() {
    let mut bench = Bench::joined();
    bench.announce(1, 6);
    bench.body(1, 0, false, b"abc");
    bench.body(1, 0, false, b"abc");
    bench.body(1, 1, false, b"bcd");
    assert!(bench.effects().is_empty());
    bench.body(1, 4, true, b"ef");
    match &bench.effects()[..] {
        [Effect::Begin { ask, stream: 1, .. }] => {
            assert_eq!((&ask.body[..], ask.network.as_str()), (&b"abcdef"[..], "circle"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hub_that_breaks_a_limit_or_the_order_is_left() {
    type Deed = fn(&mut Bench);
    let deeds: [(&str, Deed); 13] = [
        ("a gap", |it| {
            it.announce(1, 6);
            it.body(1, 1, false, b"x");
        }),
        ("more than announced", |it| {
            it.announce(1, 2);
            it.body(1, 0, false, b"xyz");
        }),
        ("less than announced", |it| {
            it.announce(1, 9);
            it.body(1, 0, true, b"xyz");
        }),
        ("an unknown stream", |it| it.body(5, 0, true, b"x")),
        ("an open stream", |it| {
            it.announce(1, 2);
            it.announce(1, 2);
        }),
        ("a large body", |it| it.announce(1, MAX_REQUEST_BODY as u64 + 1)),
        ("an empty body", |it| it.announce(1, 0)),
        ("many bodies", |it| (0..20).for_each(|stream| it.announce(stream, MAX_REQUEST_BODY as u64))),
        ("many streams", |it| (0..1100).for_each(|stream| it.announce(stream, 1))),
        ("no message", |it| it.session.text("{}", &it.now.clone())),
        ("a long message", |it| it.session.text(&" ".repeat(MAX_CONTROL_BYTES + 1), &it.now.clone())),
        ("a second challenge", |it| it.tell(&HubMessage::Challenge(it.challenge()))),
        ("a node's frame", |it| {
            let frame = Frame { kind: Kind::Data, last: false, stream: 1, offset: 0, payload: Bytes::new() };
            it.session.binary(&frame.encode(), &it.now.clone());
        }),
    ];
    for (what, deed) in deeds {
        let mut bench = Bench::joined();
        deed(&mut bench);
        assert!(matches!(bench.closed(), Some(Closed::Breach(_))), "{what}");
        bench.announce(77, 1);
        assert!(bench.effects().is_empty(), "{what}: nothing follows the end");
    }
}

#[test]
fn an_answer_goes_out_in_order_and_ends_with_its_statement() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "He", 1);
    bench.piece(1, 70_000, "llo", 2);
    let frames = bench.frames();
    let spans: Vec<(u64, usize)> = frames.iter().map(|frame| (frame.offset, frame.payload.len())).collect();
    assert_eq!(spans, [(0, 10), (10, MAX_FRAME_PAYLOAD), (10 + 65_536, 70_000 - 65_536)]);
    bench.session.ended(1, bench.now.monotonic);
    assert_eq!(finish_of(&bench.effects()), Some((None, tokens(2))));
    bench.session.finished(1, finished(Outcome::Complete, tokens(2)), bench.now.monotonic);
    let (end, statement) = end_and_statement(bench.effects());
    let statement = statement.unwrap();
    assert_eq!((end.outcome, end.length, end.usage), (Outcome::Complete, 70_010, tokens(2)));
    assert_eq!((statement.length, statement.usage), (70_010, tokens(2)));
    assert_eq!(statement.response_commitment, commitment(&SALT, b"Hello"));
    assert_eq!(statement.request_commitment, commitment(&SALT, b"{..}"));
    assert_eq!(bench.session.streams(), 0);
}

#[test]
fn no_byte_passes_the_window_and_credit_opens_it() {
    let mut bench = Bench::answering(1);
    for _ in 0..5 {
        bench.piece(1, 60_000, "", 0);
    }
    let sent: usize = bench.frames().iter().map(|frame| frame.payload.len()).sum();
    assert_eq!(sent as u64, STREAM_WINDOW);
    bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 1000 });
    let effects = bench.effects();
    assert!(matches!(effects[0], Effect::Allow { stream: 1, through } if through == STREAM_WINDOW + 1000));
    assert!(matches!(&effects[1], Effect::Binary(bytes) if bytes.len() == 1016));
    bench.tell(&HubMessage::Credit { stream: 99, offset: 1 });
    assert_eq!(bench.closed(), None, "credit may cross an end");
    bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW });
    assert!(matches!(bench.closed(), Some(Closed::Breach(_))), "credit never falls");
}

#[test]
fn a_window_shut_for_thirty_seconds_ends_the_answer() {
    let mut bench = Bench::answering(1);
    for _ in 0..5 {
        bench.piece(1, 60_000, "", 1);
    }
    bench.effects();
    assert_eq!(bench.session.wakeup().unwrap().why, "a stream without credit");
    bench.pass(CREDIT_TIMEOUT - Duration::from_millis(1));
    assert!(bench.effects().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(finish_of(&bench.effects()).unwrap().0, Some(Outcome::Cancelled));
    bench.session.finished(1, finished(Outcome::Cancelled, tokens(1)), bench.now.monotonic);
    assert_eq!(end_and_statement(bench.effects()).0.length, STREAM_WINDOW);
}

#[test]
fn a_cancelled_answer_is_billed_to_the_byte_and_stated_so() {
    for (delivered, usage, text) in [
        (0, Usage::NONE, ""),
        (9, Usage::NONE, ""),
        (10, tokens(1), "a"),
        (25, tokens(2), "ab"),
        (30, tokens(3), "abc"),
    ] {
        let mut bench = Bench::answering(1);
        for (text, completion) in [("a", 1), ("b", 2), ("c", 3)] {
            bench.piece(1, 10, text, completion);
        }
        bench.effects();
        bench.tell(&HubMessage::Cancel { stream: 1, delivered, reason: CancelReason::Consumer });
        assert_eq!(finish_of(&bench.effects()), Some((Some(Outcome::Cancelled), usage)), "{delivered}");
        bench.piece(1, 10, "late", 4);
        assert!(bench.effects().is_empty(), "a late piece is not sent");
        bench.session.finished(1, finished(Outcome::Cancelled, usage), bench.now.monotonic);
        let (end, statement) = end_and_statement(bench.effects());
        let statement = statement.unwrap();
        assert_eq!((end.length, end.usage), (delivered, usage));
        assert_eq!(statement.response_commitment, commitment(&SALT, text.as_bytes()));
    }
}

#[test]
fn what_was_credited_past_still_counts_when_cancelled() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.piece(1, 10, "b", 2);
    bench.piece(1, 10, "c", 3);
    bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 20 });
    bench.effects();
    bench.tell(&HubMessage::Cancel { stream: 1, delivered: 20, reason: CancelReason::Consumer });
    assert_eq!(finish_of(&bench.effects()), Some((Some(Outcome::Cancelled), tokens(2))));
    bench.session.finished(1, finished(Outcome::Cancelled, tokens(2)), bench.now.monotonic);
    let statement = end_and_statement(bench.effects()).1.unwrap();
    assert_eq!(statement.response_commitment, commitment(&SALT, b"ab"));
}

#[test]
fn a_cancel_past_what_was_sent_is_a_breach() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.tell(&HubMessage::Cancel { stream: 1, delivered: 11, reason: CancelReason::Consumer });
    let effects = bench.effects();
    assert_eq!(finish_of(&effects).unwrap().0, Some(Outcome::Failed), "running answers are let go first");
    assert!(matches!(effects.last(), Some(Effect::Close(Closed::Breach(_)))));
}

#[test]
fn a_cancel_before_the_answer_ends_with_nothing() {
    let mut bench = Bench::joined();
    bench.announce(1, 9);
    bench.tell(&HubMessage::Cancel { stream: 1, delivered: 0, reason: CancelReason::Consumer });
    assert!(matches!(&bench.messages()[..], [NodeMessage::End(end)] if end.length == 0));

    bench.announce(2, 4);
    bench.body(2, 0, true, b"{..}");
    bench.effects();
    bench.tell(&HubMessage::Cancel { stream: 2, delivered: 0, reason: CancelReason::Consumer });
    assert_eq!(finish_of(&bench.effects()), Some((Some(Outcome::Cancelled), Usage::NONE)));
    bench.session.refused(2, RefusalCode::Busy);
    assert!(matches!(&bench.messages()[..], [NodeMessage::End(end)] if end.outcome == Outcome::Cancelled));
}

#[test]
fn an_answer_that_never_began_is_ended_and_not_stated() {
    let mut bench = Bench::joined();
    bench.announce(1, 4);
    bench.body(1, 0, true, b"{..}");
    bench.effects();
    bench.session.finished(1, finished(Outcome::Failed, Usage::NONE), bench.now.monotonic);
    let (end, statement) = end_and_statement(bench.effects());
    assert_eq!((end.outcome, end.length, statement), (Outcome::Failed, 0, None));
}

#[test]
fn yielding_ends_every_answer_at_what_was_sent_and_says_so_once() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.effects();
    bench.session.yield_all();
    assert_eq!(finish_of(&bench.effects()), Some((Some(Outcome::Yielded), tokens(1))));
    bench.session.finished(1, finished(Outcome::Yielded, tokens(1)), bench.now.monotonic);
    let sent = bench.messages();
    assert!(matches!(&sent[..], [NodeMessage::End(_), NodeMessage::Yield]), "{sent:?}");
}

#[test]
fn a_silent_hub_and_a_jumping_clock_end_the_session() {
    let mut bench = Bench::joined();
    assert_eq!(bench.session.wakeup().unwrap().at, bench.now.monotonic + Duration::from_secs(50));
    bench.pass(Duration::from_secs(49));
    bench.session.heard(&bench.now.clone());
    bench.pass(Duration::from_secs(49));
    assert_eq!(bench.closed(), None);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.closed(), Some(Closed::Silent));

    let mut bench = Bench::joined();
    bench.now.wall += Duration::from_secs(6);
    bench.session.heard(&bench.now.clone());
    assert_eq!(bench.closed(), Some(Closed::ClockJumped));

    let mut bench = Bench::fresh();
    bench.pass(HANDSHAKE_TIMEOUT);
    assert_eq!(bench.closed(), Some(Closed::Silent));
}

#[test]
fn postings_come_once_in_order_and_a_gap_starts_again() {
    let mut bench = Bench::joined();
    let posted = bench.posted(7);
    bench.tell(&HubMessage::Posted(posted.clone()));
    assert!(bench.effects().is_empty(), "kept already");
    bench.tell(&HubMessage::Posted(Posted { seq: 8, ..posted.clone() }));
    assert!(matches!(bench.effects()[..], [Effect::Posted(_)]));
    bench.tell(&HubMessage::Posted(Posted { seq: 10, ..posted }));
    assert!(matches!(bench.closed(), Some(Closed::Breach(_))));
}

#[test]
fn a_posting_that_its_receipt_does_not_bear_out_is_a_breach() {
    let mut bench = Bench::joined();
    let more = Posted { earned: MicroCredits(2), ..bench.posted(8) };
    bench.tell(&HubMessage::Posted(more));
    assert!(matches!(bench.closed(), Some(Closed::Breach(_))));
}

#[test]
fn many_statements_go_in_messages_below_the_limit() {
    let key = SigningKey::from_bytes(&[2; 32]);
    let payloads: Vec<Vec<u8>> = (0..200).map(|_| vec![b'x'; 1500]).collect();
    let envelopes: Vec<Envelope> =
        idlewatt_protocol::receipt::sign_batch(&key, idlewatt_protocol::receipt::STATEMENT_TYPE, &payloads);
    let mut bench = Bench::joined();
    bench.session.signed(envelopes);
    let texts: Vec<usize> = bench
        .effects()
        .iter()
        .map(|effect| match effect {
            Effect::Text(text) => text.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts.len(), 4);
    assert!(texts.iter().all(|length| *length < MAX_CONTROL_BYTES));
}
