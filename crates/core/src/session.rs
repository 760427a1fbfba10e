//! The node's side of a session with a hub: handshake, offers, streams, windows and statements.
//!
//! A pure machine. The shell feeds it what the hub sends, what the answers give, and the time; takes its [`Effect`]s in
//! order; and asks again at [`Session::wakeup`]. The hub is not trusted with anything but requests: whatever breaks a
//! limit or the order of messages ends the session.
//!
//! A cancel that crosses an `end` on the wire is ignored: the answer has ended and its statement is on its way. The hub
//! then settles the bytes it delivered by its own count.

mod inbound;
mod replay;
mod resume;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::handshake::HubDistrusted;
use idlewatt_protocol::limits::{HANDSHAKE_TIMEOUT, MAX_CONTROL_BYTES, MAX_SERVICES, MISSED_HEARTBEATS};
use idlewatt_protocol::message::{
    Challenge, End, Hello, NodeMessage, Outcome, Posted, RefusalCode, RefuseCode, State, Welcome,
};
use idlewatt_protocol::receipt::{Envelope, Statement};
use idlewatt_protocol::{Nonce, PublicKey, RequestId, ServiceOffer, Usage};
use jiff::Timestamp;

use crate::work::{Ask, Finished, Head, Piece};
use crate::{Now, Wakeup};
use stream::{Phase, Stream};

/// Wall clock and monotonic clock may drift apart by this much before it counts as a suspend or a set clock.
const CLOCK_JUMP: Duration = Duration::from_secs(5);
/// Bytes of request bodies that have begun and not ended, over all streams.
const MAX_OPEN_BODIES: usize = 64 * 1024 * 1024;
/// An envelope is 2 to 3 KiB, so that many of them stay below the limit of a control message.
const STATEMENTS_A_MESSAGE: usize = 64;

/// What the node brings to one session.
#[derive(Clone)]
pub struct Introduction {
    /// The node's secret key.
    pub key: Arc<SigningKey>,
    /// The key that the hub must show.
    pub hub_key: PublicKey,
    /// The invite's token, on a first join.
    pub token: Option<String>,
    /// Name and version of the program.
    pub agent: String,
    /// The name that the host gave the node.
    pub name: Option<String>,
    /// The last posting kept durably.
    pub posted_through: u64,
    /// Fresh random bytes, for this session only.
    pub nonce: Nonce,
    /// The network's id on this node, for its [`Ask`]s.
    pub network: String,
}

/// What the shell must do, in order.
#[derive(Debug)]
pub enum Effect {
    /// Send a text frame.
    Text(String),
    /// Send a binary frame.
    Binary(Bytes),
    /// The hub is who it should be and let the node in: bring offer, state and unsettled statements.
    Welcomed(Welcome),
    /// Ask the host to begin an answer. Its pieces may be taken until `through` bytes; then wait for [`Effect::Allow`].
    Begin {
        /// The stream.
        stream: u32,
        /// The request.
        ask: Ask,
        /// Bytes.
        through: u64,
    },
    /// The answer's pieces may be taken until `through` bytes.
    Allow {
        /// The stream.
        stream: u32,
        /// Bytes.
        through: u64,
    },
    /// End the answer and bring what came of it; a begin that has not come back is dropped, and brought as refused.
    Finish {
        /// The stream.
        stream: u32,
        /// What the network makes of it; `None` keeps what the answer itself came to.
        outcome: Option<Outcome>,
        /// Tokens of the bytes that count.
        usage: Usage,
    },
    /// Sign this statement, keep it, and bring the envelope; even when the session is gone by then.
    Sign(Box<Statement>),
    /// Keep this posting and forget the statement.
    Posted(Posted),
    /// Forget the statement.
    Void(RequestId),
    /// The session is over. Nothing follows.
    Close(Closed),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The hub refused, or cut the node off.
    Refused {
        /// For programs.
        code: RefuseCode,
        /// For people.
        message: String,
    },
    /// The hub could not prove to be the one this node was invited to.
    Distrusted(HubDistrusted),
    /// The hub broke a limit or the order of messages; which.
    Breach(&'static str),
    /// Nothing was heard for too long.
    Silent,
    /// The machine slept, or its clock was set.
    ClockJumped,
}

#[derive(Debug)]
enum Stage {
    Challenge,
    Welcome { challenge: Challenge, hello: Box<Hello> },
    In,
    Over,
}

/// One session.
pub struct Session {
    intro: Introduction,
    stage: Stage,
    opened: Instant,
    heard: Instant,
    clocks: (Instant, Timestamp),
    heartbeat: Duration,
    posted_through: u64,
    offered: Option<Vec<ServiceOffer>>,
    stated: Option<State>,
    /// By numbers of this side's own, which no hub gives twice; the effects and what they bring go by them too.
    streams: HashMap<u32, Stream>,
    next_stream: u32,
    /// The hub's numbers of those it knows.
    numbers: HashMap<u32, u32>,
    /// Those of `streams` that have ended.
    ended: resume::Ended,
    open_bodies: usize,
    /// The number of the last session.
    epoch: u64,
    /// Until when a lost session's streams wait for the next.
    parted: Option<Instant>,
    effects: VecDeque<Effect>,
}

impl Session {
    /// A session on a connection that has just opened.
    #[must_use]
    pub fn new(intro: Introduction, now: &Now) -> Self {
        Self {
            posted_through: intro.posted_through,
            intro,
            stage: Stage::Challenge,
            opened: now.monotonic,
            heard: now.monotonic,
            clocks: (now.monotonic, now.wall),
            heartbeat: Duration::ZERO,
            offered: None,
            stated: None,
            streams: HashMap::new(),
            next_stream: 1,
            numbers: HashMap::new(),
            ended: resume::Ended::default(),
            open_bodies: 0,
            epoch: 0,
            parted: None,
            effects: VecDeque::new(),
        }
    }

    /// Names the network on this node: on a first join it gets its name from what the welcome says.
    pub fn rename(&mut self, network: &str) {
        network.clone_into(&mut self.intro.network);
    }

    /// The next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Whether the hub has let the node in, and the session goes on.
    #[must_use]
    pub fn is_in(&self) -> bool {
        matches!(self.stage, Stage::In)
    }

    /// Requests under way.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len() - self.ended.count()
    }

    /// The next moment at which [`time`](Self::time) must be called. May be earlier than needed, never later.
    #[must_use]
    pub fn wakeup(&self) -> Option<Wakeup> {
        let silence = match self.stage {
            Stage::Over => None,
            Stage::In => Some(Wakeup { at: self.heard + self.patience(), why: "the hub's heartbeat" }),
            _ => Some(Wakeup { at: self.opened + HANDSHAKE_TIMEOUT, why: "the handshake" }),
        };
        let credit = self.streams.values().filter_map(Stream::stalled_until).min();
        let credit = credit.map(|at| Wakeup { at, why: "a stream without credit" });
        let parted = self.parted.map(|at| Wakeup { at, why: "streams of a lost session" });
        [silence, credit, parted].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn time(&mut self, now: &Now) {
        if !self.clocks_agree(now) {
            return;
        }
        if let Some(wakeup) = self.wakeup()
            && wakeup.at <= now.monotonic
        {
            let stalled: Vec<u32> = self
                .streams
                .iter()
                .filter(|(_, stream)| stream.stalled_until().is_some_and(|at| at <= now.monotonic))
                .map(|(id, _)| *id)
                .collect();
            for id in stalled {
                self.finish_as_sent(id, Outcome::Cancelled);
            }
            if self.parted.is_some_and(|at| at <= now.monotonic) {
                self.give_up();
            }
            let limit =
                if self.is_in() { self.heard + self.patience() } else { self.opened + HANDSHAKE_TIMEOUT };
            if limit <= now.monotonic && !matches!(self.stage, Stage::Over) {
                self.lost(now.monotonic);
                self.effects.push_back(Effect::Close(Closed::Silent));
            }
        }
    }

    /// The hub sent something that only shows it is alive: a ping.
    pub fn heard(&mut self, now: &Now) {
        if self.clocks_agree(now) {
            self.heard = now.monotonic;
        }
    }

    /// The hub sent a text frame.
    pub fn text(&mut self, text: &str, now: &Now) {
        self.heard(now);
        if matches!(self.stage, Stage::Over) {
            return;
        }
        if text.len() > MAX_CONTROL_BYTES {
            return self.breach("a control message over 256 KiB");
        }
        match serde_json::from_str(text) {
            Ok(message) => self.message(message, now),
            Err(_) => self.breach("a control message that is none"),
        }
    }

    /// The hub sent a binary frame.
    pub fn binary(&mut self, bytes: &Bytes, now: &Now) {
        self.heard(now);
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let Ok(frame) = Frame::decode(bytes) else { return self.breach("a binary frame that is none") };
        if frame.kind != Kind::Body || !self.is_in() {
            return self.breach("a frame that only a node may send, or before the welcome");
        }
        let known = self.numbers.get(&frame.stream).copied();
        let Some((id, stream)) = known.and_then(|id| Some((id, self.streams.get_mut(&id)?))) else {
            return self.breach("a frame of a stream that is not open");
        };
        match stream.body(&frame) {
            Err(why) => self.breach(why),
            Ok(None) => {}
            Ok(Some(body)) => {
                self.open_bodies = self.open_bodies.saturating_sub(body.len());
                let network = self.intro.network.clone();
                let (ask, through) = (stream.ask(body, network), stream.credit());
                self.effects.push_back(Effect::Begin { stream: id, ask, through });
            }
        }
    }

    /// What is offered now; sent when it changed. Services that break a limit are left out.
    pub fn offer(&mut self, mut services: Vec<ServiceOffer>) {
        services.retain(|service| service.breach().is_none());
        services.truncate(MAX_SERVICES);
        if self.is_in() && self.offered.as_ref() != Some(&services) {
            self.send(&NodeMessage::Offer { services: services.clone() });
            self.offered = Some(services);
        }
    }

    /// Whether work is taken now; sent when it changed.
    pub fn state(&mut self, state: State) {
        if self.is_in() && self.stated != Some(state) {
            self.send(&NodeMessage::State(state));
            self.stated = Some(state);
        }
    }

    /// The host does not take the request, or its begin was dropped.
    pub fn refused(&mut self, stream: u32, code: RefusalCode) {
        let Some(it) = self.remove(stream) else { return };
        if it.is_dropped() || !self.is_in() {
            // One that no hello names is lost for the hub; one that the last hello named ends with the welcome.
        } else if it.finishing().is_some() {
            self.end_empty(it.number());
        } else {
            self.send(&NodeMessage::Refused { stream: it.number(), code });
        }
    }

    /// An answer begins.
    pub fn head(&mut self, stream: u32, head: Head) {
        let Some(it) = self.streams.get_mut(&stream).filter(|it| it.finishing().is_none()) else { return };
        it.begins(head);
        let number = it.number();
        if self.is_in() {
            self.send_head(number, head);
        }
    }

    /// An answer gave its next piece.
    pub fn piece(&mut self, stream: u32, piece: Piece, now: Instant) {
        if let Some(it) = self.streams.get_mut(&stream) {
            it.piece(piece);
            self.pump(stream, now);
        }
    }

    /// An answer has no more pieces, whatever the reason.
    pub fn ended(&mut self, stream: u32, now: Instant) {
        if let Some(it) = self.streams.get_mut(&stream) {
            it.ended();
            self.pump(stream, now);
        }
    }

    /// What came of an answer, after [`Effect::Finish`], or instead of a head.
    pub fn finished(&mut self, stream: u32, finished: Finished, now: Instant) {
        let Some(mut it) = self.streams.remove(&stream) else { return };
        let outcome = finished.outcome;
        let finish = it.finish(None);
        let end = End {
            stream: it.number(),
            outcome,
            length: finish.length,
            usage: finish.usage,
            message: finished.message.clone(),
        };
        if self.is_in() && !it.is_dropped() {
            self.send(&NodeMessage::End(end.clone()));
        }
        // Nothing was delivered and nobody cancelled: the hub asks another node, and there is nothing to state.
        if finish.length > 0 || outcome == Outcome::Cancelled {
            let statement =
                it.statement(finish, finished, PublicKey::from(&*self.intro.key), self.intro.hub_key);
            self.effects.push_back(Effect::Sign(Box::new(statement)));
        }
        if !it.is_dropped() {
            it.ends(end);
            let request = it.request();
            self.streams.insert(stream, it);
            self.keep_ended(stream, request, now);
        }
        if outcome == Outcome::Yielded && self.streams() == 0 && self.is_in() {
            self.send(&NodeMessage::Yield);
        }
    }

    /// Statements are signed and kept.
    pub fn signed(&mut self, envelopes: Vec<Envelope>) {
        if !self.is_in() {
            return;
        }
        let mut rest = envelopes;
        while !rest.is_empty() {
            let later = rest.split_off(rest.len().min(STATEMENTS_A_MESSAGE));
            self.send(&NodeMessage::Statements { statements: rest });
            rest = later;
        }
    }

    /// The host stops: every answer ends as yielded, with what was sent so far.
    pub fn yield_all(&mut self) {
        let streams: Vec<u32> = self.streams.keys().copied().collect();
        for id in streams {
            self.finish_as_sent(id, Outcome::Yielded);
        }
    }

    /// Sends what the window allows, and finishes an answer of which everything is sent.
    fn pump(&mut self, id: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(&id).filter(|it| !it.is_dropped()) else { return };
        if !matches!(self.stage, Stage::In) {
            return;
        }
        while let Some(frame) = stream.next_frame() {
            self.effects.push_back(Effect::Binary(frame.encode()));
        }
        stream.note_stall(now);
        if stream.is_sent() {
            let sent = stream.sent();
            self.finish(id, None, Some(sent));
        }
    }

    /// Asks the shell to end an answer at `length`, or at what is known to be delivered.
    fn finish(&mut self, id: u32, outcome: Option<Outcome>, length: Option<u64>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.finishing().is_none() && !matches!(stream.phase(), Phase::Body(_)) {
            let usage = stream.finish(Some(length.unwrap_or(stream.delivered()))).usage;
            self.effects.push_back(Effect::Finish { stream: id, outcome, usage });
        }
    }

    /// An end that the hub did not ask for covers what it was sent.
    fn finish_as_sent(&mut self, id: u32, outcome: Outcome) {
        let sent = self.streams.get(&id).map(Stream::sent);
        self.finish(id, Some(outcome), sent);
    }

    fn remove(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        if self.numbers.get(&stream.number()) == Some(&id) {
            self.numbers.remove(&stream.number());
        }
        Some(stream)
    }

    fn send_head(&mut self, stream: u32, head: Head) {
        self.send(&NodeMessage::Head { stream, status: head.status, streaming: head.streaming });
    }

    fn end_empty(&mut self, stream: u32) {
        let end = End { stream, outcome: Outcome::Cancelled, length: 0, usage: Usage::NONE, message: None };
        self.send(&NodeMessage::End(end));
    }

    fn send(&mut self, message: &NodeMessage) {
        match serde_json::to_string(message) {
            Ok(text) => self.effects.push_back(Effect::Text(text)),
            Err(_) => self.breach("a message that cannot be written"),
        }
    }

    fn breach(&mut self, which: &'static str) {
        self.close(Closed::Breach(which));
    }

    fn close(&mut self, why: Closed) {
        // Whoever fails at a handshake may be another than the hub that answers are kept for.
        if matches!(self.stage, Stage::In | Stage::Over) || why == Closed::ClockJumped {
            self.give_up();
        }
        if !matches!(self.stage, Stage::Over) {
            self.stage = Stage::Over;
            self.effects.push_back(Effect::Close(why));
        }
    }

    /// Silence that a live hub never keeps: the pings it may miss, and half of one for the way.
    fn patience(&self) -> Duration {
        self.heartbeat * MISSED_HEARTBEATS + self.heartbeat / 2
    }

    fn clocks_agree(&mut self, now: &Now) -> bool {
        let (monotonic, wall) = std::mem::replace(&mut self.clocks, (now.monotonic, now.wall));
        let by_wall = now.wall.duration_since(wall).as_secs_f64();
        let by_monotonic = now.monotonic.saturating_duration_since(monotonic).as_secs_f64();
        let agree = (by_wall - by_monotonic).abs() <= CLOCK_JUMP.as_secs_f64();
        if !agree {
            self.close(Closed::ClockJumped);
        }
        agree
    }
}

#[cfg(test)]
mod resume_tests;
#[cfg(test)]
mod tests;
