//! What is measured: which model of which local server, on which cards.

use std::sync::Arc;

use idlewatt_core::device::Scope;
use idlewatt_devices::{Machine, Sensors, serving};
use idlewatt_engine::config::Settings;
use idlewatt_servers::{DiscoverOptions, Model, ModelServer, NoKeys, ServerError, Servers};

use crate::exit::{Exit, Failure};
use crate::sampling::Sampling;

/// A model, the server that has it, and the sensors around it.
pub(super) struct Target {
    pub(super) server: Arc<dyn ModelServer>,
    pub(super) model: Model,
    pub(super) place: Place,
}

/// Where the server computes, and what measures that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Sensors whose sum is its power; empty where nothing measures it.
    pub(super) sensors: Vec<String>,
    /// The cards among them.
    pub(super) cards: Vec<String>,
    /// Product names.
    pub(super) gpus: Vec<String>,
    /// Product name, where it computes on no card.
    pub(super) processor: Option<String>,
    /// Why energy is not known, or only guessed: for people.
    pub(super) doubt: Option<String>,
}

impl Target {
    /// Finds the one model that is meant.
    ///
    /// # Errors
    /// When there is none, or several could be meant.
    pub(super) async fn find(
        settings: &Settings,
        own_port: Option<u16>,
        wanted: Option<&str>,
    ) -> Result<Self, Failure> {
        let servers = Servers::new(Arc::new(NoKeys)).map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("{error}."),
                "No server can be asked.",
                "Check this system's certificates.",
            )
        })?;
        let exclude_ports = own_port.into_iter().collect();
        let options =
            DiscoverOptions { scan: settings.scan, urls: settings.server_urls.clone(), exclude_ports };
        let found = servers.discover(&options).await;
        let all = found.into_iter().filter_map(|it| Some((it.server?, it.models.ok()?)));
        let all: Vec<(Arc<dyn ModelServer>, Model)> = all
            .flat_map(|(server, models)| models.into_iter().map(move |model| (Arc::clone(&server), model)))
            .collect();
        let meant = |wanted: &str, model: &Model| {
            model.artefact.answers_to(wanted) || model.artefact.name().contains(wanted)
        };
        let fitting: Vec<_> =
            all.iter().filter(|(_, model)| wanted.is_none_or(|wanted| meant(wanted, model))).collect();
        let exact = |it: &&&(Arc<dyn ModelServer>, Model)| {
            wanted.is_none_or(|wanted| it.1.artefact.answers_to(wanted))
        };
        let warm: Vec<_> = fitting.iter().filter(exact).filter(|it| it.1.warm).copied().collect();
        let chosen = match (fitting.as_slice(), warm.as_slice()) {
            ([one], _) | (_, [one]) => (*one).clone(),
            _ => return Err(unclear(wanted, &all, fitting.is_empty())),
        };
        let (server, model) = chosen;
        Ok(Self { server, model, place: Place::default() })
    }

    /// The port on this machine; `None` for a server elsewhere.
    pub(super) fn port(&self) -> Option<u16> {
        let url = self.server.url();
        let here = match url.host()? {
            url::Host::Ipv4(ip) => ip.is_loopback(),
            url::Host::Ipv6(ip) => ip.is_loopback(),
            url::Host::Domain(name) => name == "localhost",
        };
        url.port_or_known_default().filter(|_| here)
    }
}

impl Place {
    /// Looks which cards the server on this port uses. For once the model is loaded.
    pub(super) fn of(port: Option<u16>, sampling: &Sampling, sensors: &mut Sensors) -> Self {
        let Some(port) = port else {
            return Self { doubt: Some("the model server is on another machine".into()), ..Self::default() };
        };
        let (cards, server) = (sampling.cards(), serving(port));
        let users = sensors.gpus().processes();
        let used = |id: &str| {
            users.iter().any(|it| it.gpu == id && server.as_ref().is_some_and(|all| all.contains(&it.pid)))
        };
        let on: Vec<_> = cards.iter().filter(|card| used(&card.id)).collect();
        let named = |on: Vec<&idlewatt_core::device::GpuReading>, doubt| Self {
            sensors: on.iter().map(|card| card.id.clone()).collect(),
            cards: on.iter().map(|card| card.id.clone()).collect(),
            gpus: on.iter().map(|card| card.name.clone()).collect(),
            processor: None,
            doubt,
        };
        if !on.is_empty() {
            return named(on, None);
        }
        // In a container, and on Windows, no driver names a process: then memory in use says that somebody computes there.
        if users.is_empty() && cards.iter().any(|card| card.vram_used > Some(UNCLAIMED)) {
            let doubt = "no driver tells which card the server uses, so all of them count";
            return named(cards.iter().collect(), Some(doubt.into()));
        }
        let packages = sampling.sensors().iter();
        let packages =
            packages.filter(|it| it.scope == Scope::Package && !cards.iter().any(|card| card.id == it.id));
        let sensors: Vec<String> = packages.map(|it| it.id.clone()).collect();
        let doubt = sensors
            .is_empty()
            .then(|| "the server computes on the processor, which no sensor here measures".into());
        let processor = Machine::look().and_then(|it| it.cpu).filter(|_| doubt.is_none());
        Self { sensors, processor: processor.or_else(|| Some("processor".into())), doubt, ..Self::default() }
    }
}

/// A card holds less than this for itself, bytes.
const UNCLAIMED: u64 = 1 << 30;

fn unclear(wanted: Option<&str>, all: &[(Arc<dyn ModelServer>, Model)], none: bool) -> Failure {
    let names: Vec<String> =
        all.iter().map(|(server, model)| format!("{} ({})", model.artefact.name(), server.label())).collect();
    let list = names.join(", ");
    match (all.is_empty(), none, wanted) {
        (true, ..) => Failure::new(
            Exit::NotFound,
            "No model server was found on this machine.",
            "The workload needs a model to ask.",
            "Start Ollama or llama.cpp, or name a server: `idlewatt config set servers.urls URL`.",
        ),
        (_, true, Some(wanted)) => Failure::new(
            Exit::NotFound,
            format!("No model here is called {wanted}."),
            format!("Found: {list}."),
            "Name one of these with `--model`.",
        ),
        _ => Failure::new(
            Exit::NotFound,
            "Several models could be meant.",
            format!("Found: {list}."),
            "Choose one with `--model`.",
        ),
    }
}

/// What to say of a server that failed.
pub(super) fn failed(error: &ServerError) -> Failure {
    Failure::new(
        Exit::ServerFailed,
        format!("The workload broke off: {error}."),
        "Nothing of it is kept.",
        "Try a short chat with the server itself, then again.",
    )
}
