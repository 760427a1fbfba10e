//! The page's and the tray's way to the engine: one request, one response, and the events as they come. The bearer stays
//! here; the page never holds it.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_util::StreamExt as _;
use idlewatt_control::{CONTROL_VERSION, Event, Request, Response};
use idlewatt_engine::home::{ControlFile, Home};
use idlewatt_protocol::sse::Splitter;
use reqwest::Client;
use tauri::{AppHandle, Emitter as _};

/// The name under which the page hears events.
const CHANNEL: &str = "control-event";
/// Probing a cold model may take minutes.
const ANSWER: Duration = Duration::from_secs(600);
const CONNECT: Duration = Duration::from_secs(5);
/// Between two tries to hear the events again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A way to the engine of one home.
#[derive(Clone)]
pub(crate) enum Link {
    /// This process holds the engine.
    #[cfg(not(target_os = "linux"))]
    Here(std::sync::Arc<dyn idlewatt_engine::door::Resident>),
    /// Another process does, behind its loopback door.
    There(Door),
}

/// The loopback door of whichever process holds a home.
#[derive(Clone)]
pub(crate) struct Door {
    home: Home,
    client: Client,
}

impl Link {
    /// The way to the process that holds `home`, now or later.
    pub(crate) fn there(home: Home) -> anyhow::Result<Self> {
        // The engine is on this machine, whatever proxy the environment names.
        let client = Client::builder().no_proxy().connect_timeout(CONNECT).build()?;
        Ok(Self::There(Door { home, client }))
    }

    /// Asks the engine one thing.
    pub(crate) async fn ask(&self, request: Request) -> anyhow::Result<Response> {
        match self {
            #[cfg(not(target_os = "linux"))]
            Self::Here(engine) => Ok(engine.answer(request).await),
            Self::There(door) => door.ask(&request).await,
        }
    }

    /// Passes the engine's events on to the page for as long as there is one. Whenever the way was lost or came back
    /// the page is told to ask again for what it shows.
    pub(crate) async fn forward(self, app: AppHandle) {
        match self {
            #[cfg(not(target_os = "linux"))]
            Self::Here(engine) => hear(engine.as_ref(), &app).await,
            Self::There(door) => door.forward(&app).await,
        }
    }
}

impl Door {
    fn resident(&self) -> anyhow::Result<ControlFile> {
        let resident = self.home.resident().context("Idlewatt is not running; open it anew to start it")?;
        ensure!(
            resident.control == CONTROL_VERSION,
            "the engine that runs is version {}, this window is {}: quit it in the tray and open Idlewatt anew",
            resident.version,
            env!("CARGO_PKG_VERSION"),
        );
        Ok(resident)
    }

    async fn ask(&self, request: &Request) -> anyhow::Result<Response> {
        let resident = self.resident()?;
        let answer = self
            .client
            .post(format!("http://{}/api/control", resident.address))
            .bearer_auth(&resident.token)
            .timeout(ANSWER)
            .json(request)
            .send()
            .await
            .context("the engine does not answer")?;
        answer.json().await.context("the engine answers something else")
    }

    async fn forward(&self, app: &AppHandle) {
        let mut wait = RETRY.0;
        loop {
            match self.hear(app).await {
                Ok(()) => wait = RETRY.0,
                Err(error) => tracing::debug!(error = format!("{error:#}"), "no events"),
            }
            tell(app, &Event::Resync);
            #[cfg(not(target_os = "linux"))]
            if self.home.resident().is_none() {
                crate::tray::gone(app);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY.1);
        }
    }

    /// Hears events until the stream ends. An error means that there was none.
    async fn hear(&self, app: &AppHandle) -> anyhow::Result<()> {
        let resident = self.resident()?;
        let address = format!("http://{}/api/events", resident.address);
        let answer = self.client.get(address).bearer_auth(&resident.token).send().await?;
        if !answer.status().is_success() {
            bail!("the engine answers {}", answer.status());
        }
        tell(app, &Event::Resync);
        let mut stream = answer.bytes_stream();
        let mut splitter = Splitter::default();
        while let Some(Ok(bytes)) = stream.next().await {
            if splitter.push(&bytes).is_err() {
                break;
            }
            while let Some(event) = splitter.next_event() {
                let Some(data) = event.data else { continue };
                match serde_json::from_slice(&data) {
                    Ok(event) => tell(app, &event),
                    Err(error) => tracing::debug!(%error, "an event of another version"),
                }
            }
        }
        Ok(())
    }
}

/// Hears the events of this process' own engine until it ends.
#[cfg(not(target_os = "linux"))]
async fn hear(engine: &dyn idlewatt_engine::door::Resident, app: &AppHandle) {
    use tokio::sync::broadcast::error::RecvError;
    // Subscribed first: nothing falls between the first status and the next.
    let mut events = engine.events();
    let mut missed = true;
    loop {
        if missed && let Response::Status(status) = engine.answer(Request::Status).await {
            tell(app, &Event::Status(status));
        }
        let heard = events.recv().await;
        missed = matches!(heard, Err(RecvError::Lagged(_)));
        match heard {
            Ok(event) => tell(app, &event),
            Err(RecvError::Lagged(_)) => tell(app, &Event::Resync),
            Err(RecvError::Closed) => return,
        }
    }
}

fn tell(app: &AppHandle, event: &Event) {
    #[cfg(not(target_os = "linux"))]
    crate::tray::follow(app, event);
    if let Err(error) = app.emit(CHANNEL, event) {
        tracing::debug!(%error, "the page is gone");
    }
}

/// What the page calls: the one door.
#[tauri::command]
pub(crate) async fn control(link: tauri::State<'_, Link>, request: Request) -> Result<Response, String> {
    link.ask(request).await.map_err(|error| format!("{error:#}"))
}
