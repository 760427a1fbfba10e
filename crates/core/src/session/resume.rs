//! A session that loses its connection: what runs goes on, and is taken up in the next one to the byte.
//!
//! Nothing rests on which control message still came through: each side says what it has, and the rest follows from that. An
//! answer that has ended is kept until the hub settled it, because its `end` may be what was lost.

use std::collections::VecDeque;
use std::time::Instant;

use idlewatt_protocol::limits::{MAX_STREAMS, RESUME_WINDOW};
use idlewatt_protocol::message::{End, NodeMessage, Outcome, Resume, ResumeStream, Resumed};
use idlewatt_protocol::{Nonce, RequestId, Usage};

use super::stream::Phase;
use super::{Effect, Session, Stage};
use crate::Now;

/// Ended answers that are kept, the newest; a hub settles them within moments.
const MAX_ENDED: usize = 256;

/// Answers that have ended and were not settled yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ended(VecDeque<(RequestId, u32, Instant)>);

impl Ended {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Session {
    /// A new connection has opened. `posted_through` is the last posting kept durably, `nonce` fresh random bytes.
    pub fn reopen(&mut self, nonce: Nonce, posted_through: u64, now: &Now) {
        self.intro.nonce = nonce;
        self.intro.token = None;
        self.posted_through = posted_through;
        self.intro.posted_through = posted_through;
        self.stage = Stage::Challenge;
        (self.opened, self.heard, self.clocks) = (now.monotonic, now.monotonic, (now.monotonic, now.wall));
        (self.offered, self.stated) = (None, None);
    }

    /// The connection is gone. Answers go on for [`RESUME_WINDOW`], as far as their replay reaches.
    pub fn lost(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Over) {
            return;
        }
        let was_in = self.is_in();
        self.stage = Stage::Over;
        if !was_in {
            return;
        }
        self.ended_before(now.checked_sub(RESUME_WINDOW));
        for (id, stream) in &mut self.streams {
            self.effects.push_back(Effect::Allow { stream: *id, through: stream.part() });
        }
        self.parted = (!self.streams.is_empty()).then(|| now + RESUME_WINDOW);
    }

    /// Ends every answer as failed, with what is known to be delivered: no connection takes them up any more.
    pub fn give_up(&mut self) {
        self.parted = None;
        self.drop_all(Outcome::Failed, &[]);
    }

    /// What is left of the lost session.
    pub(super) fn resumes(&self) -> Option<Resume> {
        let mut streams: Vec<ResumeStream> = self
            .streams
            .values()
            .filter(|it| !it.is_dropped())
            .map(|it| ResumeStream { stream: it.number(), body: it.received() })
            .collect();
        streams.sort_unstable_by_key(|it| it.stream);
        streams.truncate(MAX_STREAMS);
        (!streams.is_empty()).then_some(Resume { epoch: self.epoch, streams })
    }

    /// The hub takes up these streams, and no others. `named` are those that the hello offered: one that ended, was refused or
    /// ran out of its minute since is ended for the hub where it stands, and the others go on.
    pub(super) fn take_up(
        &mut self,
        named: &[ResumeStream],
        resumed: &[Resumed],
        now: Instant,
    ) -> Result<(), &'static str> {
        self.parted = None;
        if !resumed.iter().all(|it| named.iter().any(|named| named.stream == it.stream)) {
            return Err("a stream resumed that was not offered");
        }
        let known = |it: &Resumed| self.numbers.get(&it.stream).copied();
        let ids: Vec<Option<u32>> = resumed.iter().map(known).collect();
        self.drop_all(Outcome::Cancelled, &ids.iter().flatten().copied().collect::<Vec<_>>());
        for (id, it) in ids.into_iter().zip(resumed) {
            let Some((id, stream)) = id.and_then(|id| Some((id, self.streams.get_mut(&id)?))) else {
                self.end_as_failed(it);
                continue;
            };
            stream.resume(it)?;
            let (through, head, end) = (stream.credit(), stream.head(), stream.end().cloned());
            if !it.has_head
                && let Some(head) = head
            {
                self.send_head(it.stream, head);
            }
            self.effects.push_back(Effect::Allow { stream: id, through });
            self.pump(id, now);
            if let Some(end) = end {
                self.send(&NodeMessage::End(end));
            }
        }
        Ok(())
    }

    /// Ends a stream that is no longer there, at what the hub has of it: what is to be paid, a statement says.
    fn end_as_failed(&mut self, gone: &Resumed) {
        let (stream, length) = (gone.stream, gone.offset);
        let end = End { stream, outcome: Outcome::Failed, length, usage: Usage::NONE, message: None };
        self.send(&NodeMessage::End(end));
    }

    /// An answer has ended, and its `end` was said or waits to be.
    pub(super) fn keep_ended(&mut self, stream: u32, request: RequestId, now: Instant) {
        self.ended.0.push_back((request, stream, now));
        self.ended_before(now.checked_sub(RESUME_WINDOW));
        while self.ended.0.len() > MAX_ENDED {
            self.forget_oldest();
        }
    }

    /// A request is settled: nothing of it is asked for again.
    pub(super) fn settled(&mut self, request: RequestId) {
        if let Some(at) = self.ended.0.iter().position(|(it, ..)| *it == request)
            && let Some((_, stream, _)) = self.ended.0.remove(at)
        {
            self.remove(stream);
        }
    }

    fn ended_before(&mut self, moment: Option<Instant>) {
        while self.ended.0.front().is_some_and(|(_, _, at)| Some(*at) < moment) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, stream, _)) = self.ended.0.pop_front() {
            self.remove(stream);
        }
    }

    /// Drops all streams but these: those that run are ended with what is known to be delivered.
    fn drop_all(&mut self, outcome: Outcome, but: &[u32]) {
        let dropped: Vec<u32> = self.streams.keys().filter(|id| !but.contains(id)).copied().collect();
        for id in dropped {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.end().is_some() {
                self.remove(id);
                self.ended.0.retain(|(_, stream, _)| *stream != id);
            } else if let Phase::Body(body) = stream.phase() {
                self.open_bodies = self.open_bodies.saturating_sub(body.expected);
                self.remove(id);
            } else {
                stream.drop_it();
                let number = stream.number();
                // One that was dropped before may have had the same number.
                if self.numbers.get(&number) == Some(&id) {
                    self.numbers.remove(&number);
                }
                self.finish(id, Some(outcome), None);
            }
        }
    }
}
