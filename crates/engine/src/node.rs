//! The state of a running node and what its tasks share. Each story has a module of its own that adds to [`Node`]:
//! deciding, serving, joining, looking for servers, reading cards, answering the door.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use idlewatt_control::{ControlError, Event, LastYield, Notice, State};
use idlewatt_core::now::Deadline;
use idlewatt_core::policy::{Decision, HostPause, Policy};
use idlewatt_networks::host::Sleep;
use idlewatt_protocol::UnixMillis;
use idlewatt_servers::{Found, Servers};
use idlewatt_store::{Reply, SessionId, Store, StoreError};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cards::Cards;
use crate::circle::Circle;
use crate::clock;
use crate::config::Config;
use crate::door::LoginCodes;
use crate::governing::Governing;
use crate::home::Home;
use crate::hours::Diary;
use crate::managed::OwnServer;
use crate::networks::Networks;
use crate::others::Others;
use crate::own::Hubs;
use crate::own_use::OwnUse;
use crate::plugs::Plugs;
use crate::problem;
use crate::server_keys::ServerKeyring;
use crate::services::Services;
use crate::signing::Signer;
use crate::slots::Slots;
use crate::yielding::GivingBack;

/// Events that a slow screen may be behind before it is told to ask anew.
const EVENTS: usize = 256;

/// A disk that refused is tried again after this long.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// The setting that is written to try it.
const TRIED: &str = "disk.tried";

/// A running node.
pub(crate) struct Node {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) config: watch::Sender<Arc<Config>>,
    pub(crate) servers: Servers,
    pub(crate) services: Services,
    /// Model servers as they were found last.
    pub(crate) found: Mutex<Vec<Found>>,
    /// The API keys of model servers.
    pub(crate) server_keys: Arc<ServerKeyring>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) networks: Networks,
    pub(crate) cards: Arc<Cards>,
    pub(crate) governing: Governing,
    pub(crate) plugs: Plugs,
    pub(crate) presence: idlewatt_presence::Watch,
    pub(crate) machine: idlewatt_machine::Watch,
    /// What networks need to know of the machine's sleep.
    pub(crate) sleep: watch::Sender<Sleep>,
    pub(crate) diary: Mutex<Diary>,
    pub(crate) circle: Circle,
    /// The llama-server that the node runs itself, where the host wants one.
    pub(crate) own_server: OwnServer,
    pub(crate) own_use: OwnUse,
    /// Whether the panic button's key is heard; `None` without one.
    pub(crate) hotkey: Mutex<Option<idlewatt_presence::hotkey::Standing>>,
    /// The hubs that were joined, as the host's own endpoint asks them.
    pub(crate) hubs: Hubs,
    pub(crate) codes: Arc<LoginCodes>,
    /// Where the control door listens.
    pub(crate) address: std::net::SocketAddr,
    /// The key of the host's own endpoint.
    pub(crate) own_key: String,
    /// Who this node is, once the keyring has said so.
    pub(crate) identity: watch::Sender<Option<Known>>,
    /// The pause that the host asked for.
    pub(crate) pause: watch::Sender<Option<HostPause>>,
    /// Until when the host wants to share now.
    pub(crate) share_now_until: watch::Sender<Option<Deadline>>,
    pub(crate) policy: Mutex<Policy>,
    /// How the GPU is given back.
    pub(crate) giving_back: GivingBack,
    /// What other programs use of the cards.
    pub(crate) others: Others,
    pub(crate) standing: watch::Sender<Standing>,
    /// Rises with every change of what networks are told.
    pub(crate) changes: watch::Sender<u64>,
    /// Asks the deciding task to look at its timer again.
    pub(crate) redecide: Notify,
    /// Asks the task that looks for servers to look now.
    pub(crate) look: Notify,
    /// Asks the task that reads cards to read them now.
    pub(crate) reread: Notify,
    /// Something that screens show has changed.
    pub(crate) shown: Notify,
    pub(crate) events: broadcast::Sender<Event>,
    /// Requests are handed back; nothing new is taken.
    pub(crate) stopping: CancellationToken,
    /// Every task ends.
    pub(crate) stop: CancellationToken,
    /// What is waited for before the engine ends.
    pub(crate) tasks: TaskTracker,
    notices: Mutex<BTreeMap<&'static str, Notice>>,
}

/// Who this node is.
#[derive(Clone)]
pub(crate) struct Known {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) in_file: bool,
    pub(crate) signer: Signer,
}

/// What was decided last.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) decision: Decision,
    /// Since when shared requests are being taken back; `None` once they have all ended.
    pub(crate) yielding: Option<UnixMillis>,
    pub(crate) session: Option<SessionId>,
    pub(crate) last_yield: Option<LastYield>,
}

impl Standing {
    /// Whether requests are taken.
    pub(crate) fn accepts(&self) -> bool {
        self.decision.reasons.is_empty()
    }

    /// As screens show it.
    pub(crate) fn state(&self) -> State {
        use idlewatt_core::policy::State as Decided;
        match self.decision.state {
            _ if self.yielding.is_some() => State::Yielding,
            Decided::Sharing => State::Sharing,
            Decided::Paused => State::Paused,
            Decided::Offline => State::Offline,
        }
    }
}

/// Everything a node is made of before it runs.
pub(crate) struct Parts {
    pub(crate) home: Home,
    pub(crate) store: Store,
    pub(crate) config: Config,
    pub(crate) servers: Servers,
    pub(crate) services: Services,
    pub(crate) server_keys: Arc<ServerKeyring>,
    pub(crate) networks: Networks,
    pub(crate) cards: Cards,
    pub(crate) presence: idlewatt_presence::Watch,
    pub(crate) machine: idlewatt_machine::Watch,
    pub(crate) diary: Diary,
    pub(crate) circle: Circle,
    pub(crate) own_server: OwnServer,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) own_key: String,
    pub(crate) pause: Option<HostPause>,
    pub(crate) first: Decision,
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let standing = Standing { decision: parts.first, yielding: None, session: None, last_yield: None };
        Arc::new(Self {
            home: parts.home,
            store: parts.store,
            config: watch::Sender::new(Arc::new(parts.config)),
            servers: parts.servers,
            services: parts.services,
            found: Mutex::default(),
            server_keys: parts.server_keys,
            slots: Arc::default(),
            networks: parts.networks,
            cards: Arc::new(parts.cards),
            governing: Governing::default(),
            plugs: Plugs::default(),
            presence: parts.presence,
            machine: parts.machine,
            sleep: watch::Sender::default(),
            diary: Mutex::new(parts.diary),
            circle: parts.circle,
            own_server: parts.own_server,
            own_use: OwnUse::default(),
            hotkey: Mutex::default(),
            hubs: Hubs::default(),
            codes: Arc::default(),
            address: parts.address,
            own_key: parts.own_key,
            identity: watch::Sender::new(None),
            pause: watch::Sender::new(parts.pause),
            share_now_until: watch::Sender::new(None),
            policy: Mutex::default(),
            giving_back: GivingBack::default(),
            others: Others::default(),
            standing: watch::Sender::new(standing),
            changes: watch::Sender::new(0),
            redecide: Notify::new(),
            look: Notify::new(),
            reread: Notify::new(),
            shown: Notify::new(),
            events: broadcast::Sender::new(EVENTS),
            stopping: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            notices: Mutex::default(),
        })
    }

    /// The settings in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Networks are to be told what is offered and taken now.
    pub(crate) fn offer_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
        self.shown.notify_one();
    }

    /// Tells screens. Nobody listening is fine.
    pub(crate) fn tell(&self, event: Event) {
        drop(self.events.send(event));
    }

    /// Puts up something that wants a person, until [`settled`](Self::settled).
    pub(crate) fn wants_person(&self, subject: &'static str, error: &ControlError) {
        let notice =
            Notice { what: error.what.clone(), why: error.why.clone(), action: error.action.clone() };
        let before = lock(&self.notices).insert(subject, notice.clone());
        if before.as_ref() != Some(&notice) {
            tracing::warn!(subject, what = %notice.what, "wants a person");
            self.shown.notify_one();
        }
    }

    /// What was put up about this subject is over.
    pub(crate) fn settled(&self, subject: &'static str) {
        if lock(&self.notices).remove(subject).is_some() {
            self.shown.notify_one();
        }
    }

    /// What wants a person now.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        lock(&self.notices).values().cloned().collect()
    }

    /// Something was not kept: said once, until the disk keeps again.
    pub(crate) fn not_kept(&self, error: &StoreError) {
        self.wants_person("store", &problem::of_store(error));
    }

    /// While the disk refuses, nothing new is taken, and it is tried again each second. Ends when the node stops.
    pub(crate) async fn keep_writing(self: Arc<Self>) {
        let mut refusal = self.store.refusal();
        loop {
            let refused = tokio::select! {
                () = self.stop.cancelled() => return,
                // The writer lives as long as the node.
                refused = refusal.wait_for(Option::is_some) => refused.ok().and_then(|it| it.clone()),
            };
            if let Some(error) = refused {
                self.not_kept(&error);
            }
            self.decide();
            while self.store.refusal().borrow().is_some() {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(DISK_AGAIN) => {}
                }
                // What it says comes by way of the refusal.
                drop(self.store.set_setting(TRIED, &clock::now().unix().0.to_string()).await);
            }
            tracing::warn!("the disk keeps again");
            self.settled("store");
            self.decide();
        }
    }

    /// Asks for a write that the disk refused until it is kept, or the node stops.
    pub(crate) async fn until_kept(&self, mut reply: Reply<()>, again: impl Fn() -> Reply<()>) {
        while let Err(error) = reply.await {
            self.not_kept(&error);
            if !matches!(error, StoreError::Full | StoreError::ReadOnly) {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(DISK_AGAIN) => {}
            }
            reply = again();
        }
    }
}

/// Locks, also after a panic elsewhere: every value behind these locks is whole at every moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
