//! One node's try at one request: reads what comes, pins it, counts it, and says when it is over or no answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use idlewatt_hub_core::continuing::{Crossing, Seam, Told};
use idlewatt_hub_core::openai::{ApiError, Validated};
use idlewatt_hub_core::session::Most;
use idlewatt_hub_core::settle::{Delivered, Tally};
use idlewatt_protocol::limits::BETWEEN_TOKENS_TIMEOUT;
use idlewatt_protocol::message::{CancelReason, End, Endpoint, Outcome, RefusalCode};
use idlewatt_protocol::sse::{Event, Splitter};
use idlewatt_protocol::usage::Reading;
use idlewatt_protocol::{Digest, Joined, Price, Usage};
use tokio::sync::oneshot;

use super::begun::Part;
use super::ending::{done, write_usage};
use super::pin::{Pins, has_member};
use crate::hub::{Word, clock};
use crate::node::{Over, Received, Stream};
use crate::routing::Slot;

/// Largest answer in one JSON body, bytes: it is held whole, to be read before any of it goes on.
const MAX_WHOLE: usize = 16 * 1024 * 1024;

/// Largest error body of a model server that is looked at, bytes.
const MAX_ERROR: usize = 16 * 1024;

/// A request on its way through one node. Dropping it cancels what still runs.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) slot: Slot,
    pub(super) stream: Stream,
    /// Its statement, once; taken by the settlement.
    pub(super) statement: Option<oneshot::Receiver<Word>>,
    /// The session broke off: no statement will come in time.
    pub(super) is_lost: bool,
    pub(super) body_bytes: u64,
    pub(super) request_commitment: Digest,
    pub(super) most: Most,
    pub(super) price: Price,
    pub(super) tally: Tally,
    /// What this node delivered, to be gone on with elsewhere.
    pub(super) told: Told,
    /// Bytes of the node's answer that went on to the consumer, whole events.
    pub(super) delivered: u64,
    /// What came before, where this goes on with it.
    after: Option<After>,
    crossing: Crossing,
    pub(super) pins: Pins,
    started: Instant,
    /// The first piece must come within this.
    first_within: Duration,
    last: Instant,
    head: Option<(u16, bool)>,
    received: u64,
    /// Bytes of events that were read; those after `delivered` wait in `held`.
    read: u64,
    splitter: Splitter,
    held: BytesMut,
    /// The whole body of a JSON answer, or of an error.
    body: BytesMut,
    /// Something was generated, or the answer ended without: it may go out.
    is_open: bool,
    pub(super) is_finished: bool,
    is_done: bool,
    has_usage: bool,
    is_over: bool,
    /// Until when the node is waited for, while it is away.
    away: Option<Instant>,
    /// What the node said at its end.
    ended: Option<Usage>,
    /// What is wrong with the answer after what was handed over last.
    spoilt: Option<Failure>,
}

/// What one look at the inbox came to.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing to send yet.
    Waiting,
    /// Whole events for the consumer.
    Events(Bytes),
    /// The last bytes of a complete answer.
    Complete(Bytes),
    /// A stop string that began in an earlier part is whole: the answer ended there.
    Stopped,
    /// It is no answer, or it broke off.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ApiError,
    /// Whether another node may do better.
    pub(super) elsewhere: bool,
    /// Whether the node was only busy, and may be asked again.
    pub(super) busy: bool,
    /// How the receipt calls it, where something was delivered.
    pub(super) outcome: Outcome,
    /// What the node is told, where it still runs.
    pub(super) cancel: CancelReason,
}

impl Failure {
    fn new(message: &str, outcome: Outcome, cancel: CancelReason) -> Self {
        Self { error: ApiError::node_failed(message), elsewhere: true, busy: false, outcome, cancel }
    }

    fn malformed(what: &str) -> Self {
        Self::new(
            &format!("The node's answer cannot be used: {what}. Nothing of it is billed. Try again."),
            Outcome::Failed,
            CancelReason::Malformed,
        )
    }

    fn broken() -> Self {
        Self::new(
            "The node broke off. Only what reached you is billed. Try again.",
            Outcome::Failed,
            CancelReason::Malformed,
        )
    }
}

/// What was delivered before a part that goes on with it.
#[derive(Debug)]
pub(super) struct After {
    pub(super) joined: Joined,
    pub(super) seam: Seam,
    /// The first prompt, and the completions so far.
    pub(super) usage: Usage,
    /// Over the text of all parts.
    pub(super) whole: Tally,
}

pub(super) struct Opened {
    pub(super) slot: Slot,
    pub(super) stream: Stream,
    pub(super) statement: oneshot::Receiver<Word>,
    pub(super) body_bytes: u64,
    pub(super) request_commitment: Digest,
    pub(super) most: Most,
    pub(super) price: Price,
    pub(super) tally: Tally,
    pub(super) told: Told,
    pub(super) after: Option<After>,
    pub(super) pins: Pins,
    pub(super) first_within: Duration,
}

impl Attempt {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened {
            slot,
            stream,
            statement,
            body_bytes,
            request_commitment,
            most,
            price,
            tally,
            told,
            mut after,
            pins,
            first_within,
        } = opened;
        let crossing = after.as_mut().map_or(Crossing::Clear, |after| after.seam.take("", false));
        let now = clock();
        Self {
            slot,
            stream,
            statement: Some(statement),
            is_lost: false,
            body_bytes,
            request_commitment,
            most,
            price,
            tally,
            told,
            after,
            crossing,
            pins,
            delivered: 0,
            started: now,
            first_within,
            last: now,
            head: None,
            received: 0,
            read: 0,
            splitter: Splitter::default(),
            held: BytesMut::new(),
            body: BytesMut::new(),
            is_open: false,
            is_finished: false,
            is_done: false,
            has_usage: false,
            is_over: false,
            away: None,
            ended: None,
            spoilt: None,
        }
    }

    /// When this is given up unless something comes.
    pub(super) fn deadline(&self) -> Instant {
        match self.away {
            Some(until) => until,
            None if self.is_open => self.last + BETWEEN_TOKENS_TIMEOUT,
            None => self.started + self.first_within,
        }
    }

    /// Whether the node is lost or silent, and may come back.
    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// The node did not come back, or is not waited for.
    pub(super) fn lost(&mut self) -> Failure {
        self.is_lost = true;
        let lost = "The node's connection was lost. Only what reached you is billed. Try again.";
        Failure::new(lost, Outcome::Failed, CancelReason::Timeout)
    }

    pub(super) fn timed_out(&mut self) -> Failure {
        if self.is_away() {
            return self.lost();
        }
        let what = if self.is_open { "The node fell silent" } else { "The node did not begin to answer" };
        Failure::new(
            &format!("{what} in time. Only what reached you is billed. Try again."),
            Outcome::Failed,
            CancelReason::Timeout,
        )
    }

    /// What was found wrong while the bytes before it went out.
    pub(super) fn spoilt(&mut self) -> Option<Failure> {
        self.spoilt.take()
    }

    /// Takes in what came.
    pub(super) fn take(&mut self, received: Received, asked: &Validated) -> Progress {
        let progress = match received {
            Received::Head { status, streaming } => {
                self.last = clock();
                self.head = Some((status, streaming));
                if status == 200 && streaming != asked.stream {
                    Err(Failure::malformed("it is not in the form that was asked for"))
                } else {
                    Ok(Progress::Waiting)
                }
            }
            Received::Bytes(bytes) => self.bytes(&bytes, asked),
            Received::Away(wait) => {
                self.away = Some(clock() + wait);
                Ok(Progress::Waiting)
            }
            Received::Back => {
                self.away = None;
                self.last = clock();
                Ok(Progress::Waiting)
            }
            Received::Over(over) => {
                self.is_over = true;
                self.over(over, asked)
            }
        };
        progress.unwrap_or_else(Progress::Failed)
    }

    fn bytes(&mut self, bytes: &[u8], asked: &Validated) -> Result<Progress, Failure> {
        self.last = clock();
        self.received += bytes.len() as u64;
        // Whoever polls has drained what it got before: the node may send on.
        self.stream.consumed(self.received);
        let (status, streaming) = self.head.unwrap_or((200, asked.stream));
        if status != 200 || !streaming {
            let limit = if status == 200 { MAX_WHOLE } else { MAX_ERROR };
            if self.body.len() + bytes.len() > limit {
                return Err(Failure::malformed("it is too long for one JSON body"));
            }
            self.body.extend_from_slice(bytes);
            return Ok(Progress::Waiting);
        }
        self.splitter.push(bytes).map_err(|_| Failure::malformed("one of its events is over 1 MiB"))?;
        while let Some(event) = self.splitter.next_event() {
            if let Err(failure) = self.event(&event, asked) {
                // What is right before it is counted, so it goes out first; unless nothing did, when another node may do
                // better.
                if self.delivered == 0 || self.held.is_empty() {
                    return Err(failure);
                }
                self.spoilt = Some(failure);
                break;
            }
            self.read += event.raw.len() as u64;
        }
        if self.crossing == Crossing::Stop {
            return Ok(Progress::Stopped);
        }
        if !self.is_open || self.held.is_empty() || self.crossing == Crossing::Open {
            return Ok(Progress::Waiting);
        }
        Ok(Progress::Events(self.hand_over()))
    }

    fn event(&mut self, event: &Event, asked: &Validated) -> Result<(), Failure> {
        let Some(data) = &event.data else { return Ok(()) };
        if self.is_done {
            return Err(Failure::malformed("it goes on after its end"));
        }
        if event.is_done() {
            self.is_done = true;
            return Ok(());
        }
        let reading = Reading::of(data).ok_or_else(|| Failure::malformed("one of its events is not JSON"))?;
        if reading.error {
            return Err(Failure::broken());
        }
        let is_usage_only = reading.usage.is_some() && !reading.generated && reading.finish_reason.is_none();
        if is_usage_only && !asked.include_usage {
            return Ok(());
        }
        if let Some(after) = &mut self.after {
            // A second role, and the usage of one part.
            if !reading.generated && reading.finish_reason.is_none() {
                return Ok(());
            }
            if self.crossing == Crossing::Open {
                self.crossing = after.seam.take(&reading.text, reading.finish_reason.is_some());
            }
            if self.crossing == Crossing::Stop {
                return Ok(());
            }
            after.whole.piece(&reading, data.len());
        }
        let before = self.held.len();
        self.held.extend_from_slice(b"data: ");
        if self.pins.write(data, is_usage_only, &mut self.held).is_none() {
            self.held.truncate(before);
            return Err(Failure::malformed("one of its events is no JSON object"));
        }
        self.held.extend_from_slice(b"\n\n");
        self.tally.piece(&reading, data.len());
        self.told.piece(&reading);
        self.has_usage |= is_usage_only;
        self.is_finished |= reading.finish_reason.is_some();
        self.is_open |= reading.generated || reading.finish_reason.is_some();
        Ok(())
    }

    /// What is held goes on now, and counts as delivered.
    fn hand_over(&mut self) -> Bytes {
        if self.slot.first_token.is_none() {
            let took = clock().saturating_duration_since(self.started);
            self.slot.first_token = Some((took, self.body_bytes));
        }
        self.delivered = self.read;
        self.held.split().freeze()
    }

    fn over(&mut self, over: Over, asked: &Validated) -> Result<Progress, Failure> {
        let end = match over {
            Over::Ended(end) => end,
            Over::Refused(code) => return Err(refused(code)),
            Over::Lost => return Err(self.lost()),
        };
        self.ended = Some(end.usage);
        match end.outcome {
            Outcome::Complete => {}
            Outcome::Yielded => {
                let yielded =
                    "The node's host took the GPU back. Only what reached you is billed. Try again.";
                return Err(Failure::new(yielded, Outcome::Yielded, CancelReason::Malformed));
            }
            Outcome::Cancelled | Outcome::Failed => {
                return Err(self.server_error().unwrap_or_else(Failure::broken));
            }
        }
        if let Some(failure) = self.server_error() {
            return Err(failure);
        }
        if asked.stream { self.end_of_stream(&end, asked) } else { self.whole(&end, asked.endpoint) }
    }

    fn end_of_stream(&mut self, end: &End, asked: &Validated) -> Result<Progress, Failure> {
        if self.splitter.has_partial() || !(self.is_done || self.is_finished) {
            return Err(Failure::broken());
        }
        if asked.include_usage && !self.has_usage {
            let usage = self.after.as_ref().map_or(end.usage, |after| Usage {
                completion: after.usage.completion.saturating_add(end.usage.completion),
                ..after.usage
            });
            write_usage(&self.pins, asked.endpoint, usage, &mut self.held);
        }
        done(&mut self.held);
        Ok(Progress::Complete(self.hand_over()))
    }

    fn whole(&mut self, end: &End, endpoint: Endpoint) -> Result<Progress, Failure> {
        let body = std::mem::take(&mut self.body);
        let reading = Reading::of(&body).ok_or_else(|| Failure::malformed("it is not JSON"))?;
        let content = if endpoint == Endpoint::Embeddings { "data" } else { "choices" };
        if reading.error || !has_member(&body, content) {
            return Err(Failure::malformed("it holds no answer"));
        }
        if endpoint != Endpoint::Embeddings {
            self.tally.piece(&reading, body.len());
        }
        if !self.tally.can_hold(end.usage.completion) {
            return Err(Failure::malformed("it claims more tokens than it has bytes"));
        }
        let mut pinned = BytesMut::new();
        self.pins
            .write(&body, true, &mut pinned)
            .ok_or_else(|| Failure::malformed("it is no JSON object"))?;
        if endpoint == Endpoint::Embeddings {
            self.tally.whole(&pinned);
        }
        self.read = self.received;
        self.held = pinned;
        Ok(Progress::Complete(self.hand_over()))
    }

    /// What was delivered, for the settlement.
    pub(super) fn part(&mut self, endpoint: Endpoint) -> Part {
        let delivered = Delivered {
            endpoint,
            body_bytes: self.body_bytes,
            request_commitment: self.request_commitment,
            most: self.most,
            length: self.delivered,
            tally: self.tally.clone(),
            joined: self.after.as_ref().map_or(Joined::Single, |after| after.joined),
        };
        Part {
            node: self.slot.choice.node,
            artefact: self.slot.choice.offer.artefact.clone(),
            link: Arc::clone(&self.stream.link),
            is_lost: self.is_lost,
            statement: self.statement.take(),
            usage: self.ended.unwrap_or_else(|| delivered.counted()),
            delivered,
        }
    }

    /// Over the text of this part and all before it.
    pub(super) fn tally_of_all(&self) -> &Tally {
        self.after.as_ref().map_or(&self.tally, |after| &after.whole)
    }

    /// What a status other than 200 means; `None` for 200.
    fn server_error(&self) -> Option<Failure> {
        let (status, _) = self.head.filter(|(status, _)| *status != 200)?;
        if !(400..500).contains(&status) || matches!(status, 401 | 403 | 404 | 408 | 409 | 429) {
            return Some(Failure::new(
                &format!(
                    "The node's model server answered with status {status}. Nothing is billed. Try again."
                ),
                Outcome::Failed,
                CancelReason::Malformed,
            ));
        }
        let error = ApiError::refused_by_model_server(status, server_words(&self.body).as_deref());
        Some(Failure { elsewhere: false, error, ..Failure::broken() })
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_over {
            self.stream.cancel(self.delivered, CancelReason::Consumer);
        }
    }
}

/// A model server's own words, unless they may name a file or an address of the host's.
fn server_words(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let words = body.get("error")?.get("message")?.as_str()?;
    let is_plain = words.len() <= 300 && !words.contains(['/', '\\', '\n']) && !words.contains("://");
    is_plain.then(|| words.to_owned())
}

fn refused(code: RefusalCode) -> Failure {
    let failure = |message| Failure::new(message, Outcome::Failed, CancelReason::Malformed);
    match code {
        RefusalCode::Busy => Failure { busy: true, ..failure("The node is busy.") },
        RefusalCode::Context => Failure { error: ApiError::context_length_exceeded(), ..failure("") },
        RefusalCode::Paused => failure("The node stopped sharing. Try again."),
        RefusalCode::Service | RefusalCode::Limit | RefusalCode::Continuation => {
            failure("The node does not take this request. Try again.")
        }
        RefusalCode::Server => failure("The node's model server does not answer. Try again."),
    }
}
