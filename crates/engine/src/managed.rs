//! A llama-server of the node's own, for hosts who have no model server: it runs only while a model may be loaded for
//! sharing, and ends to give the GPU back. A process that ends frees its VRAM in milliseconds.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use idlewatt_control::{Code, ControlError};
use idlewatt_core::yielding::Memory;
use idlewatt_servers::files::ModelFiles;
use idlewatt_servers::plan::Plan;
use idlewatt_servers::{Launch, Managed, ServerKeys, StartError};
use tokio::sync::watch;
use url::Url;

use crate::config::ManagedServer;
use crate::node::{Node, lock};

/// A model is loaded within this time.
const LOADED: Duration = Duration::from_secs(300);
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(300);
/// After trouble it is well again when it has run for this long.
const STEADY: Duration = Duration::from_secs(120);

/// The server while it runs.
#[derive(Debug, Default)]
pub(crate) struct OwnServer {
    running: watch::Sender<Option<Arc<Managed>>>,
    key: Arc<OwnKey>,
    /// How the model that runs was loaded.
    plan: Mutex<Option<Plan>>,
    /// What it printed last, after its end too.
    said: Mutex<Vec<String>>,
    files: Arc<ModelFiles>,
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
        self.running.borrow().clone()
    }

    /// The server while it runs, and every change of it.
    pub(crate) fn runs(&self) -> watch::Receiver<Option<Arc<Managed>>> {
        self.running.subscribe()
    }

    /// Where it listens, while it runs.
    pub(crate) fn url(&self) -> Option<Url> {
        self.running().map(|it| it.url().clone())
    }

    /// How it was loaded, while it runs; `None` too where it decided that itself.
    pub(crate) fn plan(&self) -> Option<Plan> {
        lock(&self.plan).clone()
    }

    /// The last lines that it printed, or that the one before it printed.
    pub(crate) fn log(&self) -> Vec<String> {
        self.running().map_or_else(|| lock(&self.said).clone(), |it| it.log())
    }

    /// What was read of model files.
    pub(crate) fn files(&self) -> Arc<ModelFiles> {
        Arc::clone(&self.files)
    }

    async fn start(&self, launch: &Launch, plan: Option<Plan>) -> Result<(), StartError> {
        let key = HEXLOWER.encode(&rand::random::<[u8; 24]>());
        let started = Managed::start(launch, &key, LOADED).await;
        if let Err(StartError::Ended { log }) = &started {
            lock(&self.said).clone_from(log);
        }
        let managed = started?;
        *lock(&self.key.0) = Some((managed.url().clone(), key));
        *lock(&self.plan) = plan;
        self.running.send_replace(Some(Arc::new(managed)));
        Ok(())
    }

    /// Ends it; its memory is free when this returns.
    pub(crate) async fn stop(&self) {
        let running = self.running.send_replace(None);
        *lock(&self.key.0) = None;
        *lock(&self.plan) = None;
        if let Some(managed) = running {
            managed.end();
            managed.ended().await;
            *lock(&self.said) = managed.log();
        }
    }
}

impl Node {
    /// Runs the server while it may run, and again when it ends by itself. Ends when the node stops.
    pub(crate) async fn keep_own_server(self: Arc<Self>) {
        let mut memory = self.giving_back.memory();
        let mut config = self.config.subscribe();
        let mut trouble = Trouble::default();
        let mut before = None;
        loop {
            let now = *memory.borrow_and_update();
            let wanted = self.wanted();
            let changed = before != wanted;
            before.clone_from(&wanted);
            if changed {
                trouble = Trouble::default();
                self.settled("managed");
                self.rest_is_over();
            }
            let runs = self.own_server.running().is_some();
            if runs && (changed || wanted.is_none() || now == Memory::Free) {
                self.end_own_server().await;
                tracing::info!("the node's own model server has ended");
                self.look.notify_one();
                continue;
            }
            if runs && now == Memory::Rests {
                // What was seen of it stays on offer.
                if self.own_server.url().is_some_and(|url| self.services.rests(&url)) {
                    self.services_changed();
                }
                self.own_server.stop().await;
                continue;
            }
            let starts = wanted.filter(|_| !runs && now == Memory::MayLoad && !trouble.waits());
            if let Some(wanted) = starts {
                tokio::select! {
                    () = self.stopping.cancelled() => break,
                    // What is given up on the way is ended with it.
                    () = self.is_not_to_run(&wanted) => {}
                    started = self.start_own_server(&wanted) => match started {
                        Ok(()) if trouble.is_known() => trouble.watches(),
                        Ok(()) => self.settled("managed"),
                        Err(error) => {
                            self.wants_person("managed", &error);
                            trouble.begins();
                        }
                    }
                }
                continue;
            }
            tokio::select! {
                () = self.stopping.cancelled() => break,
                _ = memory.changed() => {}
                _ = config.changed() => {}
                () = trouble.over(runs) => {
                    if runs {
                        trouble = Trouble::default();
                        self.settled("managed");
                    }
                }
                () = self.own_server_ended() => {
                    let error = ended(&self.own_server.log());
                    self.end_own_server().await;
                    self.look.notify_one();
                    self.wants_person("managed", &error);
                    trouble.begins();
                }
            }
        }
        self.end_own_server().await;
    }

    async fn start_own_server(&self, wanted: &ManagedServer) -> Result<(), ControlError> {
        let begun = Instant::now();
        let (launch, plan) = self.launch(wanted).await?;
        let how = plan.as_ref().map(ToString::to_string);
        self.own_server.start(&launch, plan).await.map_err(|error| not_started(&launch, &error))?;
        let took = begun.elapsed();
        tracing::info!(ms = took.as_millis(), how, "the node's own model server runs");
        for row in self.own_server.url().map_or_else(Vec::new, |url| self.services.woke(&url, took)) {
            drop(self.store.put_service(row));
        }
        self.look.notify_one();
        Ok(())
    }

    /// Ends it, and offers nothing of it any more: whoever came before the next look would be answered by nobody.
    async fn end_own_server(self: &Arc<Self>) {
        if self.own_server.url().is_some_and(|url| self.services.ended(&url)) {
            self.services_changed();
        }
        self.own_server.stop().await;
    }

    /// What the host wants to run.
    fn wanted(&self) -> Option<ManagedServer> {
        let config = self.config();
        let managed = &config.settings().managed;
        // Where to look for models changes nothing of the one that runs.
        managed.model.as_ref().map(|_| ManagedServer { folders: Vec::new(), ..managed.clone() })
    }

    /// Resolves when the host wants another, or no memory may be loaded any more.
    async fn is_not_to_run(&self, wanted: &ManagedServer) {
        let (mut memory, mut config) = (self.giving_back.memory(), self.config.subscribe());
        // The senders live as long as the node.
        tokio::select! {
            _ = memory.wait_for(|it| *it != Memory::MayLoad) => {}
            () = async { while self.wanted().as_ref() == Some(wanted) { drop(config.changed().await); } } => {}
        }
    }

    async fn own_server_ended(&self) {
        match self.own_server.running() {
            Some(managed) => managed.ended().await,
            None => std::future::pending().await,
        }
    }
}

/// A server that does not start, or does not stay: when it is tried again, and when that is forgotten.
#[derive(Default)]
struct Trouble {
    after: Option<Duration>,
    until: Option<Instant>,
}

impl Trouble {
    /// It happened once more: the next try waits twice as long.
    fn begins(&mut self) {
        let after = self.after.map_or(AGAIN_FIRST, |it| (it * 2).min(AGAIN_LAST));
        tracing::warn!(?after, "the node's own model server is tried again");
        (self.after, self.until) = (Some(after), Some(Instant::now() + after));
    }

    /// It runs: it is well again when it has run for a while.
    fn watches(&mut self) {
        self.until = Some(Instant::now() + STEADY);
    }

    fn is_known(&self) -> bool {
        self.after.is_some()
    }

    fn waits(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }

    /// Resolves when the wait is over, or while it runs when it has run for long enough.
    async fn over(&self, runs: bool) {
        match self.until {
            Some(until) if runs || self.waits() => tokio::time::sleep_until(until.into()).await,
            _ => std::future::pending().await,
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
            "`idlewatt doctor` shows what it printed. An older llama.cpp does not know newer GGUF models: update it."
        }
    };
    ControlError::new(
        Code::ServerFailed,
        format!("Your own model server does not start: {error}."),
        format!("{} cannot be offered.", launch.model.display()),
        action,
    )
}

fn ended(log: &[String]) -> ControlError {
    let last = log.iter().rfind(|it| !it.is_empty()).map_or("it said nothing", String::as_str);
    ControlError::new(
        Code::ServerFailed,
        format!("Your own model server ended by itself: {last}"),
        "It is started again, less and less often while that goes on.",
        "`idlewatt doctor` shows what it printed.",
    )
}
