//! One connected node, as the rest of the hub holds it: streams to open, messages to send, a session to end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::session::{Breach, Due, Heard, Most, Outgoing, Session};
use idlewatt_protocol::PublicKey;
use idlewatt_protocol::message::{CancelReason, HubMessage, Posted, Refuse, Request};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::inbox::{Inbox, Over};
use crate::hub::{clock, lock};

/// What the socket's writer puts on the wire.
#[derive(Debug)]
pub(super) enum Out {
    Text(String),
    Binary(Bytes),
    Ping,
    /// Everything before it is to be on its way; then whoever waits is told.
    Mark(oneshot::Sender<()>),
    /// Says why and closes.
    Close(Refuse),
}

/// A node's session. The newest of a node is in the hub's table.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) key: PublicKey,
    pub(crate) account: AccountName,
    pub(crate) epoch: u64,
    pub(crate) agent: String,
    /// `None` once the session is over.
    session: Mutex<Option<Session<Arc<Inbox>>>>,
    postings: Mutex<Postings>,
    out: UnboundedSender<Out>,
}

/// Postings go out in the order of their numbers, those of the past first.
#[derive(Debug, Default)]
struct Postings {
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
    pub(super) fn new(
        key: PublicKey,
        account: AccountName,
        epoch: u64,
        agent: String,
        out: UnboundedSender<Out>,
    ) -> Self {
        Self {
            key,
            account,
            epoch,
            agent,
            session: Mutex::new(Some(Session::new(clock()))),
            postings: Mutex::default(),
            out,
        }
    }

    /// Sends a request; `None` when the session is over or has too many streams.
    pub(crate) fn open(self: &Arc<Self>, request: Request, most: Most, body: &Bytes) -> Option<Stream> {
        let inbox = Arc::new(Inbox::default());
        let mut session = lock(&self.session);
        let (id, frames) = session.as_mut()?.open(Arc::clone(&inbox), request, most, body)?;
        // Sent under the lock: frames of one stream must not be overtaken by its cancel.
        for frame in frames {
            match frame {
                Outgoing::Control(message) => self.send(&message),
                Outgoing::Body(frame) => self.push(Out::Binary(frame.encode())),
            }
        }
        drop(session);
        Some(Stream { link: Arc::clone(self), id, inbox })
    }

    pub(crate) fn send(&self, message: &HubMessage) {
        match serde_json::to_string(message) {
            Ok(text) => self.push(Out::Text(text)),
            Err(error) => tracing::error!(%error, "a message could not be written"),
        }
    }

    fn push(&self, out: Out) {
        // A writer that is gone has ended the session; its streams learn it from there.
        let _ = self.out.send(out);
    }

    /// Ends the session now: the node is told why, everyone who waits for it is told that it is lost.
    pub(crate) fn cut_off(&self, refuse: Refuse) {
        tracing::warn!(node = %self.key.short(), code = ?refuse.code, why = %refuse.message, "a session is cut off");
        self.push(Out::Close(refuse));
        self.close();
    }

    /// Everyone who waits for this session is told that it is lost.
    pub(super) fn close(&self) {
        if let Some(mut session) = lock(&self.session).take() {
            session.close().for_each(|inbox| inbox.over(Over::Lost));
        }
    }

    /// Takes in one text frame. `None` when the session is over.
    pub(super) fn text<R>(
        &self,
        text: &str,
        act: impl FnOnce(Heard<'_, Arc<Inbox>>) -> R,
    ) -> Option<Result<R, Breach>> {
        lock(&self.session).as_mut().map(|session| session.text(text).map(act))
    }

    /// Takes in one binary frame. `None` when the session is over.
    pub(super) fn binary(&self, bytes: &Bytes) -> Option<Result<(), Breach>> {
        lock(&self.session).as_mut().map(|session| {
            if let Some((inbox, bytes)) = session.binary(bytes)?
                && !bytes.is_empty()
            {
                inbox.bytes(&bytes);
            }
            Ok(())
        })
    }

    pub(super) fn alive(&self) {
        if let Some(session) = lock(&self.session).as_mut() {
            session.alive();
        }
    }

    /// What is due now, and when to ask next. `None` when the session is over.
    pub(super) fn tick(&self, now: Instant) -> Option<Result<(Due, Instant), Breach>> {
        lock(&self.session).as_mut().map(|session| {
            let due = session.tick(now)?;
            if due == Due::Ping {
                self.push(Out::Ping);
            }
            Ok((due, session.next_tick()))
        })
    }

    /// A request of this node's was settled.
    pub(crate) fn posted(&self, posted: Posted) {
        let mut postings = lock(&self.postings);
        if postings.next.is_none_or(|next| posted.seq >= next) {
            postings.early.insert(posted.seq, posted);
        }
        self.send_in_order(&mut postings);
    }

    /// Sends postings of the past, oldest first, and waits until they are on their way.
    pub(super) async fn replay(&self, past: Vec<Posted>) {
        for posted in past {
            self.send(&HubMessage::Posted(posted));
        }
        let (mark, passed) = oneshot::channel();
        self.push(Out::Mark(mark));
        // Where the writer is gone, so is the session.
        let _ = passed.await;
    }

    /// The past was sent up to `seq`: what was posted meanwhile, and will be, follows.
    pub(super) fn follow(&self, seq: u64) {
        let mut postings = lock(&self.postings);
        let next = seq.saturating_add(1);
        postings.next = Some(next);
        postings.early = postings.early.split_off(&next);
        self.send_in_order(&mut postings);
    }

    fn send_in_order(&self, postings: &mut Postings) {
        while let Some(next) = postings.next
            && let Some(posted) = postings.early.remove(&next)
        {
            self.send(&HubMessage::Posted(posted));
            postings.next = Some(next + 1);
        }
    }
}

impl Stream {
    /// The consumer took everything up to `offset`.
    pub(crate) fn consumed(&self, offset: u64) {
        let mut session = lock(&self.link.session);
        if let Some(credit) = session.as_mut().and_then(|session| session.consumed(self.id, offset)) {
            self.link.send(&credit);
        }
    }

    /// Stops it; nothing happens when it is over already.
    pub(crate) fn cancel(&self, delivered: u64, reason: CancelReason) {
        let mut session = lock(&self.link.session);
        let cancel = session.as_mut().and_then(|session| session.cancel(clock(), self.id, delivered, reason));
        if let Some(cancel) = cancel {
            self.link.send(&cancel);
        }
    }
}
