//! The engine from its start to its end: takes the home, opens what is kept, starts the tasks, and hands everything back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use idlewatt_control::{Code, ControlError, Event, Request, Response};
use idlewatt_core::policy::{Inputs, Policy};
use idlewatt_networks::hub::proxy_for;
use idlewatt_servers::{ServerKeys, Servers};
use idlewatt_store::Store;
use tokio::sync::{broadcast, oneshot};
use tokio::time::timeout;

use crate::cards::Cards;
use crate::circle::Circle;
use crate::config::{self, Config};
use crate::deciding::{KeptPause, PAUSE};
use crate::desk::Desk;
use crate::door::{self, Door, Resident};
use crate::home::{Claim, Home};
use crate::hours::Diary;
use crate::identity::{self, DesktopKeyring};
use crate::managed::OwnServer;
use crate::networks::Networks;
use crate::node::{Known, Node, Parts};
use crate::problem::of_store;
use crate::server_keys::ServerKeyring;
use crate::services::Services;
use crate::signing::Signer;
use crate::{clock, own};

/// A keyring that did not give the key is asked again this often.
const KEYRING_AGAIN: Duration = Duration::from_secs(30);

/// Screens are told of changes at most this often.
const SHOWN: Duration = Duration::from_secs(1);

/// Handing back takes at most this long before the engine ends anyway.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A running engine. It ends when [`stop`](Self::stop) is called, not when it is dropped.
pub struct Engine {
    node: Arc<Node>,
    desk: Arc<Desk>,
    // Given up last: then the next engine may begin.
    claim: Claim,
}

impl Engine {
    /// Starts in this home. `listen` takes the place of `control.listen`.
    ///
    /// # Errors
    /// When another engine owns the home, or the home, the settings, the database or the address cannot be used.
    pub async fn start(home: Home, listen: Option<SocketAddr>) -> Result<Self, ControlError> {
        let claim = home.claim()?;
        config::seed(&home.config)?;
        let config = Config::load(&home.config)?;
        for key in config.unknown() {
            tracing::warn!(%key, "unknown setting, ignored");
        }
        let store = Store::open(&home.data.join("node.db")).map_err(|error| of_store(&error))?;
        let listener = door::bind(listen.unwrap_or(config.settings().listen)).await?;
        let address = listener.local_addr().map_err(|error| internal(&error))?;
        let node = assemble(home, config, store, address).await?;
        node.note_hours();
        // Whoever asks first hears what holds, a pause of before among it.
        node.decide();

        let token = identity::token();
        let desk = Arc::new(Desk(Arc::clone(&node)));
        let door = Door {
            resident: Arc::clone(&desk) as Arc<dyn Resident>,
            token: token.clone(),
            codes: Arc::clone(&node.codes),
            own: own::router(Arc::clone(&node)),
        };
        claim.announce(address, &token)?;
        tracing::info!(%address, "control door open");

        let tasks = &node.tasks;
        let stop = node.stop.clone();
        tasks.spawn(async move {
            if let Err(error) = door::serve(listener, door, stop).await {
                tracing::error!(%error, "the control door closed");
            }
        });
        tasks.spawn(Arc::clone(&node).keep_deciding());
        tasks.spawn(Arc::clone(&node).keep_giving_back());
        tasks.spawn(Arc::clone(&node).keep_writing());
        tasks.spawn(Arc::clone(&node).keep_machine());
        tasks.spawn(Arc::clone(&node).keep_looking());
        tasks.spawn(Arc::clone(&node).keep_reading());
        tasks.spawn(Arc::clone(&node).keep_plugs());
        tasks.spawn(Arc::clone(&node).keep_governing());
        tasks.spawn(Arc::clone(&node).keep_showing());
        tasks.spawn(Arc::clone(&node).find_identity());
        tasks.spawn(Arc::clone(&node).find_server_keys());
        tasks.spawn(Arc::clone(&node).keep_circle());
        tasks.spawn(Arc::clone(&node).keep_own_server());
        tasks.spawn(Arc::clone(&node).keep_hearing());
        tasks.spawn(Arc::clone(&node).keep_hotkey());
        tasks.close();
        Ok(Self { node, desk, claim })
    }

    /// Where the control door is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.node.address
    }

    /// A link that opens the control panel once, within ten minutes.
    #[must_use]
    pub fn panel(&self) -> String {
        self.node.panel()
    }

    /// Who answers, for a tray or a window in the same process.
    #[must_use]
    pub fn resident(&self) -> Arc<dyn Resident> {
        Arc::clone(&self.desk) as Arc<dyn Resident>
    }

    /// Everything that changes from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.desk.events()
    }

    /// Waits until somebody asks the engine to end.
    pub async fn asked_to_stop(&self) {
        self.node.stopping.cancelled().await;
    }

    /// Ends: running requests are handed back, networks are told, everything is on disk.
    pub async fn stop(self) {
        let node = &self.node;
        node.stopping.cancel();
        node.decide();
        let handed_back = async {
            drop(node.slots.shared().wait_for(|running| *running == 0).await);
            node.networks.close().await;
            node.circle.close().await;
            node.own_server.stop().await;
        };
        if timeout(LAST_WORDS, handed_back).await.is_err() {
            tracing::warn!("not everything could be handed back in time");
        }
        node.stop.cancel();
        drop(timeout(LAST_WORDS, node.tasks.wait()).await);
        drop(timeout(LAST_WORDS, node.governing.close()).await);
        node.keep_energy(None, clock::now().day());
        node.close_diary();
        if let Err(error) = node.store.flush().await {
            tracing::error!(%error, "the last entries may not be on disk");
        }
        drop(self.claim);
        tracing::info!("stopped");
    }
}

async fn assemble(
    home: Home,
    config: Config,
    store: Store,
    address: SocketAddr,
) -> Result<Arc<Node>, ControlError> {
    let settings = config.settings();
    let places = settings.places();
    let rows = store.networks().await.map_err(|error| of_store(&error))?;
    let proxy = std::env::var("HTTPS_PROXY").or_else(|_| std::env::var("https_proxy")).ok();
    let services = store.services().await.map_err(|error| of_store(&error))?;
    let allowed = store.allowed_hours().await.map_err(|error| of_store(&error))?;
    let pause = store.setting(PAUSE).await.map_err(|error| of_store(&error))?;
    let first = Policy::default().decide(&settings.policy, &Inputs::default(), &clock::now());
    let own_key = identity::own_key(&home.data)?;
    let own_server = OwnServer::default();
    let server_keys = ServerKeyring::new(own_server.keys());
    Ok(Node::new(Parts {
        cards: Cards::new(&places),
        servers: Servers::new(Arc::clone(&server_keys) as Arc<dyn ServerKeys>)
            .map_err(|error| internal(&error))?,
        server_keys,
        services: Services::remembered(services),
        networks: Networks::remembered(rows, proxy_for(proxy.as_deref())),
        presence: idlewatt_presence::watch(idlewatt_presence::Options::default()),
        machine: idlewatt_machine::watch(idlewatt_machine::Options {
            sysfs: places.sysfs.clone(),
            ..idlewatt_machine::Options::of_this_process()
        }),
        diary: Diary::after(allowed.last()),
        circle: Circle::default(),
        own_server,
        pause: pause
            .and_then(|text| serde_json::from_str::<Option<KeptPause>>(&text).ok()?)
            .map(|it| it.in_force(&clock::now())),
        home,
        store,
        config,
        address,
        own_key,
        first,
    }))
}

impl Node {
    /// A link that opens the control panel once.
    pub(crate) fn panel(&self) -> String {
        format!("http://{}/#code={}", self.address, self.codes.make(Instant::now()))
    }

    /// Asks the keyring, or the file, who this node is; then connects. A locked keyring is asked again.
    async fn find_identity(self: Arc<Self>) {
        loop {
            let (answer, found) = oneshot::channel();
            let node = Arc::clone(&self);
            // A thread of its own: a keyring may wait for a person for as long as it likes, and nothing waits for it.
            std::thread::spawn(move || {
                let wanted = node.config().settings().key_store;
                drop(answer.send(identity::identity(&node.store, &node.home.data, wanted, &DesktopKeyring)));
            });
            let found = tokio::select! {
                () = self.stop.cancelled() => return,
                found = found => found,
            };
            match found {
                Ok(Ok(found)) => {
                    self.settled("identity");
                    let key = Arc::new(found.key);
                    let node = Arc::downgrade(&self);
                    let signer = Signer::start(Arc::clone(&key), self.store.clone(), move |error| {
                        if let Some(node) = node.upgrade() {
                            node.not_kept(&error);
                        }
                    });
                    self.identity.send_replace(Some(Known { key, in_file: found.in_file, signer }));
                    self.enter_all();
                    return;
                }
                Ok(Err(error)) => self.wants_person("identity", &error),
                Err(_) => self.wants_person("identity", &internal(&"the keyring gave up")),
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(KEYRING_AGAIN) => {}
            }
        }
    }

    /// Takes the keys of model servers into memory. A locked keyring is asked again.
    async fn find_server_keys(self: Arc<Self>) {
        while self.read_server_keys().await {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(KEYRING_AGAIN) => {}
            }
        }
    }

    /// Tells screens the whole status after a change, while one listens.
    async fn keep_showing(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.shown.notified() => {}
            }
            if self.events.receiver_count() == 0 {
                continue;
            }
            let status = self.status().await;
            self.tell(Event::Networks(status.networks.clone()));
            self.tell(Event::Status(Box::new(status)));
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SHOWN) => {}
            }
        }
    }
}

/// A request and its answer without HTTP in between.
///
/// # Errors
/// What the engine says went wrong.
pub async fn ask(resident: &dyn Resident, request: Request) -> Result<Response, ControlError> {
    match resident.answer(request).await {
        Response::Error(error) => Err(error),
        response => Ok(response),
    }
}

fn internal(error: &dyn std::fmt::Display) -> ControlError {
    ControlError::new(
        Code::Internal,
        format!("Idlewatt could not start: {error}."),
        "This is a defect, or the system lacks something that is always there.",
        "Report it with this line.",
    )
}
