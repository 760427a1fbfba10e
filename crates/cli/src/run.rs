//! `idlewatt run`: the daemon, with or without a tray.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use idlewatt_engine::Engine;
use idlewatt_engine::home::Home;
use tracing_subscriber::EnvFilter;

use crate::exit::{Exit, Failure};

/// Which events are logged, in the form of `tracing`'s filters.
const LOG_VARIABLE: &str = "IDLEWATT_LOG";

/// Runs until SIGTERM, Ctrl-C or `idlewatt stop`; running requests are handed back first.
///
/// # Errors
/// When the engine cannot start.
pub(crate) fn run(home: &Home, listen: Option<SocketAddr>, tray: bool) -> Result<(), Failure> {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    // One thread is enough for a node: it moves bytes and waits. Each further one is memory that never rests.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("The engine cannot start: {error}."),
            "The system gave it no timer or no sockets.",
            "See the limits of this user (`ulimit -a`).",
        )
    })?;
    let ended = runtime.block_on(serve(home.clone(), listen, tray));
    // A keyring may still be waiting for a person; nobody waits for it.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

async fn serve(home: Home, listen: Option<SocketAddr>, tray: bool) -> Result<(), Failure> {
    let mut end = Signals::new()?;
    let engine = Engine::start(home, listen).await?;
    // Whoever started the daemon may have closed its output; it runs all the same.
    drop(writeln!(std::io::stdout(), "control panel: {}", engine.panel()));
    drop(std::io::stdout().flush());
    let shown = if tray { Some(tokio::spawn(crate::tray::show(engine.resident()))) } else { None };
    tokio::select! {
        () = end.received() => tracing::info!("asked to end by a signal"),
        () = engine.asked_to_stop() => tracing::info!("asked to end"),
    }
    engine.stop().await;
    if let Some(shown) = shown {
        shown.abort();
    }
    Ok(())
}

/// What ends a daemon from outside.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(
                    Exit::Failed,
                    format!("Signals cannot be received: {error}."),
                    "The engine could not be ended in order.",
                    "This is a defect; report it.",
                )
            })
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "the same shape on every platform")]
    fn new() -> Result<Self, Failure> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    async fn received(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}
