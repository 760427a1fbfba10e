//! What a hub keeps: accounts, keys, invites, nodes, the ledger's postings and receipts, in one SQLite file.
//!
//! A [`Store`] is a cheap handle on one data folder, which it locks: two hubs never share one. Everything that is asked
//! on the way of a request ([`authenticate`](Store::authenticate), [`reserve`](Store::reserve)) is answered from
//! memory; everything that is promised ([`settle`](Store::settle), [`login`](Store::login), the operator's commands)
//! returns only when it is on the disk. One writer thread owns the database and commits in groups.
//!
//! Never kept: prompts, answers, and keys or tokens themselves (only their hashes).

mod accounts;
mod admins;
mod audit;
mod backup;
mod browsers;
mod check;
mod circles;
mod consumer;
mod error;
mod export;
mod folder;
mod journal;
mod keys;
mod months;
mod node_keys;
mod nodes;
mod reports;
mod schema;
mod settle;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use ed25519_dalek::SigningKey;
use idlewatt_hub_core::allowance::{Held, OverLimit};
use idlewatt_hub_core::ledger::{AccountName, FeeRate, PostingId, ReserveError};
use idlewatt_protocol::receipt::ReceiptFile;
use idlewatt_protocol::{MicroCredits, PublicKey, RequestId, UnixMillis};
use tokio::sync::oneshot;

pub use accounts::Account;
pub use admins::{CODE_LIFE, SESSION_LIFE};
pub use audit::Audited;
pub use backup::{BackedUp, BackupError, back_up};
pub use browsers::NotRedeemed;
pub use check::{Checked, check_folder};
pub use circles::{Group, Member, Whom};
pub use consumer::{Consumer, NotAdmitted};
pub use error::{OpenError, StoreError};
pub use export::{ExportError, Wanted, export};
pub use folder::{default_folder, must_exist};
pub use keys::{Key, NewKey};
pub use node_keys::NotKeptKey;
pub use nodes::{Node, NodeLogin};
pub use reports::{Keeping, KeptReport, MAX_REPORTS};
pub use settle::{SegmentFacts, Settled, Settlement};

use writer::{Job, State, Waiting, Writer};

/// A handle on one data folder. Clones share it; the folder is free again when the last one is dropped, after
/// everything that was accepted is on the disk.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Arc<State>,
    folder: PathBuf,
    jobs: Option<Sender<Job>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.jobs = None;
        let writer = self.writer.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if writer.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writer ended early");
        }
    }
}

impl Store {
    /// Opens the data folder and makes what is missing: the folder, `hub.key` (0600), `hub.db`.
    ///
    /// Blocks while it reads accounts, keys and nodes: call it before serving.
    ///
    /// # Errors
    /// When another process has the folder, it cannot be written, or was written by a newer version.
    pub fn open(folder: &Path, fee: FeeRate) -> Result<Self, OpenError> {
        let (state, writer) = Writer::open(folder, fee)?;
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new()
            .name("hub-store".into())
            .spawn(move || writer.run(&queue))
            .map_err(|source| OpenError::unwritable(folder, &source))?;
        let writer = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Inner { state, folder: folder.to_owned(), jobs: Some(jobs), writer })))
    }

    /// The data folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// The hub's key: signs receipts and welcomes.
    #[must_use]
    pub fn hub_key(&self) -> &SigningKey {
        &self.0.state.hub_key
    }

    /// Whose API key this is; `None` when it is none, was revoked, or has expired. Memory only.
    #[must_use]
    pub fn authenticate(&self, key: &str) -> Option<Consumer> {
        self.0.state.authenticate(key)
    }

    /// Counts a request of a consumer, where it may make one now. Memory only.
    ///
    /// # Errors
    /// When its account is suspended or slowed down, or its key's minute is used up.
    pub fn admit(&self, consumer: &Consumer) -> Result<(), NotAdmitted> {
        self.0.state.admit(&consumer.account)?;
        consumer.key.allowed.request().map_err(NotAdmitted::Over)
    }

    /// A request of this consumer came to nothing by its own doing: too many of them, and it is slowed down. Memory only.
    pub fn wasted(&self, consumer: &Consumer) {
        self.0.state.wasted(&consumer.account);
    }

    /// What an account can reserve now; 0 for an unknown one. Memory only.
    #[must_use]
    pub fn available(&self, account: &AccountName) -> MicroCredits {
        self.0.state.ledger().standing(account).map_or(MicroCredits::ZERO, |standing| standing.available())
    }

    /// The account that a node earns for. Memory only.
    #[must_use]
    pub fn account_of(&self, node: &PublicKey) -> Option<AccountName> {
        self.0.state.nodes().get(node).map(|node| node.account.clone())
    }

    /// Sets aside the worst case of a request: `amount` of the account's credits and of its key's day, `tokens` of the key's
    /// minute. Memory only; dropping the [`Reservation`] gives all of it back.
    ///
    /// # Errors
    /// When the account cannot cover it, a limit of the key is in the way, or nothing can be promised now because the disk
    /// refuses.
    pub fn reserve(
        &self,
        request: RequestId,
        consumer: &Consumer,
        tokens: u32,
        amount: MicroCredits,
    ) -> Result<Reservation, CannotReserve> {
        if self.0.state.failing.load(Ordering::Relaxed) {
            return Err(CannotReserve::Disk);
        }
        let held = consumer.key.allowed.hold(tokens, amount).map_err(CannotReserve::Over)?;
        if let Err(error) = self.0.state.ledger().reserve(request.into(), &consumer.account, amount) {
            consumer.key.allowed.give_back(held);
            return Err(error.into());
        }
        let (state, consumer) = (Arc::clone(&self.0.state), consumer.clone());
        Ok(Reservation { state, request, consumer, amount, held: Some(held) })
    }

    /// Bills a request, signs its receipt and keeps both: one posting, one receipt, one sequence number for each of its
    /// nodes. Returns when all of it is on the disk; other settlements share the same write. Settling a request again
    /// returns what was settled first.
    ///
    /// While the disk is full or refuses, this waits and tries again each second (and [`reserve`](Self::reserve)
    /// refuses new work), so a full disk loses no receipt of an answered request.
    ///
    /// # Errors
    /// When the settlement contradicts its reservation, names an unknown node, or the store is closing.
    pub async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        let (reply, settled) = oneshot::channel();
        // Read here: the writer has enough to do.
        let energy = settlement.segments.iter().map(|segment| settle::energy(&segment.statement)).collect();
        self.send(Job::Settle(Waiting { settlement: Box::new(settlement), energy, reply }))?;
        settled.await.map_err(|_| StoreError::Closed)?
    }

    /// Whether a request has its receipt, and `node` a part in it: a statement that comes late for it needs no `void`,
    /// its `posted` was or will be sent again.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn is_posted(&self, request: RequestId, node: PublicKey) -> Result<bool, StoreError> {
        self.run(move |writer| settle::is_posted(&writer.db, request, &node)).await
    }

    /// The receipt of a request of this account; `None` when it has none, or it is another's.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn receipt(
        &self,
        request: RequestId,
        account: &AccountName,
    ) -> Result<Option<ReceiptFile>, StoreError> {
        let account = account.clone();
        self.run(move |writer| settle::receipt(&writer.db, request, &account)).await
    }

    /// Runs `work` on the writer thread, after everything sent before it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, done) = oneshot::channel();
        self.send(Job::Run(Box::new(move |writer| {
            // Whoever asked may be gone; the work is done all the same.
            let _ = reply.send(work(writer));
        })))?;
        done.await.map_err(|_| StoreError::Closed)?
    }

    fn send(&self, job: Job) -> Result<(), StoreError> {
        self.0.jobs.as_ref().ok_or(StoreError::Closed)?.send(job).map_err(|_| StoreError::Closed)
    }
}

/// Why nothing can be set aside for a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotReserve {
    /// The account cannot cover it (402), or does not exist.
    #[error(transparent)]
    Ledger(#[from] ReserveError),
    /// A limit of the key is in the way (429).
    #[error("a limit of the key is in the way")]
    Over(OverLimit),
    /// The disk refuses, so nothing can be promised (503).
    #[error("the hub cannot write to its disk now, so it takes no requests")]
    Disk,
}

/// Credits, and what the key may still do, set aside for one request. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    state: Arc<State>,
    request: RequestId,
    consumer: Consumer,
    amount: MicroCredits,
    /// Until it is settled.
    held: Option<Held>,
}

impl Reservation {
    /// For which request.
    #[must_use]
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// Of whom.
    #[must_use]
    pub fn account(&self) -> &AccountName {
        &self.consumer.account
    }

    /// How much may be posted.
    #[must_use]
    pub fn amount(&self) -> MicroCredits {
        self.amount
    }

    /// The row of what its key may do.
    fn allowance(&self) -> i64 {
        self.consumer.key.allowed.id
    }

    /// It was posted: the key used so much.
    fn took(mut self, at: UnixMillis, tokens: u32, cost: MicroCredits) {
        if let Some(held) = self.held.take() {
            self.consumer.key.allowed.settle(held, at, tokens, cost);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.consumer.key.allowed.give_back(held);
        }
        // What is being posted, or was, is left alone.
        self.state.ledger().void(PostingId::from(self.request));
    }
}
