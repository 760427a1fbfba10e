//! Windows and macOS: this process is the resident and holds the engine, unless another one already does.

use std::fs::File;

use idlewatt_control::{Code, ControlError, Request};
use idlewatt_engine::Engine;
use idlewatt_engine::home::{Home, not_written};
use tauri::AppHandle;
use tauri::async_runtime::JoinHandle;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use super::{START, announced};
use crate::link::Link;

/// Which events the engine logs, in the form of `tracing`'s filters: as for `idlewatt run`.
const LOG_VARIABLE: &str = "IDLEWATT_LOG";

/// The engine of this process.
pub(crate) struct Held {
    link: Link,
    ended: JoinHandle<()>,
}

/// Starts the engine of this home, unless another process holds it and serves as well. Once somebody asks the engine to
/// stop, in the tray, the window or by `idlewatt stop`, it hands running requests back and `app` ends.
///
/// # Errors
/// When the home, the settings, the database or the address cannot be used.
pub(crate) async fn start(home: &Home, app: AppHandle) -> anyhow::Result<Option<Held>> {
    if home.resident().is_some() {
        crate::tell::log_to_stderr();
        return Ok(None);
    }
    log(home)?;
    let engine = match Engine::start(home.clone(), None).await {
        Ok(engine) => engine,
        // Another one took this home at the same moment.
        Err(error) if error.code == Code::HomeTaken => {
            return timeout(START, announced(home)).await.map(|_| None).map_err(|_| error.into());
        }
        Err(error) => return Err(error.into()),
    };
    let link = Link::Here(engine.resident());
    let ended = tauri::async_runtime::spawn(async move {
        engine.asked_to_stop().await;
        engine.stop().await;
        app.exit(0);
    });
    Ok(Some(Held { link, ended }))
}

impl Held {
    /// The way to this engine.
    pub(crate) fn link(&self) -> Link {
        self.link.clone()
    }

    /// Stops the engine in order where the process ends for another reason, such as the session's end.
    pub(crate) fn end(self) {
        tauri::async_runtime::block_on(async {
            drop(self.link.ask(Request::Stop).await);
            drop(self.ended.await);
        });
    }
}

/// A program without a console logs to a file beside its lock. It begins anew with each engine.
fn log(home: &Home) -> Result<(), ControlError> {
    home.prepare()?;
    let path = home.run.join("resident.log");
    let file = File::create(&path).map_err(|error| not_written(&path, &error))?;
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(file).with_ansi(false).init();
    Ok(())
}
