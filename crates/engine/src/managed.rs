//! A llama-server of the node's own, for hosts who have no model server: it runs only while a model may be loaded for
//! sharing, and ends to give the GPU back. A process that ends frees its VRAM in milliseconds.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use idlewatt_control::{Code, ControlError};
use idlewatt_core::yielding::Memory;
use idlewatt_servers::{Launch, Managed, ServerKeys, StartError};
use url::Url;

use crate::node::{Node, lock};

/// A model is loaded within this time.
const LOADED: Duration = Duration::from_secs(300);
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(300);

/// The server while it runs.
#[derive(Debug, Default)]
pub(crate) struct OwnServer {
    running: Mutex<Option<Arc<Managed>>>,
    key: Arc<OwnKey>,
}

/// The key of this process for the server that it started, and for nobody else.
#[derive(Debug, Default)]
pub(crate) struct OwnKey(Mutex<Option<(Url, String)>>);

impl ServerKeys for OwnKey {
    fn key(&self, root: &Url) -> Option<String> {
        let known = lock(&self.0);
        known
            .as_ref()
            .filter(|(url, _)| url.port() == root.port() && is_loopback(root))
            .map(|it| it.1.clone())
    }
}

impl OwnServer {
    /// For the client that asks model servers.
    pub(crate) fn keys(&self) -> Arc<dyn ServerKeys> {
        Arc::clone(&self.key) as Arc<dyn ServerKeys>
    }

    /// The server, while it runs.
    pub(crate) fn running(&self) -> Option<Arc<Managed>> {
        lock(&self.running).clone()
    }

    /// Where it listens, while it runs.
    pub(crate) fn url(&self) -> Option<Url> {
        self.running().map(|it| it.url().clone())
    }

    /// The last lines that it printed; empty while it does not run.
    pub(crate) fn log(&self) -> Vec<String> {
        self.running().map(|it| it.log()).unwrap_or_default()
    }

    async fn start(&self, launch: &Launch) -> Result<(), StartError> {
        let key = HEXLOWER.encode(&rand::random::<[u8; 24]>());
        let managed = Managed::start(launch, &key, LOADED).await?;
        *lock(&self.key.0) = Some((managed.url().clone(), key));
        *lock(&self.running) = Some(Arc::new(managed));
        Ok(())
    }

    /// Ends it; its memory is free when this returns.
    pub(crate) async fn stop(&self) {
        let running = lock(&self.running).take();
        *lock(&self.key.0) = None;
        if let Some(managed) = running {
            managed.end();
            managed.ended().await;
        }
    }
}

impl Node {
    /// Runs the server while it may run, and again when it ends by itself. Ends when the node stops.
    pub(crate) async fn keep_own_server(self: Arc<Self>) {
        let mut memory = self.giving_back.memory();
        let mut config = self.config.subscribe();
        let mut again = AGAIN_FIRST;
        let mut wanted_before = None;
        let mut begun = Instant::now();
        loop {
            let now = *memory.borrow_and_update();
            let wanted = self.launch().filter(|_| now == Memory::MayLoad);
            let changed = wanted_before != self.launch();
            wanted_before = self.launch();
            if changed {
                again = AGAIN_FIRST;
                self.settled("managed");
            }
            let runs = self.own_server.running().is_some();
            match wanted {
                Some(launch) if !runs => {
                    begun = Instant::now();
                    tokio::select! {
                        () = self.stopping.cancelled() => return,
                        // What is given up on the way is ended with it.
                        () = self.own_server_forbidden() => continue,
                        started = self.own_server.start(&launch) => match started {
                            Ok(()) => {
                                tracing::info!(ms = begun.elapsed().as_millis(), "the node's own model server runs");
                                self.settled("managed");
                                self.look.notify_one();
                            }
                            Err(error) => {
                                self.wants_person("managed", &not_started(&launch, &error));
                                tokio::select! {
                                    () = self.stopping.cancelled() => return,
                                    () = tokio::time::sleep(again) => {}
                                    _ = config.changed() => {}
                                }
                                again = (again * 2).min(AGAIN_LAST);
                            }
                        }
                    }
                    continue;
                }
                None if runs && (now == Memory::Free || self.launch().is_none()) => {
                    self.end_own_server().await;
                    tracing::info!("the node's own model server has ended");
                    self.look.notify_one();
                    continue;
                }
                Some(_) if changed && runs => {
                    self.end_own_server().await;
                    continue;
                }
                _ => {}
            }
            tokio::select! {
                () = self.stopping.cancelled() => break,
                _ = memory.changed() => {}
                _ = config.changed() => {}
                () = self.own_server_ended() => {
                    if begun.elapsed() > AGAIN_LAST {
                        again = AGAIN_FIRST;
                    }
                    let last = self.own_server.log().pop().unwrap_or_default();
                    tracing::warn!(%last, after = ?again, "the node's own model server ended; it is started again");
                    self.end_own_server().await;
                    self.look.notify_one();
                    tokio::select! {
                        () = self.stopping.cancelled() => break,
                        () = tokio::time::sleep(again) => {}
                    }
                    again = (again * 2).min(AGAIN_LAST);
                }
            }
        }
        self.end_own_server().await;
    }

    /// Ends it, and offers nothing of it any more: whoever came before the next look would be answered by nobody.
    async fn end_own_server(self: &Arc<Self>) {
        if self.own_server.url().is_some_and(|url| self.services.ended(&url)) {
            self.services_changed();
        }
        self.own_server.stop().await;
    }

    /// What the host wants started.
    fn launch(&self) -> Option<Launch> {
        let config = self.config();
        let settings = config.settings();
        let model = settings.managed.model.clone()?;
        Some(Launch {
            program: settings.managed.program.clone().unwrap_or_else(|| PathBuf::from("llama-server")),
            model,
            port: settings.managed.port,
            context: settings.managed.context,
            slots: settings.managed.slots,
            gpu_layers: settings.managed.gpu_layers,
        })
    }

    async fn own_server_forbidden(&self) {
        // The sender lives as long as the node.
        drop(self.giving_back.memory().wait_for(|it| *it != Memory::MayLoad).await);
    }

    async fn own_server_ended(&self) {
        match self.own_server.running() {
            Some(managed) => managed.ended().await,
            None => std::future::pending().await,
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "[::1]"))
}

fn not_started(launch: &Launch, error: &StartError) -> ControlError {
    let action = match error {
        StartError::Program { .. } => {
            "Install llama.cpp, or name it: `idlewatt config set managed.program PATH`."
        }
        StartError::PortInUse(_) => {
            "End what listens there, or choose another: `idlewatt config set managed.port 4183`."
        }
        StartError::Ended { .. } | StartError::Late(_) => {
            "See that the file is a GGUF model that fits into this machine's memory."
        }
    };
    ControlError::new(
        Code::ServerFailed,
        format!("Your own model server does not start: {error}."),
        format!("{} cannot be offered.", launch.model.display()),
        action,
    )
}
