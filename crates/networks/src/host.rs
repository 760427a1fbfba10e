//! What a network client needs of the node it runs in.

use std::sync::Arc;

use async_trait::async_trait;
use idlewatt_core::work::{Ask, Finished, Head, Piece};
use idlewatt_protocol::message::{Outcome, Posted, RefusalCode, State};
use idlewatt_protocol::receipt::{Envelope, Statement};
use idlewatt_protocol::{RequestId, ServiceOffer};
use tokio::sync::watch;

/// The node, as a network client sees it. One value per network joined; everything in it is about that network.
#[async_trait]
pub trait Host: Send + Sync {
    /// What is offered to this network now.
    fn offer(&self) -> Vec<ServiceOffer>;

    /// Whether work is taken now; facts about the person are already left out.
    fn state(&self) -> State;

    /// Changes whenever `offer` or `state` may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// The machine's sleep: before it the network is told goodbye, after it the connection is looked after at once.
    fn sleep(&self) -> watch::Receiver<Sleep>;

    /// Admits a request and starts to answer it, or refuses. Policy, slots and limits are checked here; the host keeps
    /// `ask.deadlines`. Dropping the future before it is ready leaves nothing behind.
    async fn begin(&self, ask: Ask) -> Result<Box<dyn Answer>, RefusalCode>;

    /// Signs a statement together with others of the same moment (at most 50 ms and 256 at once), keeps the envelope
    /// durably in the outbox, and gives it back to be sent.
    async fn sign(&self, statement: Statement) -> Result<Envelope, NotKept>;

    /// Statements of earlier sessions that were never settled, oldest first, at most `limit`.
    async fn unsettled(&self, limit: usize) -> Vec<Envelope>;

    /// The network settled a request: keep it durably, forget the statement.
    ///
    /// # Errors
    /// When it could not be kept. The session ends then, so that the network sends it again in the next.
    async fn posted(&self, posted: Posted) -> Result<(), NotKept>;

    /// The network knows no such request: forget the statement.
    async fn void(&self, request: RequestId);

    /// The last posting sequence number kept.
    async fn posted_through(&self) -> u64;

    /// The connection's state changed; for people.
    fn report(&self, report: NetworkReport);
}

/// What a connection needs to know of the machine's sleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sleep {
    /// It is about to come. Nothing is dialled until it is over.
    pub coming: bool,
    /// How often the machine woke, or its clock was set.
    pub woken: u64,
}

/// The store could not keep it; it is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it could not be kept on disk")]
pub struct NotKept;

/// An answer under way. Dropping it closes the connection to the model server.
#[async_trait]
pub trait Answer: Send {
    /// Waits for the answer to begin. Cancel-safe.
    ///
    /// # Errors
    /// When it never does: what came of the request.
    async fn head(&mut self) -> Result<Head, Finished>;

    /// The next piece; `None` at the end, whatever the end is. Cancel-safe.
    async fn next(&mut self) -> Option<Piece>;

    /// Ends the answer: closes the connection to the model server if it is still open, meters, and records the request.
    /// `outcome` is what the network makes of it; `None` keeps what the answer itself came to (complete, failed,
    /// yielded). `usage` is that of the bytes that count: of all pieces, or of those delivered.
    async fn finish(self: Box<Self>, outcome: Option<Outcome>, usage: idlewatt_protocol::Usage) -> Finished;
}

/// How a network stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkReport {
    /// Dialling.
    Connecting,
    /// In.
    Connected {
        /// The account this node earns for.
        account: String,
        /// What the network calls itself.
        name: String,
        /// Its addresses, best first, to keep for the next time.
        urls: Vec<String>,
    },
    /// Lost; trying again at a moment.
    Waiting {
        /// Why, in words.
        why: String,
        /// When.
        retry_at: std::time::Instant,
    },
    /// Refused for good.
    Refused {
        /// For programs.
        code: idlewatt_protocol::message::RefuseCode,
        /// For people.
        message: String,
    },
    /// The hub shows another key than the invite's, or cannot prove it.
    Distrusted {
        /// Why, in words.
        why: String,
    },
}

/// A shared host.
pub type SharedHost = Arc<dyn Host>;
