//! One socket's seat at its node's link. Worth nothing once a newer socket of the node has it: every call says `None` then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use idlewatt_hub_core::session::{Breach, Due, Heard, Session};
use idlewatt_protocol::limits::RESUME_WINDOW;
use idlewatt_protocol::message::{HubMessage, Posted};
use tokio::sync::oneshot;

use super::inbox::Inbox;
use super::link::{Link, State};
use super::outbox::Out;
use crate::hub::{clock, lock};

/// A connection that was closed, rather than silent, is most often a program that is gone: one that lives dials again every
/// three seconds at most. So whoever waits for its answer, and for no other's, waits this long.
const CLOSED_WAIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) link: Arc<Link>,
    pub(crate) epoch: u64,
}

/// What remains of a seat whose socket is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing: a newer socket has it, or the session is over.
    Taken,
    /// Nobody waits for this node.
    Idle,
    /// Streams that run wait for the node to come back.
    Waiting,
}

impl Seat {
    fn with<R>(&self, act: impl FnOnce(&mut State) -> Option<R>) -> Option<R> {
        let mut state = lock(&self.link.state);
        if state.epoch == self.epoch { act(&mut state) } else { None }
    }

    /// Takes in what came; whether the node had been taken for away, and is not.
    fn hear(
        &self,
        act: impl FnOnce(&mut Session<Arc<Inbox>>) -> Result<(), Breach>,
    ) -> Option<Result<bool, Breach>> {
        self.with(|state| {
            let session = state.session.as_mut()?;
            let is_back = session.alive(clock());
            if is_back {
                session.owners().for_each(|inbox| inbox.away(None));
            }
            Some(act(session).map(|()| is_back))
        })
    }

    /// Takes in one text frame; as `hear`.
    pub(super) fn text(
        &self,
        text: &str,
        act: impl FnOnce(Heard<'_, Arc<Inbox>>),
    ) -> Option<Result<bool, Breach>> {
        self.hear(|session| session.text(text).map(act))
    }

    /// Takes in one binary frame; as `hear`.
    pub(super) fn binary(&self, bytes: &Bytes) -> Option<Result<bool, Breach>> {
        self.hear(|session| {
            if let Some((inbox, bytes)) = session.binary(bytes)?
                && !bytes.is_empty()
            {
                inbox.bytes(&bytes);
            }
            Ok(())
        })
    }

    /// Takes in a frame that carries nothing; as `hear`.
    pub(super) fn alive(&self) -> Option<Result<bool, Breach>> {
        self.hear(|_| Ok(()))
    }

    /// What is due now, and when to ask next.
    pub(super) fn tick(&self, now: Instant) -> Option<Result<(Due, Instant), Breach>> {
        self.with(|state| {
            let session = state.session.as_mut()?;
            let due = match session.tick(now) {
                Ok(due) => due,
                Err(breach) => return Some(Err(breach)),
            };
            let next = session.next_tick();
            if due == Due::Silent {
                session.owners().for_each(|inbox| inbox.away(Some(RESUME_WINDOW)));
            }
            if matches!(due, Due::Ping | Due::Silent) {
                state.push(Out::Ping);
            }
            Some(Ok((due, next)))
        })
    }

    /// Sends postings of the past, oldest first, and waits until they are on their way.
    pub(super) async fn replay(&self, past: Vec<Posted>) {
        let (mark, passed) = oneshot::channel();
        self.with(|state| {
            for posted in past {
                state.send(&HubMessage::Posted(posted));
            }
            state.push(Out::Mark(mark));
            Some(())
        });
        // Where the writer is gone, so is the seat.
        let _ = passed.await;
    }

    /// The past was sent up to `seq`: what was posted meanwhile, and will be, follows.
    pub(super) fn follow(&self, seq: u64) {
        self.with(|state| {
            state.follow(seq);
            Some(())
        });
    }

    /// The socket is gone: what runs waits for the node to come back.
    pub(crate) fn leave(&self) -> Left {
        let left = self.with(|state| {
            let session = state.session.as_ref()?;
            state.out = None;
            if session.running() == 0 {
                state.close();
                return Some(Left::Idle);
            }
            session.owners().for_each(|inbox| inbox.away(Some(CLOSED_WAIT)));
            Some(Left::Waiting)
        });
        left.unwrap_or(Left::Taken)
    }

    /// The node did not come back: whether it was still waited for.
    pub(crate) fn give_up(&self) -> bool {
        let gave_up = self.with(|state| {
            state.session.as_ref().filter(|_| state.out.is_none())?;
            state.close();
            Some(())
        });
        gave_up.is_some()
    }
}
