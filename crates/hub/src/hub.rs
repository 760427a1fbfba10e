//! What every part of a running hub shares: the store, who is connected, and what is being answered.
//!
//! Locks are held for table look-ups only, never across an await.

use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::session::Breach;
use idlewatt_protocol::message::{HubMessage, Refuse, RefuseCode, Resume, Resumed};
use idlewatt_protocol::receipt::{Envelope, Statement};
use idlewatt_protocol::{PublicKey, RequestId, UnixMillis};
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::doors::Addresses;
use crate::metrics::Metrics;
use crate::node::{Left, Link, Outbox, Seat};
use crate::routing::Routing;
use crate::store::{Settled, Store};

/// A running hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) store: Store,
    /// The public half of the store's key.
    pub(crate) key: PublicKey,
    /// What nodes call it.
    pub(crate) name: String,
    /// Where it is to be found; changes when this machine's own addresses do.
    addresses: Mutex<Addresses>,
    pub(crate) metrics: Metrics,
    pub(crate) started: Instant,
    /// Answers and settlements under way: a drain waits for them.
    pub(crate) tasks: TaskTracker,
    routing: Mutex<Routing>,
    /// Under which beginnings of conversations are recognised; drawn anew at each start.
    pub(crate) fingerprint_key: RandomState,
    links: Mutex<HashMap<PublicKey, Arc<Link>>>,
    open: Mutex<HashMap<RequestId, Open>>,
    /// A request is over.
    closed: Notify,
    draining: AtomicBool,
}

/// A node whose handshake has ended.
#[derive(Debug)]
pub(crate) struct Entering {
    pub(crate) node: PublicKey,
    pub(crate) account: AccountName,
    pub(crate) agent: String,
    pub(crate) epoch: u64,
    pub(crate) out: Outbox,
    pub(crate) resume: Option<Resume>,
}

/// A request between admission and settlement.
#[derive(Debug)]
struct Open {
    account: AccountName,
    /// Who answers it or answered a part, each with where its statement goes.
    nodes: Vec<(PublicKey, Option<oneshot::Sender<Word>>)>,
    /// Cancelled once it is settled or void.
    over: CancellationToken,
}

/// A statement as it came, with what it says; or what its node did wrong, for which it is paid nothing.
pub(crate) type Word = Result<(Envelope, Statement), Breach>;

impl Hub {
    pub(crate) fn new(store: Store, name: String, addresses: Addresses) -> Self {
        let mut routing = Routing::default();
        routing.router.know(Arc::clone(&store.directory().borrow()));
        Self {
            key: PublicKey::from(store.hub_key()),
            store,
            name,
            addresses: Mutex::new(addresses),
            metrics: Metrics::default(),
            started: Instant::now(),
            tasks: TaskTracker::new(),
            routing: Mutex::new(routing),
            fingerprint_key: RandomState::new(),
            links: Mutex::default(),
            open: Mutex::default(),
            closed: Notify::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Its addresses, best first, for a node that is on this machine or elsewhere.
    pub(crate) fn urls(&self, is_near: bool) -> Vec<Url> {
        lock(&self.addresses).told(is_near)
    }

    /// Whether it is found elsewhere than before.
    pub(crate) fn found_at(&self, addresses: Addresses) -> bool {
        let before = std::mem::replace(&mut *lock(&self.addresses), addresses.clone());
        before != addresses
    }

    pub(crate) fn routing(&self) -> MutexGuard<'_, Routing> {
        lock(&self.routing)
    }

    pub(crate) fn link(&self, node: &PublicKey) -> Option<Arc<Link>> {
        lock(&self.links).get(node).cloned()
    }

    /// Whether a node that once joined is not connected.
    pub(crate) fn has_absent_nodes(&self) -> bool {
        let links = lock(&self.links);
        self.store.nodes().iter().any(|node| !links.get(&node.node).is_some_and(|link| link.is_connected()))
    }

    /// A node is in: takes the seat at its link where it resumes, or gets a new link in the place of the old one.
    ///
    /// # Errors
    /// Why not: a newer session is there already, or it resumes what cannot be.
    pub(crate) fn enter(&self, entering: Entering) -> Result<(Seat, Vec<Resumed>), Refuse> {
        let Entering { node, account, agent, epoch, out, resume } = entering;
        let mut links = lock(&self.links);
        let before = links.get(&node).cloned();
        if before.as_ref().is_some_and(|before| before.epoch() > epoch) {
            return Err(Refuse {
                code: RefuseCode::Superseded,
                message: "A newer session of this node is connected already.".into(),
            });
        }
        if let Some(resume) = resume
            && let Some(link) = before.as_ref().filter(|link| link.account == account)
        {
            match link.resume(epoch, out.clone(), &resume) {
                Ok(Some(resumed)) => {
                    let link = Arc::clone(link);
                    self.route(|routing| routing.join(node, account));
                    return Ok((Seat { link, epoch }, resumed));
                }
                Ok(None) => {}
                Err(breach) => {
                    drop(links);
                    self.cut_off(link, &breach);
                    return Err(breach.refuse());
                }
            }
        }
        let link = Arc::new(Link::new(node, account.clone(), agent, epoch, out));
        links.insert(node, Arc::clone(&link));
        self.route(|routing| routing.join(node, account));
        drop(links);
        if let Some(before) = before {
            before.supersede();
        }
        Ok((Seat { link, epoch }, Vec::new()))
    }

    /// A node's socket is gone. Whether streams wait for it to come back.
    pub(crate) fn leave(&self, seat: &Seat) -> bool {
        let mut links = lock(&self.links);
        let left = seat.leave();
        if links.get(&seat.link.key).is_some_and(|link| link.epoch() == seat.epoch) {
            if left != Left::Waiting {
                links.remove(&seat.link.key);
            }
            self.route(|routing| routing.leave(&seat.link.key));
            drop(links);
            self.store.left(seat.link.key);
        }
        left == Left::Waiting
    }

    /// A node that was waited for did not come back to this seat; it may be back with a new link all the same.
    pub(crate) fn give_up(&self, seat: &Seat) {
        let mut links = lock(&self.links);
        if seat.give_up() && links.get(&seat.link.key).is_some_and(|link| Arc::ptr_eq(link, &seat.link)) {
            links.remove(&seat.link.key);
        }
    }

    /// A request is admitted; until [`close`](Self::close) its statements are waited for rather than void.
    pub(crate) fn admit(&self, request: RequestId, account: AccountName) {
        let open = Open { account, nodes: Vec::new(), over: CancellationToken::new() };
        lock(&self.open).insert(request, open);
    }

    /// `node` answers this request now: its statement is what comes out.
    pub(crate) fn expect(&self, request: RequestId, node: PublicKey) -> oneshot::Receiver<Word> {
        let (tx, rx) = oneshot::channel();
        if let Some(open) = lock(&self.open).get_mut(&request) {
            open.nodes.retain(|(other, _)| *other != node);
            open.nodes.push((node, Some(tx)));
        }
        rx
    }

    /// This node delivered nothing of the request, so no statement of it is waited for.
    pub(crate) fn expect_nothing(&self, request: RequestId, from: &PublicKey) {
        if let Some(open) = lock(&self.open).get_mut(&request) {
            open.nodes.retain(|(node, _)| node != from);
        }
    }

    /// Whether this statement was waited for. One that is not is about a request that is settled, or void.
    pub(crate) fn take_statement(&self, from: &PublicKey, envelope: Envelope, statement: Statement) -> bool {
        let mut requests = lock(&self.open);
        let Some(open) = requests.get_mut(&statement.request) else { return false };
        match open.nodes.iter_mut().find(|(node, _)| node == from) {
            Some((_, tx)) => {
                if let Some(tx) = tx.take() {
                    // Whoever waited may have given up; then the request is being settled without it.
                    let _ = tx.send(Ok((envelope, statement)));
                }
                true
            }
            None => false,
        }
    }

    /// Ends the session of a node that broke the protocol: nothing of it that is not settled yet is paid.
    pub(crate) fn cut_off(&self, link: &Link, breach: &Breach) {
        self.metrics.breaches.add(1);
        for open in lock(&self.open).values_mut() {
            for (node, tx) in &mut open.nodes {
                if *node == link.key
                    && let Some(tx) = tx.take()
                {
                    let _ = tx.send(Err(breach.clone()));
                }
            }
        }
        link.cut_off(breach.refuse());
    }

    /// A request is settled, or void.
    pub(crate) fn close(&self, request: RequestId) {
        if let Some(open) = lock(&self.open).remove(&request) {
            open.over.cancel();
            self.closed.notify_waiters();
        }
    }

    /// Waits until no request is between admission and settlement.
    pub(crate) async fn idle(&self) {
        loop {
            let mut closed = std::pin::pin!(self.closed.notified());
            closed.as_mut().enable();
            if self.under_way() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// Cancelled when this request of this account is over; `None` when none such is under way.
    pub(crate) fn over(&self, request: RequestId, account: &AccountName) -> Option<CancellationToken> {
        lock(&self.open).get(&request).filter(|open| open.account == *account).map(|open| open.over.clone())
    }

    /// Requests between admission and settlement.
    pub(crate) fn under_way(&self) -> usize {
        lock(&self.open).len()
    }

    /// Tells the nodes of a settled request.
    pub(crate) fn tell_posted(&self, settled: Settled) {
        for (node, posted) in settled.postings {
            if let Some(link) = self.link(&node) {
                link.posted(posted);
            }
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes nothing new and tells every node that the hub closes within `limit`.
    pub(crate) fn drain(&self, limit: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        let by = UnixMillis(now().0 + i64::try_from(limit.as_millis()).unwrap_or(i64::MAX / 2));
        for link in lock(&self.links).values() {
            link.send(&HubMessage::Drain { by });
        }
        self.route(Routing::close);
    }

    /// Ends every session; what still runs is lost to its consumers as an error.
    pub(crate) fn cut_all(&self) {
        let links: Vec<Arc<Link>> = lock(&self.links).values().cloned().collect();
        for link in links {
            link.cut_off(Refuse {
                code: RefuseCode::Busy,
                message: "The hub stops now. This node reconnects when it is back.".into(),
            });
        }
    }
}

/// A lock that no panic can close for good: the tables are consistent between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The monotonic clock by which the runtime's timers go.
pub(crate) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock in the wire's form.
pub(crate) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
