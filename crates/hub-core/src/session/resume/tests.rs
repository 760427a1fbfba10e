//! A node that keeps to the protocol, over a wire that is cut anywhere: no byte is lost and none comes twice.

use std::collections::VecDeque;

use bytes::Bytes;
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::limits::STREAM_WINDOW;
use idlewatt_protocol::message::{
    CancelReason, Deadlines, End, Endpoint, NodeMessage, Outcome, RefuseCode, Request,
};
use idlewatt_protocol::{Nonce, Price, RequestId, Usage};
use proptest::prelude::*;

use super::super::{Heard, Most, WATCH};
use super::*;

const MOST: Most = Most { prompt: 100, completion: 100 };

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

/// What a node knows of one stream.
#[derive(Default)]
struct NodeStream {
    body: Vec<u8>,
    body_bytes: u64,
    sent: usize,
    credit: u64,
    said_head: bool,
    cancelled: Option<u64>,
    ended: bool,
}

enum Wire {
    Text(String),
    Binary(Bytes),
}

/// Hub and node with what is under way between them.
struct World {
    now: Instant,
    hub: Session<()>,
    to_node: VecDeque<Outgoing>,
    to_hub: VecDeque<Wire>,
    node: Option<NodeStream>,
    stream: u32,
    answer: Vec<u8>,
    /// What the consumer got.
    got: Vec<u8>,
    heads: usize,
    ends: Vec<End>,
    lost: usize,
}

impl World {
    fn new(body: &[u8], answer: Vec<u8>) -> Self {
        let now = Instant::now();
        let mut hub = Session::new(now);
        let (stream, out) = hub.open(now, (), request(), MOST, &Bytes::copy_from_slice(body)).unwrap();
        Self {
            now,
            hub,
            to_node: out.into(),
            to_hub: VecDeque::new(),
            node: None,
            stream,
            answer,
            got: Vec::new(),
            heads: 0,
            ends: Vec::new(),
            lost: 0,
        }
    }

    fn say(&mut self, message: &NodeMessage) {
        self.to_hub.push_back(Wire::Text(serde_json::to_string(message).unwrap()));
    }

    /// The node takes in the next thing that came.
    fn node_hears(&mut self) {
        match self.to_node.pop_front() {
            Some(Outgoing::Control(HubMessage::Request(request))) => {
                let credit = STREAM_WINDOW;
                let body_bytes = request.body_bytes;
                self.node = Some(NodeStream { body_bytes, credit, ..NodeStream::default() });
            }
            Some(Outgoing::Control(HubMessage::Credit { offset, .. })) => {
                if let Some(node) = &mut self.node {
                    node.credit = node.credit.max(offset);
                }
            }
            Some(Outgoing::Control(HubMessage::Cancel { delivered, .. })) => {
                if let Some(node) = &mut self.node {
                    node.cancelled.get_or_insert(delivered);
                }
            }
            Some(Outgoing::Body(frame)) => {
                let node = self.node.as_mut().expect("a body before its request");
                assert_eq!(frame.offset, node.body.len() as u64, "the body has a gap");
                node.body.extend_from_slice(&frame.payload);
                assert_eq!(frame.last, node.body.len() as u64 == node.body_bytes);
            }
            Some(Outgoing::Control(other)) => panic!("{other:?}"),
            None => {}
        }
    }

    /// The node goes on with its answer by at most `most` bytes.
    fn node_says(&mut self, most: usize) {
        let stream = self.stream;
        let Some(node) = &mut self.node else { return };
        if node.ended || (node.body.len() as u64) < node.body_bytes {
            return;
        }
        if let Some(length) = node.cancelled {
            node.ended = true;
            return self.end(Outcome::Cancelled, length);
        }
        if !node.said_head {
            node.said_head = true;
            return self.say(&NodeMessage::Head { stream, status: 200, streaming: true });
        }
        if node.sent == self.answer.len() {
            node.ended = true;
            let length = node.sent as u64;
            return self.end(Outcome::Complete, length);
        }
        let room = usize::try_from(node.credit).unwrap() - node.sent;
        let payload = &self.answer[node.sent..];
        let payload = Bytes::copy_from_slice(&payload[..payload.len().min(most).min(room)]);
        if payload.is_empty() {
            return;
        }
        let offset = node.sent as u64;
        node.sent += payload.len();
        let frame = Frame { kind: Kind::Data, last: false, stream, offset, payload };
        self.to_hub.push_back(Wire::Binary(frame.encode()));
    }

    fn end(&mut self, outcome: Outcome, length: u64) {
        let stream = self.stream;
        self.say(&NodeMessage::End(End { stream, outcome, length, usage: Usage::NONE, message: None }));
    }

    fn hub_hears(&mut self) {
        self.hub.alive(self.now);
        match self.to_hub.pop_front() {
            Some(Wire::Text(text)) => match self.hub.text(&text).unwrap() {
                Heard::Head { .. } => self.heads += 1,
                Heard::Ended { end, .. } => self.ends.push(end),
                other => panic!("{other:?}"),
            },
            Some(Wire::Binary(bytes)) => {
                if let Some(((), payload)) = self.hub.binary(&bytes).unwrap() {
                    self.got.extend_from_slice(&payload);
                    let credit = self.hub.consumed(self.stream, self.got.len() as u64);
                    self.to_node.extend(credit.map(Outgoing::Control));
                }
            }
            None => {}
        }
    }

    /// Everything under way is lost, and the node comes back.
    fn cut(&mut self) {
        self.to_node.clear();
        self.to_hub.clear();
        let named =
            self.node.as_ref().map(|node| ResumeStream { stream: self.stream, body: node.body.len() as u64 });
        let resumption = self.hub.resume(self.now, named.as_slice()).unwrap();
        self.lost += resumption.lost.len();
        let told = resumption.resumed.iter().find(|it| it.stream == self.stream);
        match (told, &mut self.node) {
            (Some(told), Some(node)) => {
                node.sent = usize::try_from(told.offset).unwrap();
                node.credit = told.credit;
                node.said_head = told.has_head;
                node.ended = false;
            }
            _ => self.node = None,
        }
        self.to_node = resumption.out.into();
    }

    fn settle(&mut self) {
        while self.hub.running() > 0 {
            while !self.to_node.is_empty() {
                self.node_hears();
            }
            self.node_says(65_536);
            while !self.to_hub.is_empty() {
                self.hub_hears();
            }
            if self.node.is_none() && self.to_node.is_empty() {
                break;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    NodeHears,
    NodeSays(usize),
    HubHears,
    Cut,
    Cancel,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::NodeHears),
        6 => prop_oneof![1usize..4, 1000usize..80_000].prop_map(Step::NodeSays),
        6 => Just(Step::HubHears),
        1 => Just(Step::Cut),
    ]
}

fn is_prefix(got: &[u8], answer: &[u8]) -> bool {
    answer.starts_with(got)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_cut_the_answer_is_whole_once_or_lost_and_said_so(
        steps in prop::collection::vec(step(), 0..120),
        body in 1usize..150_000,
        answer in prop_oneof![0usize..40, 300_000usize..700_000],
    ) {
        let answer: Vec<u8> = (0..answer).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut world = World::new(&vec![b'x'; body], answer);
        for step in steps {
            match step {
                Step::NodeHears => world.node_hears(),
                Step::NodeSays(most) => world.node_says(most.min(65_536)),
                Step::HubHears => world.hub_hears(),
                Step::Cut => world.cut(),
                Step::Cancel => unreachable!("not among these"),
            }
            prop_assert!(is_prefix(&world.got, &world.answer));
        }
        world.settle();
        if world.lost == 0 {
            prop_assert_eq!(&world.got, &world.answer);
            prop_assert_eq!((world.heads, world.ends.len()), (1, 1));
            prop_assert_eq!(world.ends[0].length, world.answer.len() as u64);
        } else {
            // Only a request that never reached the node is lost: nothing of it was answered.
            prop_assert!(world.got.is_empty() && world.ends.is_empty() && world.lost == 1);
        }
    }

    #[test]
    fn a_cancel_that_is_lost_is_said_again_and_ends_at_what_it_named(
        before in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(prop_oneof![3 => step(), 1 => Just(Step::Cancel)], 0..60),
    ) {
        let answer: Vec<u8> = (0..5000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut world = World::new(b"body", answer);
        let mut delivered = None;
        for step in before.into_iter().chain([Step::Cancel]).chain(after) {
            match step {
                Step::NodeHears => world.node_hears(),
                Step::NodeSays(most) => world.node_says(most.min(999)),
                Step::HubHears => world.hub_hears(),
                Step::Cut => world.cut(),
                Step::Cancel => {
                    let length = world.got.len() as u64;
                    let cancel = world.hub.cancel(world.now, world.stream, length, CancelReason::Consumer);
                    if cancel.is_some() {
                        prop_assert!(delivered.replace(length).is_none(), "cancelled once");
                    }
                    world.to_node.extend(cancel.map(Outgoing::Control));
                }
            }
        }
        world.settle();
        if world.lost == 0 {
            prop_assert_eq!(world.ends.len(), 1);
            // An end that crossed the cancel says all that was sent.
            let all = world.answer.len() as u64;
            let length = world.ends[0].length;
            prop_assert!(delivered.is_none_or(|delivered| length == delivered || length == all), "{} {:?}", length, delivered);
            prop_assert!(is_prefix(&world.got, &world.answer));
        }
        prop_assert_eq!(world.hub.running(), 0);
    }
}

fn one() -> (Session<u8>, Instant) {
    let now = Instant::now();
    let mut session = Session::new(now);
    session.open(now, 7, request(), MOST, &Bytes::from_static(b"body")).unwrap();
    (session, now)
}

#[test]
fn a_stream_that_the_node_does_not_name_is_lost_for_who_waits() {
    let (mut session, now) = one();
    let resumption = session.resume(now, &[ResumeStream { stream: 9, body: 0 }]).unwrap();
    assert_eq!((resumption.lost, resumption.resumed), (vec![7], vec![]));
    assert_eq!(session.running(), 0);
}

#[test]
fn what_cannot_be_is_a_breach_and_loses_nobody() {
    let named = |body| ResumeStream { stream: 1, body };
    for bad in [vec![named(5)], vec![named(1), named(1)], vec![named(0); MAX_STREAMS + 1]] {
        let (mut session, now) = one();
        let breach = session.resume(now, &bad).unwrap_err();
        assert_eq!(breach.refuse().code, RefuseCode::Protocol);
        assert_eq!(session.close().collect::<Vec<_>>(), [7]);
    }
    let (mut session, now) = one();
    session.text(r#"{"type":"head","stream":1,"status":200,"streaming":true}"#).unwrap();
    assert!(session.resume(now, &[named(3)]).is_err(), "an answer to half a body");
    assert!(session.resume(now, &[named(4)]).is_ok());
}

#[test]
fn a_resumed_session_is_watched_from_anew() {
    let (mut session, now) = one();
    session.tick(now + WATCH).unwrap();
    let later = now + WATCH * 9;
    session.resume(later, &[ResumeStream { stream: 1, body: 4 }]).unwrap();
    assert_eq!(session.next_tick(), later + WATCH);
}
