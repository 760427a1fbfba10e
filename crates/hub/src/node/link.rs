//! One node, as the rest of the hub holds it: streams to open, messages to send, a session to end. It outlives its socket:
//! a node that comes back within [`RESUME_WINDOW`](idlewatt_protocol::limits::RESUME_WINDOW) takes its seat at the same
//! link, and what runs goes on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::session::{Breach, Most, Outgoing, Session};
use idlewatt_protocol::PublicKey;
use idlewatt_protocol::message::{
    CancelReason, HubMessage, Posted, Refuse, RefuseCode, Request, Resume, Resumed,
};
use tokio::sync::Notify;

use super::inbox::{Inbox, Over};
use super::outbox::{Out, Outbox};
use crate::hub::{clock, lock};

/// A node. The newest of its sockets has the seat.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) key: PublicKey,
    pub(crate) account: AccountName,
    pub(crate) agent: String,
    pub(super) state: Mutex<State>,
    /// The next tick is due earlier than it was.
    pub(super) sooner: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    /// The session of the socket that has the seat, or had it last.
    pub(super) epoch: u64,
    /// The oldest session whose streams may still run: its node may not have heard of a later one.
    first: u64,
    /// `None` once it is over for good.
    pub(super) session: Option<Session<Arc<Inbox>>>,
    /// `None` while the node is lost.
    pub(super) out: Option<Outbox>,
    pub(super) postings: Postings,
}

/// Postings go out in the order of their numbers, those of the past first.
#[derive(Debug, Default)]
pub(super) struct Postings {
    /// The next number to send; `None` while the past is still read.
    next: Option<u64>,
    early: BTreeMap<u64, Posted>,
}

/// One answer under way on a node.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) link: Arc<Link>,
    pub(crate) id: u32,
    pub(crate) inbox: Arc<Inbox>,
}

impl Link {
    pub(crate) fn new(key: PublicKey, account: AccountName, agent: String, epoch: u64, out: Outbox) -> Self {
        let state = State {
            epoch,
            first: epoch,
            session: Some(Session::new(clock())),
            out: Some(out),
            postings: Postings::default(),
        };
        Self { key, account, agent, state: Mutex::new(state), sooner: Notify::new() }
    }

    /// The session of the socket that has the seat, or had it last.
    pub(crate) fn epoch(&self) -> u64 {
        lock(&self.state).epoch
    }

    /// Whether a socket has the seat.
    pub(crate) fn is_connected(&self) -> bool {
        lock(&self.state).out.is_some()
    }

    /// The node is back with a newer session, whose socket `out` leads to: the streams that go on. `None` when the streams
    /// it names are not of this link, or it is over.
    ///
    /// # Errors
    /// When what it says of them cannot be; the link is as it was.
    pub(crate) fn resume(
        &self,
        epoch: u64,
        out: Outbox,
        resume: &Resume,
    ) -> Result<Option<Vec<Resumed>>, Breach> {
        let mut state = lock(&self.state);
        let is_ours = (state.first..=state.epoch).contains(&resume.epoch) && epoch > state.epoch;
        let Some(session) = state.session.as_mut().filter(|_| is_ours) else { return Ok(None) };
        let resumption = session.resume(clock(), &resume.streams)?;
        session.owners().for_each(|inbox| inbox.away(None));
        resumption.lost.iter().for_each(|inbox| inbox.over(Over::Lost));
        state.push(Out::Close(superseded()));
        state.epoch = epoch;
        state.out = Some(out);
        state.postings = Postings::default();
        for out in resumption.out {
            state.put(out);
        }
        drop(state);
        self.sooner.notify_one();
        Ok(Some(resumption.resumed))
    }

    /// Sends a request; `None` when the node is away, has too many streams, or takes too little of what it is sent.
    pub(crate) fn open(self: &Arc<Self>, request: Request, most: Most, body: &Bytes) -> Option<Stream> {
        let inbox = Arc::new(Inbox::default());
        let mut state = lock(&self.state);
        state.out.as_ref().filter(|out| !out.is_full())?;
        let session = state.session.as_mut()?;
        let was_idle = session.running() == 0;
        let (id, frames) = session.open(clock(), Arc::clone(&inbox), request, most, body)?;
        // Sent under the lock: frames of one stream must not be overtaken by its cancel.
        for frame in frames {
            state.put(frame);
        }
        drop(state);
        if was_idle {
            self.sooner.notify_one();
        }
        Some(Stream { link: Arc::clone(self), id, inbox })
    }

    /// Sends a message; lost when the node is.
    pub(crate) fn send(&self, message: &HubMessage) {
        lock(&self.state).send(message);
    }

    /// Ends the session for good: the node is told why, everyone who waits for it is told that it is lost.
    pub(crate) fn cut_off(&self, refuse: Refuse) {
        tracing::warn!(node = %self.key.short(), code = ?refuse.code, why = %refuse.message, "a session is cut off");
        let mut state = lock(&self.state);
        state.push(Out::Close(refuse));
        state.close();
    }

    /// A newer session takes over without this one's streams.
    pub(crate) fn supersede(&self) {
        let mut state = lock(&self.state);
        if state.session.is_some() {
            tracing::info!(node = %self.key.short(), "a newer session of this node took over");
        }
        state.push(Out::Close(superseded()));
        state.close();
    }

    /// A request of this node's was settled.
    pub(crate) fn posted(&self, posted: Posted) {
        let mut state = lock(&self.state);
        if state.postings.next.is_none_or(|next| posted.seq >= next) {
            state.postings.early.insert(posted.seq, posted);
        }
        state.send_in_order();
    }
}

fn superseded() -> Refuse {
    Refuse {
        code: RefuseCode::Superseded,
        message: "A newer session of this node took over. If that was not you, another machine uses this node's key."
            .into(),
    }
}

impl State {
    pub(super) fn send(&self, message: &HubMessage) {
        match serde_json::to_string(message) {
            Ok(text) => self.push(Out::Text(text)),
            Err(error) => tracing::error!(%error, "a message could not be written"),
        }
    }

    fn put(&self, out: Outgoing) {
        match out {
            Outgoing::Control(message) => self.send(&message),
            Outgoing::Body(frame) => self.push(Out::Binary(frame.encode())),
        }
    }

    pub(super) fn push(&self, out: Out) {
        if let Some(to) = &self.out {
            to.send(out);
        }
    }

    /// Everyone who waits for this session is told that it is lost.
    pub(super) fn close(&mut self) {
        self.out = None;
        if let Some(mut session) = self.session.take() {
            session.close().for_each(|inbox| inbox.over(Over::Lost));
        }
    }

    /// The past was sent up to `seq`: what was posted meanwhile, and will be, follows.
    pub(super) fn follow(&mut self, seq: u64) {
        let next = seq.saturating_add(1);
        self.postings.next = Some(next);
        self.postings.early = self.postings.early.split_off(&next);
        self.send_in_order();
    }

    fn send_in_order(&mut self) {
        while let Some(next) = self.postings.next
            && let Some(posted) = self.postings.early.remove(&next)
        {
            self.send(&HubMessage::Posted(posted));
            self.postings.next = Some(next + 1);
        }
    }
}

impl Stream {
    /// The consumer took everything up to `offset`.
    pub(crate) fn consumed(&self, offset: u64) {
        let mut state = lock(&self.link.state);
        let credit = state.session.as_mut().and_then(|session| session.consumed(self.id, offset));
        if let Some(credit) = credit {
            state.send(&credit);
        }
    }

    /// Stops it; nothing happens when it is over already. A node that is away is told when it comes back.
    pub(crate) fn cancel(&self, delivered: u64, reason: CancelReason) {
        let mut state = lock(&self.link.state);
        let cancel =
            state.session.as_mut().and_then(|session| session.cancel(clock(), self.id, delivered, reason));
        if let Some(cancel) = cancel {
            state.send(&cancel);
        }
    }
}
