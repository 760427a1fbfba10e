//! What a hub may say, and what comes of it. Everything here may come from a hub that means ill.

use std::time::{Duration, Instant};

use idlewatt_protocol::PublicKey;
use idlewatt_protocol::continuation::ID_BYTES;
use idlewatt_protocol::handshake::NodeSide;
use idlewatt_protocol::limits::{MAX_PREFIX_BYTES, MAX_REQUEST_BODY, MAX_STREAMS};
use idlewatt_protocol::message::{Challenge, HubMessage, NodeMessage, Outcome, Posted, Request};

use super::stream::{Phase, Stream};
use super::{Closed, Effect, MAX_OPEN_BODIES, Session, Stage};
use crate::Now;

/// Text, and at most one token id for each byte of it.
const MAX_PREFIX: u64 = MAX_PREFIX_BYTES as u64 * (1 + ID_BYTES);

impl Session {
    pub(super) fn message(&mut self, message: HubMessage, now: &Now) {
        if let HubMessage::Refuse(refuse) = message {
            return self.close(Closed::Refused { code: refuse.code, message: refuse.message });
        }
        match (&self.stage, message) {
            (Stage::Challenge, HubMessage::Challenge(challenge)) => self.answer(challenge),
            (Stage::Welcome { challenge, hello }, HubMessage::Welcome(mut welcome)) => {
                match self.side().check_welcome(challenge, hello, &welcome) {
                    Ok(()) if !(1..=600).contains(&welcome.heartbeat_s) => {
                        self.breach("a heartbeat outside 1 to 600 seconds");
                    }
                    Ok(()) => {
                        let named = hello.resume.clone().map_or_else(Vec::new, |resume| resume.streams);
                        self.heartbeat = Duration::from_secs(welcome.heartbeat_s.into());
                        self.stage = Stage::In;
                        self.epoch = welcome.epoch;
                        let resumed = std::mem::take(&mut welcome.resumed);
                        self.effects.push_back(Effect::Welcomed(welcome));
                        if let Err(which) = self.take_up(&named, &resumed, now.monotonic) {
                            self.breach(which);
                        }
                    }
                    Err(distrust) => self.close(Closed::Distrusted(distrust)),
                }
            }
            (Stage::In, HubMessage::Request(request)) => self.request(request),
            (Stage::In, HubMessage::Credit { stream, offset }) => self.credit(stream, offset, now.monotonic),
            (Stage::In, HubMessage::Cancel { stream, delivered, .. }) => self.cancel(stream, delivered),
            (Stage::In, HubMessage::Posted(posted)) => self.posted(posted),
            (Stage::In, HubMessage::Void { request }) => {
                self.settled(request);
                self.effects.push_back(Effect::Void(request));
            }
            // What runs goes on; the hub closes when it stops, and the shell dials again.
            (Stage::In, HubMessage::Drain { .. }) => {}
            _ => self.breach("a message out of order"),
        }
    }

    fn side(&self) -> NodeSide<'_> {
        NodeSide {
            key: &self.intro.key,
            hub_key: self.intro.hub_key,
            token: self.intro.token.as_deref(),
            agent: &self.intro.agent,
            name: self.intro.name.as_deref(),
            posted_through: self.intro.posted_through,
            resume: self.resumes(),
        }
    }

    fn answer(&mut self, challenge: Challenge) {
        match self.side().answer(&challenge, self.intro.nonce) {
            Ok(hello) => {
                let hello = Box::new(hello);
                self.send(&NodeMessage::Hello(hello.clone()));
                self.stage = Stage::Welcome { challenge, hello };
            }
            Err(distrust) => self.close(Closed::Distrusted(distrust)),
        }
    }

    fn request(&mut self, request: Request) {
        let most = MAX_REQUEST_BODY as u64 + if request.prefix.is_some() { MAX_PREFIX } else { 0 };
        let length = usize::try_from(request.body_bytes).unwrap_or(usize::MAX);
        if length == 0 || request.body_bytes > most {
            return self.breach("a request whose body is empty or over 4 MiB");
        }
        if self.streams() >= MAX_STREAMS {
            return self.breach("more than 1024 streams");
        }
        let open_bodies = self.open_bodies + length;
        if open_bodies > MAX_OPEN_BODIES {
            return self.breach("more than 64 MiB of requests that have not come in full");
        }
        match self.numbered(request.stream) {
            Some((_, open)) if open.end().is_none() => return self.breach("a stream that is open already"),
            // The hub is done with the one that had this number.
            Some((_, ended)) => {
                let request = ended.request();
                self.settled(request);
            }
            None => {}
        }
        self.open_bodies = open_bodies;
        let id = self.next_stream;
        self.next_stream = id.wrapping_add(1);
        self.numbers.insert(request.stream, id);
        self.streams.insert(id, Stream::new(request, length));
    }

    fn numbered(&mut self, number: u32) -> Option<(u32, &mut Stream)> {
        let id = *self.numbers.get(&number)?;
        Some((id, self.streams.get_mut(&id)?))
    }

    fn credit(&mut self, number: u32, offset: u64, now: Instant) {
        // Credit for a stream that has just ended crosses its `end` on the wire.
        let Some((id, stream)) = self.numbered(number) else { return };
        match stream.add_credit(offset) {
            Err(why) => self.breach(why),
            Ok(false) => {}
            Ok(true) => {
                self.effects.push_back(Effect::Allow { stream: id, through: offset });
                self.pump(id, now);
            }
        }
    }

    fn cancel(&mut self, number: u32, delivered: u64) {
        let Some((id, stream)) = self.numbered(number).filter(|(_, it)| it.end().is_none()) else { return };
        if delivered > stream.sent() || delivered < stream.delivered() {
            return self.breach("a cancel at an offset that cannot be");
        }
        if let Phase::Body(body) = stream.phase() {
            let expected = body.expected;
            self.open_bodies = self.open_bodies.saturating_sub(expected);
            self.remove(id);
            self.end_empty(number);
        } else {
            self.finish(id, Some(Outcome::Cancelled), Some(delivered));
        }
    }

    fn posted(&mut self, posted: Posted) {
        if posted.seq <= self.posted_through {
            return;
        }
        if posted.seq != self.posted_through + 1 {
            // The hub replays from what the next hello names, so nothing is lost by starting again.
            return self.breach("a gap in the postings");
        }
        if !posted.is_borne_out(&PublicKey::from(&*self.intro.key), &self.intro.hub_key) {
            return self.breach("a posting that its receipt does not bear out");
        }
        self.settled(posted.request);
        self.posted_through = posted.seq;
        self.effects.push_back(Effect::Posted(posted));
    }
}
