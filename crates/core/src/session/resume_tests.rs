use super::tests::{Bench, end_and_statement, finish_of, finished, tokens};
use super::*;
use idlewatt_protocol::limits::{MAX_REQUEST_BODY, REPLAY_BYTES, RESUME_WINDOW, STREAM_WINDOW};
use idlewatt_protocol::message::{CancelReason, HubMessage, Resume, ResumeStream, Resumed};
use proptest::prelude::*;

impl Bench {
    /// The connection goes, and another opens; what the node says it still has.
    fn reconnects(&mut self) -> Option<Resume> {
        self.session.lost(self.now.monotonic);
        self.reopens()
    }

    fn reopens(&mut self) -> Option<Resume> {
        self.effects();
        self.session.reopen(Nonce([6; 32]), 7, &self.now);
        self.tell(&HubMessage::Challenge(self.challenge()));
        self.hello().resume
    }

    fn resumed(&mut self, resumed: Vec<Resumed>) -> Vec<Effect> {
        let welcome = Welcome { resumed, ..self.welcome(&self.challenge(), &self.session_hello()) };
        self.tell(&HubMessage::Welcome(welcome));
        let mut effects = self.effects();
        assert!(matches!(effects.remove(0), Effect::Welcomed(_)));
        effects
    }
}

fn at(offset: u64) -> Resumed {
    Resumed { stream: 1, has_head: true, offset, credit: offset + STREAM_WINDOW }
}

fn frames(effects: &[Effect]) -> Vec<Frame> {
    let frames = effects.iter().filter_map(|effect| match effect {
        Effect::Binary(bytes) => Some(Frame::decode(bytes).unwrap()),
        _ => None,
    });
    frames.collect()
}

fn said(effects: &[Effect]) -> Vec<NodeMessage> {
    let texts = effects.iter().filter_map(|effect| match effect {
        Effect::Text(text) => Some(serde_json::from_str(text).unwrap()),
        _ => None,
    });
    texts.collect()
}

proptest! {
    /// However much the hub has of what was sent, and whatever comes while there is no connection.
    #[test]
    fn no_byte_is_lost_or_doubled(
        before in prop::collection::vec(1_usize..90_000, 0..4),
        apart in prop::collection::vec(1_usize..90_000, 0..4),
        after in prop::collection::vec(1_usize..90_000, 0..4),
        has in 0.0..=1.0_f64,
    ) {
        let mut bench = Bench::answering(1);
        let mut whole = Vec::new();
        let mut fill = 0_u8;
        let mut piece = |bench: &mut Bench, length: usize| {
            fill = fill.wrapping_add(1);
            whole.extend(std::iter::repeat_n(fill, length));
            let bytes = Bytes::from(vec![fill; length]);
            let piece = Piece { bytes, text: String::new(), usage: tokens(1), cached: 0 };
            bench.session.piece(1, piece, bench.now.monotonic);
        };
        before.iter().for_each(|length| piece(&mut bench, *length));
        let mut has_bytes: Vec<u8> = frames(&bench.effects()).iter().flat_map(|it| it.payload.to_vec()).collect();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a length")]
        has_bytes.truncate((has_bytes.len() as f64 * has) as usize);
        bench.session.lost(bench.now.monotonic);
        bench.effects();
        apart.iter().for_each(|length| piece(&mut bench, *length));
        assert!(bench.effects().is_empty(), "nothing is sent without a connection");
        bench.reopens();
        let mut effects = bench.resumed(vec![at(has_bytes.len() as u64)]);
        after.iter().for_each(|length| piece(&mut bench, *length));
        let mut offset = has_bytes.len() as u64;
        loop {
            effects.extend(bench.effects());
            let frames = frames(&std::mem::take(&mut effects));
            if frames.is_empty() {
                break;
            }
            for frame in frames {
                prop_assert_eq!(frame.offset, has_bytes.len() as u64);
                has_bytes.extend_from_slice(&frame.payload);
                prop_assert!(has_bytes.len() as u64 <= offset + STREAM_WINDOW, "past the window");
            }
            offset = has_bytes.len() as u64;
            bench.tell(&HubMessage::Credit { stream: 1, offset: offset + STREAM_WINDOW });
        }
        prop_assert_eq!(has_bytes, whole);
    }
}

#[test]
fn a_lost_connection_leaves_answers_running_as_far_as_their_replay_reaches() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 100, "a", 1);
    bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 100 });
    bench.effects();
    bench.session.lost(bench.now.monotonic);
    let effects = bench.effects();
    let reach = 100 + REPLAY_BYTES as u64;
    assert!(matches!(effects[..], [Effect::Allow { stream: 1, through }] if through == reach), "{effects:?}");
    assert_eq!(bench.session.streams(), 1);
    let resume = bench.reopens().unwrap();
    assert_eq!(resume, Resume { epoch: 1, streams: vec![ResumeStream { stream: 1, body: 4 }] });
}

#[test]
fn a_head_and_an_end_that_were_lost_are_said_again() {
    let mut bench = Bench::joined();
    bench.announce(1, 4);
    bench.body(1, 0, true, b"{..}");
    bench.effects();
    bench.session.lost(bench.now.monotonic);
    bench.session.head(1, Head { status: 200, streaming: true });
    bench.piece(1, 10, "a", 1);
    bench.session.ended(1, bench.now.monotonic);
    assert!(finish_of(&bench.effects()).is_none(), "it ends when it is sent");
    bench.reopens().unwrap();
    let effects = bench.resumed(vec![Resumed { has_head: false, ..at(0) }]);
    assert!(matches!(said(&effects)[..], [NodeMessage::Head { stream: 1, status: 200, streaming: true }]));
    assert_eq!(finish_of(&effects), Some((None, tokens(1))));
    bench.session.finished(1, finished(Outcome::Complete, tokens(1)), bench.now.monotonic);
    let (end, statement) = end_and_statement(bench.effects());
    assert_eq!((end.length, statement.unwrap().length), (10, 10));

    // The last frame and the end were lost too.
    assert_eq!(bench.session.streams(), 0);
    assert_eq!(bench.reconnects().unwrap().streams.len(), 1);
    let effects = bench.resumed(vec![at(4)]);
    assert_eq!(frames(&effects)[0].offset, 4);
    assert_eq!(said(&effects), [NodeMessage::End(end)]);

    // Once it is settled there is nothing to say.
    let posted = bench.posted(8);
    bench.tell(&HubMessage::Posted(posted));
    assert_eq!(bench.reconnects(), None);
}

#[test]
fn a_request_whose_body_was_cut_off_gets_the_rest() {
    let mut bench = Bench::joined();
    bench.announce(1, 4);
    bench.body(1, 0, false, b"{.");
    let resume = bench.reconnects().unwrap();
    assert_eq!(resume.streams, [ResumeStream { stream: 1, body: 2 }]);
    bench.resumed(vec![Resumed { has_head: false, ..at(0) }]);
    bench.body(1, 2, true, b".}");
    assert!(matches!(&bench.effects()[..], [Effect::Begin { ask, .. }] if &ask.body[..] == b"{..}"));
}

#[test]
fn a_stream_that_the_hub_does_not_take_up_is_cancelled_and_stated_and_not_spoken_of() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.piece(1, 10, "b", 2);
    bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 10 });
    bench.reconnects();
    let effects = bench.resumed(vec![]);
    assert_eq!(finish_of(&effects), Some((Some(Outcome::Cancelled), tokens(1))));
    bench.session.finished(1, finished(Outcome::Cancelled, tokens(1)), bench.now.monotonic);
    match &bench.effects()[..] {
        [Effect::Sign(statement)] => assert_eq!((statement.length, statement.usage), (10, tokens(1))),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.session.streams(), 0);
}

#[test]
fn a_hub_that_starts_anew_may_give_a_number_that_is_still_being_let_go() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.reconnects();
    bench.resumed(vec![]);
    bench.announce(1, 4);
    bench.body(1, 0, true, b"{..}");
    assert!(matches!(bench.effects()[..], [Effect::Begin { stream: 2, .. }]));
    bench.session.finished(1, finished(Outcome::Cancelled, Usage::NONE), bench.now.monotonic);
    assert!(matches!(bench.effects()[..], [Effect::Sign(_)]));
    bench.piece(2, 5, "b", 1);
    let frame = &frames(&bench.effects())[0];
    assert_eq!((frame.stream, frame.offset), (1, 0));
}

#[test]
fn a_minute_without_a_connection_ends_it_with_what_the_hub_had() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.piece(1, 10, "b", 2);
    bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 10 });
    bench.session.lost(bench.now.monotonic);
    bench.effects();
    assert_eq!(bench.session.wakeup().unwrap().at, bench.now.monotonic + RESUME_WINDOW);
    bench.pass(RESUME_WINDOW - Duration::from_millis(1));
    assert!(bench.effects().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(finish_of(&bench.effects()), Some((Some(Outcome::Failed), tokens(1))));
    bench.session.finished(1, finished(Outcome::Failed, tokens(1)), bench.now.monotonic);
    assert!(matches!(&bench.effects()[..], [Effect::Sign(statement)] if statement.length == 10));
    assert_eq!(bench.session.wakeup(), None);
    assert_eq!(bench.reopens(), None);
}

#[test]
fn a_try_that_fails_leaves_the_minute_as_it_is() {
    let mut bench = Bench::answering(1);
    bench.session.lost(bench.now.monotonic);
    let until = bench.session.wakeup().unwrap().at;
    bench.pass(Duration::from_secs(30));
    bench.reopens().unwrap();
    bench.session.lost(bench.now.monotonic);
    assert_eq!(bench.session.wakeup().unwrap().at, until);
}

#[test]
fn a_resume_where_it_cannot_be_is_a_breach() {
    for resumed in [
        Resumed { offset: 31, ..at(31) },
        Resumed { offset: 9, ..at(9) },
        Resumed { credit: 20 + STREAM_WINDOW + 1, ..at(20) },
        Resumed { credit: STREAM_WINDOW, ..at(20) },
        Resumed { stream: 2, ..at(20) },
    ] {
        let mut bench = Bench::answering(1);
        bench.piece(1, 30, "a", 1);
        bench.tell(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 10 });
        bench.reconnects();
        let effects = bench.resumed(vec![resumed]);
        assert!(matches!(effects.last(), Some(Effect::Close(Closed::Breach(_)))), "{resumed:?}");
    }
}

#[test]
fn a_request_refused_between_hello_and_welcome_ends_no_other_answer() {
    let mut bench = Bench::answering(1);
    bench.announce(2, 4);
    bench.body(2, 0, true, b"{..}");
    bench.piece(1, 10, "a", 1);
    assert_eq!(bench.reconnects().unwrap().streams.len(), 2);
    bench.session.refused(2, RefusalCode::Busy);
    let effects = bench.resumed(vec![at(4), Resumed { stream: 2, has_head: false, ..at(0) }]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Close(_))), "{effects:?}");
    assert_eq!(frames(&effects)[0].offset, 4, "the other answer goes on");
    assert_eq!(said(&effects), [failed_end(2, 0)]);
}

#[test]
fn an_answer_whose_minute_ends_between_hello_and_welcome_has_failed_where_the_hub_has_it() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.session.lost(bench.now.monotonic);
    bench.pass(RESUME_WINDOW - Duration::from_secs(1));
    bench.reopens().unwrap();
    bench.pass(Duration::from_secs(1));
    assert_eq!(finish_of(&bench.effects()).unwrap().0, Some(Outcome::Failed));
    assert_eq!(said(&bench.resumed(vec![at(4)])), [failed_end(1, 4)]);
    bench.session.finished(1, finished(Outcome::Failed, Usage::NONE), bench.now.monotonic);
    assert!(said(&bench.effects()).is_empty(), "it is not ended twice");
}

fn failed_end(stream: u32, length: u64) -> NodeMessage {
    NodeMessage::End(End { stream, outcome: Outcome::Failed, length, usage: Usage::NONE, message: None })
}

#[test]
fn a_request_that_breaks_a_limit_takes_no_room_from_the_next_session() {
    let most = MAX_REQUEST_BODY as u64;
    let mut bench = Bench::joined();
    for _ in 0..2 {
        bench.announce(1, most);
        bench.announce(1, most);
        assert!(matches!(bench.effects().last(), Some(Effect::Close(Closed::Breach(_)))));
        bench.reopens();
        bench.resumed(vec![]);
    }
    (1..=16).for_each(|stream| bench.announce(stream, most));
    assert!(bench.effects().is_empty(), "64 MiB of requests may be open");
}

#[test]
fn a_cancel_after_the_resume_is_billed_at_what_was_delivered() {
    let mut bench = Bench::answering(1);
    bench.piece(1, 10, "a", 1);
    bench.piece(1, 10, "b", 2);
    bench.reconnects();
    bench.resumed(vec![at(10)]);
    bench.tell(&HubMessage::Cancel { stream: 1, delivered: 10, reason: CancelReason::Consumer });
    assert_eq!(finish_of(&bench.effects()), Some((Some(Outcome::Cancelled), tokens(1))));
}

#[test]
fn a_jumping_clock_takes_nothing_up() {
    let mut bench = Bench::answering(1);
    bench.session.lost(bench.now.monotonic);
    bench.effects();
    bench.now.wall += Duration::from_secs(6);
    bench.session.time(&bench.now.clone());
    assert_eq!(finish_of(&bench.effects()).unwrap().0, Some(Outcome::Failed));
}
