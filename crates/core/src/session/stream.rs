//! One request on a session: its body as it comes, the answer's window, and the tokens and content at every offset.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::limits::{CREDIT_TIMEOUT, MAX_FRAME_PAYLOAD, REPLAY_BYTES, STREAM_WINDOW};
use idlewatt_protocol::message::{End, Request, Resumed};
use idlewatt_protocol::receipt::{Commitment, Statement, commitment};
use idlewatt_protocol::{Digest, Joined, PublicKey, RequestId, Usage};

use super::replay::Replay;
use crate::work::{Ask, Finished, Head, Piece};

/// What is known at the end of a piece.
#[derive(Debug)]
struct Mark {
    end: u64,
    usage: Usage,
    text: String,
}

/// A request body under way.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) expected: usize,
    received: BytesMut,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The request's body is coming.
    Body(Body),
    /// The answer is the host's to give.
    Answer,
}

/// Where an answer ends: what is billed and stated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finish {
    pub(super) length: u64,
    pub(super) usage: Usage,
    response_commitment: Digest,
}

#[derive(Debug)]
pub(super) struct Stream {
    request: Request,
    request_commitment: Digest,
    phase: Phase,
    /// Absolute position up to which bytes may be sent.
    credit: u64,
    sent: u64,
    /// The most that was ever sent.
    sent_once: u64,
    /// All that was taken and is not surely delivered.
    replay: Replay,
    head: Option<Head>,
    /// Pieces that may still turn out not to be delivered.
    marks: VecDeque<Mark>,
    /// Over the content of pieces that were delivered, and their usage.
    settled: Commitment,
    settled_usage: Usage,
    ended: bool,
    stalled: Option<Instant>,
    finishing: Option<Finish>,
    /// What was said, or is to be said, at its end.
    end: Option<End>,
    /// The hub knows no such stream: nothing more is said of it.
    dropped: bool,
}

impl Stream {
    pub(super) fn new(request: Request, body: usize) -> Self {
        Self {
            settled: Commitment::new(&request.salt),
            request,
            request_commitment: Digest([0; 32]),
            phase: Phase::Body(Body { expected: body, received: BytesMut::new() }),
            credit: STREAM_WINDOW,
            sent: 0,
            sent_once: 0,
            replay: Replay::default(),
            head: None,
            marks: VecDeque::new(),
            settled_usage: Usage::NONE,
            ended: false,
            stalled: None,
            finishing: None,
            end: None,
            dropped: false,
        }
    }

    /// The hub's number of it.
    pub(super) fn number(&self) -> u32 {
        self.request.stream
    }

    pub(super) fn request(&self) -> RequestId {
        self.request.request
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    pub(super) fn begins(&mut self, head: Head) {
        self.head = Some(head);
    }

    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    pub(super) fn ends(&mut self, end: End) {
        self.end = Some(end);
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.dropped
    }

    pub(super) fn drop_it(&mut self) {
        self.dropped = true;
    }

    /// Bytes of the request's body that are here.
    pub(super) fn received(&self) -> u64 {
        match &self.phase {
            Phase::Body(body) => body.received.len() as u64,
            Phase::Answer => self.request.body_bytes,
        }
    }

    /// The connection is gone; up to where pieces may be taken without one.
    pub(super) fn part(&mut self) -> u64 {
        self.stalled = None;
        self.delivered().saturating_add(REPLAY_BYTES as u64)
    }

    /// Goes on in a new session from what the hub has.
    pub(super) fn resume(&mut self, resumed: &Resumed) -> Result<(), &'static str> {
        if resumed.offset > self.sent_once || resumed.offset < self.delivered() {
            return Err("a stream resumed where it cannot be");
        }
        self.sent = resumed.offset;
        self.add_credit(resumed.credit).map(|_| ())
    }

    pub(super) fn phase(&self) -> &Phase {
        &self.phase
    }

    pub(super) fn credit(&self) -> u64 {
        self.credit
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn finishing(&self) -> Option<Finish> {
        self.finishing
    }

    /// Bytes that the hub has surely passed on.
    pub(super) fn delivered(&self) -> u64 {
        self.credit.saturating_sub(STREAM_WINDOW).min(self.sent)
    }

    /// Adds a frame of the body; gives the body once it is whole.
    pub(super) fn body(&mut self, frame: &Frame) -> Result<Option<Bytes>, &'static str> {
        let Phase::Body(body) = &mut self.phase else { return Err("more of a body than was announced") };
        let have = body.received.len();
        let offset = usize::try_from(frame.offset).map_err(|_| "a body frame past the body's end")?;
        if offset > have {
            return Err("a gap in a request's body");
        }
        // A frame that was sent twice is harmless; only what is new of it counts.
        let new = frame.payload.get(have - offset..).unwrap_or_default();
        if have + new.len() > body.expected {
            return Err("more of a body than was announced");
        }
        body.received.extend_from_slice(new);
        if body.received.len() < body.expected {
            return if frame.last { Err("a body that ends before its announced length") } else { Ok(None) };
        }
        let whole = std::mem::take(&mut body.received).freeze();
        self.request_commitment = commitment(&self.request.salt, &whole);
        self.phase = Phase::Answer;
        Ok(Some(whole))
    }

    pub(super) fn ask(&self, body: Bytes, network: String) -> Ask {
        let request = &self.request;
        Ask {
            request: request.request,
            network,
            service: request.service.clone(),
            endpoint: request.endpoint,
            body,
            max_tokens: request.max_tokens,
            ids: request.ids,
            prefix: request.prefix,
            own: request.own,
            price: request.price,
            deadlines: request.deadlines,
        }
    }

    /// Takes a piece; ignored once the answer is being ended.
    pub(super) fn piece(&mut self, piece: Piece) {
        if self.finishing.is_none() && !self.ended {
            self.replay.push(piece.bytes);
            self.marks.push_back(Mark { end: self.replay.end(), usage: piece.usage, text: piece.text });
        }
    }

    pub(super) fn ended(&mut self) {
        self.ended = true;
    }

    /// Whether the answer has ended and every byte of it is sent.
    pub(super) fn is_sent(&self) -> bool {
        self.ended && self.sent == self.replay.end() && self.finishing.is_none()
    }

    /// The hub moved the window; whether that allows more than before.
    pub(super) fn add_credit(&mut self, offset: u64) -> Result<bool, &'static str> {
        if offset < self.credit {
            return Err("credit that falls");
        }
        if offset > self.sent.saturating_add(STREAM_WINDOW) {
            return Err("credit for bytes that were never sent");
        }
        if offset == self.credit {
            return Ok(false);
        }
        self.credit = offset;
        self.stalled = None;
        self.replay.forget(self.delivered());
        if self.finishing.is_none() {
            self.settle(self.delivered());
        }
        Ok(true)
    }

    /// The next frame that the window allows.
    pub(super) fn next_frame(&mut self) -> Option<Frame> {
        let end = self.finishing.map_or(self.replay.end(), |finish| finish.length).min(self.credit);
        let room = usize::try_from(end.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let payload = self.replay.at(self.sent, room.min(MAX_FRAME_PAYLOAD));
        if payload.is_empty() {
            return None;
        }
        let offset = self.sent;
        self.sent += payload.len() as u64;
        self.sent_once = self.sent_once.max(self.sent);
        Some(Frame { kind: Kind::Data, last: false, stream: self.request.stream, offset, payload })
    }

    /// Notes since when the window is shut.
    pub(super) fn note_stall(&mut self, now: Instant) {
        let shut = self.sent >= self.credit && !self.is_sent();
        self.stalled = if shut { self.stalled.or(Some(now)) } else { None };
    }

    /// When a shut window ends the stream.
    pub(super) fn stalled_until(&self) -> Option<Instant> {
        self.stalled.filter(|_| self.finishing.is_none()).map(|since| since + CREDIT_TIMEOUT)
    }

    /// Ends the answer at `length`; the first word counts.
    pub(super) fn finish(&mut self, length: Option<u64>) -> Finish {
        if let Some(finish) = self.finishing {
            return finish;
        }
        let length = length.unwrap_or(self.sent);
        self.settle(length);
        let finish =
            Finish { length, usage: self.settled_usage, response_commitment: self.settled.clone().finish() };
        self.finishing = Some(finish);
        self.marks.clear();
        finish
    }

    /// Everything that ends at or before `offset` is delivered.
    fn settle(&mut self, offset: u64) {
        while self.marks.front().is_some_and(|mark| mark.end <= offset) {
            if let Some(mark) = self.marks.pop_front() {
                self.settled.add(mark.text.as_bytes());
                self.settled_usage = mark.usage;
            }
        }
    }

    pub(super) fn statement(
        &self,
        finish: Finish,
        finished: Finished,
        node: PublicKey,
        hub: PublicKey,
    ) -> Statement {
        Statement {
            request: self.request.request,
            node,
            hub,
            artefact: finished.artefact,
            endpoint: self.request.endpoint,
            request_commitment: self.request_commitment,
            response_commitment: finish.response_commitment,
            outcome: finished.outcome,
            length: finish.length,
            joined: self.request.prefix.map_or(Joined::Single, |prefix| prefix.joined()),
            usage: finish.usage,
            started: finished.started,
            timings: finished.timings,
            energy: finished.energy,
        }
    }
}
