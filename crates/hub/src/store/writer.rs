//! The one thread that owns the database: settlements are committed in groups, everything else in its turn.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use idlewatt_hub_core::circles::Directory;
use idlewatt_hub_core::ledger::{AccountName, FeeRate, Ledger};
use idlewatt_protocol::limits::MAX_BATCH;
use idlewatt_protocol::node_key::KEY_PREFIX;
use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Digest, PublicKey, UnixMillis};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::admins::Admins;
use super::consumer::{Conduct, NotAdmitted};
use super::settle::{Settled, Settlement};
use super::{
    Consumer, Node, OpenError, StoreError, accounts, circles, folder, keys, nodes, reports, schema, settle,
};

/// How soon a write that the disk refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What is answered from memory; the writer changes it only after the disk has it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) hub_key: SigningKey,
    pub(super) fee: FeeRate,
    /// The disk refused the last settlements; they wait.
    pub(super) failing: AtomicBool,
    ledger: Mutex<Ledger>,
    keys: RwLock<HashMap<Digest, Consumer>>,
    directory: watch::Sender<Arc<Directory>>,
    /// Of accounts that gave cause.
    conduct: Mutex<HashMap<AccountName, Conduct>>,
    /// Of the monotonic clock.
    origin: Instant,
    nodes: RwLock<HashMap<PublicKey, Node>>,
    pub(super) reports: reports::Shown,
    pub(super) admins: Admins,
}

impl State {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn nodes(&self) -> RwLockReadGuard<'_, HashMap<PublicKey, Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn nodes_mut(&self) -> RwLockWriteGuard<'_, HashMap<PublicKey, Node>> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keys_mut(&self) -> RwLockWriteGuard<'_, HashMap<Digest, Consumer>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn authenticate(&self, key: &str) -> Option<Consumer> {
        if !key.starts_with(KEY_PREFIX) {
            return None;
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let consumer = keys.get(&Digest::of(key.as_bytes()))?;
        consumer.key.expires.is_none_or(|at| now() < at).then(|| consumer.clone())
    }

    pub(super) fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.borrow())
    }

    pub(super) fn set_directory(&self, directory: Directory) {
        self.directory.send_replace(Arc::new(directory));
    }

    pub(super) fn follow_directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.subscribe()
    }

    pub(super) fn conduct(&self) -> MutexGuard<'_, HashMap<AccountName, Conduct>> {
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an account may ask for anything now.
    pub(super) fn admit(&self, account: &AccountName) -> Result<(), NotAdmitted> {
        match self.conduct().get(account) {
            Some(conduct) if conduct.is_suspended => Err(NotAdmitted::Suspended),
            Some(conduct) => conduct.brake.check(self.origin.elapsed()).map_err(NotAdmitted::Over),
            None => Ok(()),
        }
    }

    pub(super) fn wasted(&self, account: &AccountName) {
        let now = self.origin.elapsed();
        self.conduct().entry(account.clone()).or_default().brake.wasted(now);
    }

    /// The same for the same account on this hub, and nothing else: only the hub's secret links the two.
    pub(super) fn pseudonym(&self, account: &AccountName) -> String {
        let seed = self.hub_key.to_bytes();
        let digest = Digest::of_parts(&[b"idlewatt.pseudonym\0", &seed, account.as_str().as_bytes()]);
        HEXLOWER.encode(&digest.0[..12])
    }
}

/// What the writer is asked to do.
pub(super) enum Job {
    /// Goes into the next group.
    Settle(Waiting),
    /// Ends the group and runs after it.
    Run(Box<dyn FnOnce(&mut Writer) + Send>),
}

/// A settlement, and who waits for it.
pub(super) struct Waiting {
    pub(super) settlement: Box<Settlement>,
    /// What each segment's node says that it took.
    pub(super) energy: Vec<Option<Energy>>,
    pub(super) reply: oneshot::Sender<Result<Settled, StoreError>>,
}

/// The database and the lock of its folder.
pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) state: Arc<State>,
    /// Digest of the last receipt's payload: the next one names it.
    pub(super) last_receipt: Option<Digest>,
    _folder: File,
}

impl Writer {
    pub(super) fn open(folder: &Path, fee: FeeRate) -> Result<(Arc<State>, Self), OpenError> {
        let lock = folder::take(folder)?;
        let db = schema::open(folder)?;
        let refused = |error: rusqlite::Error| OpenError::sqlite(folder, &error);
        let hub_key = hub_key(folder, &db)?;
        let state = Arc::new(State {
            hub_key,
            fee,
            failing: AtomicBool::new(false),
            ledger: Mutex::new(accounts::load_accounts(&db).map_err(refused)?),
            keys: RwLock::default(),
            directory: watch::Sender::new(Arc::new(circles::load_directory(&db).map_err(refused)?)),
            conduct: Mutex::default(),
            origin: Instant::now(),
            nodes: RwLock::new(nodes::load(&db).map_err(refused)?),
            reports: reports::Shown::default(),
            admins: Admins::default(),
        });
        keys::load_keys(&db, &state).map_err(refused)?;
        let last_receipt = settle::last_receipt(&db).map_err(refused)?;
        Ok((Arc::clone(&state), Self { db, state, last_receipt, _folder: lock }))
    }

    /// Works until every handle is gone and the queue is empty.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        let mut group: Vec<Waiting> = Vec::new();
        loop {
            let mut next = if group.is_empty() {
                match queue.recv() {
                    Ok(job) => Some(job),
                    Err(_) => return,
                }
            } else {
                match queue.recv_timeout(RETRY) {
                    Ok(job) => Some(job),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => {
                        self.settle(&mut group);
                        if !group.is_empty() {
                            tracing::error!(
                                requests = group.len(),
                                "stopped with receipts that the disk refused"
                            );
                        }
                        return;
                    }
                }
            };
            let mut then = None;
            while let Some(job) = next {
                match job {
                    Job::Settle(waiting) => group.push(waiting),
                    Job::Run(work) => {
                        then = Some(work);
                        break;
                    }
                }
                next = if group.len() < MAX_BATCH { queue.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.settle(&mut group);
            }
            if let Some(work) = then {
                work(&mut self);
            }
        }
    }

    /// Notes whether the disk takes settlements, and says so when that changes.
    pub(super) fn disk_refuses(&self, refused: Option<&rusqlite::Error>) {
        let before = self.state.failing.swap(refused.is_some(), Ordering::Relaxed);
        match refused {
            Some(error) if !before => {
                tracing::error!(%error, "the disk refuses receipts: no new requests until it takes them; trying each second");
            }
            None if before => tracing::warn!("the disk takes receipts again"),
            _ => {}
        }
    }
}

/// The key of this hub. It belongs to its ledger: neither is ever replaced under the other.
fn hub_key(folder: &Path, db: &Connection) -> Result<SigningKey, OpenError> {
    let refused = |error: rusqlite::Error| OpenError::sqlite(folder, &error);
    let kept = schema::setting(db, "hub_key").map_err(refused)?;
    match (folder::read_key(folder)?, kept) {
        (Some(key), Some(kept)) if PublicKey::from(&key).to_string() == kept => Ok(key),
        (Some(_), Some(_)) => Err(OpenError::KeyWrong(folder.to_owned())),
        (None, Some(_)) => Err(OpenError::KeyMissing(folder.to_owned())),
        (key, None) => {
            let key = match key {
                Some(key) => key,
                None => folder::make_key(folder)?,
            };
            schema::set_setting(db, "hub_key", &PublicKey::from(&key).to_string()).map_err(refused)?;
            Ok(key)
        }
    }
}

/// Now, as the wall clock has it.
pub(super) fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
