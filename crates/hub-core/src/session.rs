//! The hub's side of one node session, as a pure machine: frames and time in, meaning or a [`Breach`] out.
//!
//! The machine keeps the table of streams and holds a node to the protocol: order within a stream, exact offsets, credit,
//! sizes, counts and heartbeats. It trusts nothing that a node says and keeps no bytes. Whoever owns a stream (a waiting
//! consumer) is the type parameter `T`, which the machine carries and never looks into.
//!
//! A session outlives its socket: what is lost with one is found again from absolute positions ([`resume`](Session::resume)).
//!
//! Not here: sockets and storage (the hub's shell), whether a statement is believed ([`crate::settle`]), and which node
//! gets a request ([`crate::routing`]).

mod heartbeat;
mod resume;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::limits::{
    CREDIT_TIMEOUT, MAX_BATCH, MAX_CONTROL_BYTES, MAX_FRAME_PAYLOAD, MAX_RESPONSE_BODY, MAX_SERVICES,
    MAX_STREAMS, STREAM_WINDOW,
};
use idlewatt_protocol::message::{
    CancelReason, End, HubMessage, NodeMessage, Outcome, RefusalCode, Refuse, RefuseCode, Request, State,
};
use idlewatt_protocol::receipt::Envelope;
use idlewatt_protocol::{ServiceOffer, UnixMillis, Usage};

use heartbeat::Heartbeat;

pub use heartbeat::{Due, WATCH};
pub use resume::Resumption;

/// A cancelled stream whose node sends no `end` for this long is a breach: its slot would be lost for good.
pub const CANCEL_GRACE: Duration = CREDIT_TIMEOUT;

/// A credit message is worth its bytes once this much of the window is free again.
const CREDIT_STEP: u64 = STREAM_WINDOW / 4;

/// What a node did that the protocol forbids: the sentence names the limit. The session ends with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Breach(pub String);

impl Breach {
    /// The last message that this node gets.
    #[must_use]
    pub fn refuse(&self) -> Refuse {
        Refuse {
            code: RefuseCode::Protocol,
            message: format!("The hub ended this session: {}. Update the node's program.", self.0),
        }
    }
}

fn breach<T>(what: impl Into<String>) -> Result<T, Breach> {
    Err(Breach(what.into()))
}

/// One thing to put on the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// A text frame.
    Control(HubMessage),
    /// A binary frame.
    Body(Frame),
}

/// What a text frame meant. Owners come back by reference while the stream runs and by value when it is over.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a, T> {
    /// Everything the node offers now.
    Offer(Vec<ServiceOffer>),
    /// Whether it takes work.
    State(State),
    /// An answer begins.
    Head {
        /// Who waits for it.
        owner: &'a T,
        /// The model server's HTTP status.
        status: u16,
        /// Whether events follow rather than one JSON body.
        streaming: bool,
    },
    /// An answer is over.
    Ended {
        /// Who waited for it.
        owner: T,
        /// How it ended; length and counts are within this stream's bounds.
        end: End,
    },
    /// The request was not taken.
    Refused {
        /// Who waits.
        owner: T,
        /// Why.
        code: RefusalCode,
    },
    /// Signed statements, none of them checked yet.
    Statements(Vec<Envelope>),
    /// The host took the GPU back: nothing new until the next `state`.
    Yield,
    /// The node stops soon: nothing new.
    Drain {
        /// When.
        by: UnixMillis,
    },
}

#[derive(Debug)]
struct Stream<T> {
    owner: T,
    most: Most,
    /// The request's body until the head comes, to send what of it is lost with a socket again.
    body: Bytes,
    body_bytes: u64,
    has_head: bool,
    /// The node marked its last frame.
    is_full: bool,
    received: u64,
    credit: u64,
    cancelled: Option<Cancelled>,
}

#[derive(Clone, Copy, Debug)]
struct Cancelled {
    delivered: u64,
    reason: CancelReason,
    at: Instant,
}

/// The table of one node's streams, and its heartbeat.
#[derive(Debug)]
pub struct Session<T> {
    streams: HashMap<u32, Stream<T>>,
    next_stream: u32,
    heartbeat: Heartbeat,
}

impl<T> Session<T> {
    /// A session whose handshake has just ended.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { streams: HashMap::new(), next_stream: 1, heartbeat: Heartbeat::new(now, false) }
    }

    /// Streams that run now, cancelled ones included until their `end`.
    #[must_use]
    pub fn running(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream for `owner`. `request.stream` and `request.body_bytes` are filled in here. `None` when the node
    /// already has [`MAX_STREAMS`]. The next tick may be due earlier afterwards.
    pub fn open(
        &mut self,
        now: Instant,
        owner: T,
        mut request: Request,
        most: Most,
        body: &Bytes,
    ) -> Option<(u32, Vec<Outgoing>)> {
        if self.streams.len() >= MAX_STREAMS {
            return None;
        }
        while self.streams.contains_key(&self.next_stream) {
            self.next_stream = self.next_stream.wrapping_add(1);
        }
        let stream = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(1);
        request.stream = stream;
        request.body_bytes = body.len() as u64;
        self.streams.insert(
            stream,
            Stream {
                owner,
                most,
                body: body.clone(),
                body_bytes: body.len() as u64,
                has_head: false,
                is_full: false,
                received: 0,
                credit: STREAM_WINDOW,
                cancelled: None,
            },
        );
        let mut out = Vec::with_capacity(2 + body.len() / MAX_FRAME_PAYLOAD);
        out.push(Outgoing::Control(HubMessage::Request(request)));
        out.extend(body_frames(stream, body, 0));
        self.heartbeat.watch(now);
        Some((stream, out))
    }

    /// The consumer took everything up to `offset`: the credit to send, when it is worth a message.
    pub fn consumed(&mut self, stream: u32, offset: u64) -> Option<HubMessage> {
        let open = self.streams.get_mut(&stream).filter(|open| open.cancelled.is_none())?;
        let credit = offset.min(open.received) + STREAM_WINDOW;
        if credit < open.credit + CREDIT_STEP {
            return None;
        }
        open.credit = credit;
        Some(HubMessage::Credit { stream, offset: credit })
    }

    /// Stops a stream of which `delivered` bytes reached the consumer; `None` when it is already over. What still comes
    /// of it is checked and dropped.
    pub fn cancel(
        &mut self,
        now: Instant,
        stream: u32,
        delivered: u64,
        reason: CancelReason,
    ) -> Option<HubMessage> {
        let open = self.streams.get_mut(&stream).filter(|open| open.cancelled.is_none())?;
        let delivered = delivered.min(open.received);
        open.cancelled = Some(Cancelled { delivered, reason, at: now });
        Some(HubMessage::Cancel { stream, delivered, reason })
    }

    /// The session is over: everyone who still waits.
    pub fn close(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.streams.drain().map(|(_, stream)| stream.owner)
    }

    /// Something came, whatever it is: to be said before it is taken in. Whether the node had been taken for away.
    pub fn alive(&mut self, now: Instant) -> bool {
        let was_silent = self.heartbeat.heard();
        if was_silent {
            // It could not hear a cancel either.
            self.streams.values_mut().filter_map(|open| open.cancelled.as_mut()).for_each(|it| it.at = now);
        }
        was_silent
    }

    /// Everyone who waits.
    pub fn owners(&self) -> impl Iterator<Item = &T> {
        self.streams.values().map(|stream| &stream.owner)
    }

    /// When [`tick`](Self::tick) wants to be called next.
    #[must_use]
    pub fn next_tick(&self) -> Instant {
        self.heartbeat.next()
    }

    /// What is due now.
    ///
    /// # Errors
    /// When a node that is there never ended a cancelled stream.
    pub fn tick(&mut self, now: Instant) -> Result<Due, Breach> {
        let due = self.heartbeat.tick(now, !self.streams.is_empty());
        if due == Due::Ping && !self.heartbeat.is_silent() {
            let overdue = |open: &Stream<T>| {
                open.cancelled.is_some_and(|cancelled| now.duration_since(cancelled.at) > CANCEL_GRACE)
            };
            if let Some((stream, _)) = self.streams.iter().find(|(_, open)| overdue(open)) {
                return breach(format!(
                    "stream {stream} was cancelled and not ended within {CANCEL_GRACE:?}"
                ));
            }
        }
        Ok(due)
    }

    /// A binary frame: to whom which bytes go, or `None` for bytes of a cancelled stream.
    ///
    /// # Errors
    /// When the frame is malformed, of a stream the node does not own, out of order, out of place or past a limit.
    pub fn binary(&mut self, bytes: &Bytes) -> Result<Option<(&T, Bytes)>, Breach> {
        let frame = Frame::decode(bytes).map_err(|error| Breach(error.to_string()))?;
        let (stream, length) = (frame.stream, frame.payload.len() as u64);
        if frame.kind != Kind::Data {
            return breach("a node sends no request bodies");
        }
        let Some(open) = self.streams.get_mut(&stream) else {
            return breach(format!("data for stream {stream}, which is not open"));
        };
        if !open.has_head {
            return breach(format!("data of stream {stream} before its head"));
        }
        if open.is_full {
            return breach(format!("data of stream {stream} after its last frame"));
        }
        if frame.offset != open.received {
            return breach(format!(
                "data of stream {stream} at offset {}, where {} was next",
                frame.offset, open.received
            ));
        }
        if length == 0 && !frame.last {
            return breach(format!("an empty frame of stream {stream}"));
        }
        let received = open.received + length;
        if received > open.credit {
            return breach(format!(
                "stream {stream} reached byte {received} with a credit of {}",
                open.credit
            ));
        }
        if received > MAX_RESPONSE_BODY {
            return breach(format!(
                "stream {stream} passed the limit of {MAX_RESPONSE_BODY} bytes an answer"
            ));
        }
        open.received = received;
        open.is_full = frame.last;
        Ok(open.cancelled.is_none().then_some((&open.owner, frame.payload)))
    }

    /// A text frame.
    ///
    /// # Errors
    /// When it is no message of this protocol, out of order, about a stream the node does not own, or past a limit.
    pub fn text(&mut self, text: &str) -> Result<Heard<'_, T>, Breach> {
        if text.len() > MAX_CONTROL_BYTES {
            return breach(format!(
                "a message of {} bytes is over the limit of {MAX_CONTROL_BYTES}",
                text.len()
            ));
        }
        // Where, never what: the parser's own words may repeat what the frame holds, and a breach is logged.
        let message: NodeMessage = serde_json::from_str(text).map_err(|error| {
            Breach(format!("a text frame is no message of this protocol (column {})", error.column()))
        })?;
        match message {
            NodeMessage::Hello(_) => breach("a second hello"),
            NodeMessage::Offer { services } => offer(services).map(Heard::Offer),
            NodeMessage::State(state) => Ok(Heard::State(state)),
            NodeMessage::Head { stream, status, streaming } => {
                let Some(open) = self.streams.get_mut(&stream) else {
                    return breach(format!("a head for stream {stream}, which is not open"));
                };
                if open.has_head {
                    return breach(format!("a second head of stream {stream}"));
                }
                if !(200..=599).contains(&status) {
                    return breach(format!("status {status} is no HTTP status of an answer"));
                }
                open.has_head = true;
                open.body = Bytes::new();
                Ok(Heard::Head { owner: &open.owner, status, streaming })
            }
            NodeMessage::End(end) => self.end(end),
            NodeMessage::Refused { stream, code } => {
                let Entry::Occupied(open) = self.streams.entry(stream) else {
                    return breach(format!("stream {stream}, which is not open, is refused"));
                };
                if open.get().has_head {
                    return breach(format!("stream {stream} is refused after its head"));
                }
                Ok(Heard::Refused { owner: open.remove().owner, code })
            }
            NodeMessage::Statements { statements } if statements.len() > MAX_BATCH => {
                breach(format!("{} statements at once, the limit is {MAX_BATCH}", statements.len()))
            }
            NodeMessage::Statements { statements } => Ok(Heard::Statements(statements)),
            NodeMessage::Yield => Ok(Heard::Yield),
            NodeMessage::Drain { by } => Ok(Heard::Drain { by }),
        }
    }

    fn end(&mut self, end: End) -> Result<Heard<'_, T>, Breach> {
        let Entry::Occupied(entry) = self.streams.entry(end.stream) else {
            return breach(format!("an end of stream {}, which is not open", end.stream));
        };
        // Removed only once it is found right: after a breach everyone who waits is still in the table.
        let open = entry.get();
        let is_cut = open.cancelled.is_some_and(|cancelled| cancelled.delivered == end.length);
        if end.length != open.received && !is_cut {
            return breach(format!(
                "stream {} ended at {} bytes after {} were sent",
                end.stream, end.length, open.received
            ));
        }
        if end.outcome == Outcome::Complete && !open.has_head {
            return breach(format!("stream {} ended complete without a head", end.stream));
        }
        open.most.holds(end.usage)?;
        Ok(Heard::Ended { owner: entry.remove().owner, end })
    }
}

/// The frames of a body from `offset` on, at least one.
fn body_frames(stream: u32, body: &Bytes, offset: u64) -> Vec<Outgoing> {
    let skip = usize::try_from(offset).unwrap_or(usize::MAX).min(body.len());
    let mut rest = body.slice(skip..);
    let mut offset = skip as u64;
    let mut frames = Vec::with_capacity(1 + rest.len() / MAX_FRAME_PAYLOAD);
    loop {
        let payload = rest.split_to(rest.len().min(MAX_FRAME_PAYLOAD));
        let (at, last) = (offset, rest.is_empty());
        offset += payload.len() as u64;
        frames.push(Outgoing::Body(Frame { kind: Kind::Body, last, stream, offset: at, payload }));
        if last {
            return frames;
        }
    }
}

/// The most tokens that an answer can be billed for; the reservation covers exactly these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// One a body byte and [`TEMPLATE_ALLOWANCE`](idlewatt_protocol::limits::TEMPLATE_ALLOWANCE), at most the context.
    pub prompt: u32,
    /// `max_tokens`; none for an embedding.
    pub completion: u32,
}

impl Most {
    /// Holds a claimed usage to this.
    ///
    /// # Errors
    /// When it claims more.
    pub fn holds(self, usage: Usage) -> Result<(), Breach> {
        let Self { prompt, completion } = self;
        if usage.prompt > prompt {
            return breach(format!("{} prompt tokens claimed, this request can have {prompt}", usage.prompt));
        }
        if usage.completion > completion {
            return breach(format!(
                "{} completion tokens claimed, {completion} were allowed",
                usage.completion
            ));
        }
        Ok(())
    }
}

fn offer(services: Vec<ServiceOffer>) -> Result<Vec<ServiceOffer>, Breach> {
    if services.len() > MAX_SERVICES {
        return breach(format!("{} services offered, the limit is {MAX_SERVICES}", services.len()));
    }
    let mut names = HashSet::with_capacity(services.len());
    for service in &services {
        if let Some(limit) = service.breach() {
            return breach(format!("an offer breaks a limit: {limit}"));
        }
        if !names.insert(service.service.as_str()) {
            return breach("two services of one offer share a name");
        }
    }
    Ok(services)
}

#[cfg(test)]
mod tests;
