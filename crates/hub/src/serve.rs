//! `idlewatt-hub serve`: listens, says where, and drains when told to stop.

use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use idlewatt_hub_core::ledger::FeeRate;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use url::Url;

use crate::admin::AdminDoor;
use crate::gateway;
use crate::hub::Hub;
use crate::store::Store;

/// Running answers get this long to finish once the hub was told to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// And this long to break off cleanly, with receipts, after that.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What `idlewatt-hub serve` was asked for.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of `hub.db`, `hub.key` and the operator's door; made when missing.
    pub data: PathBuf,
    /// The address that invites and nodes are given, where it is not the one listened on.
    pub public_url: Option<Url>,
    /// What nodes call this hub; without one, the address that they are given.
    pub name: Option<String>,
    /// The hub's part of each payment.
    pub fee: FeeRate,
}

/// Serves until SIGTERM or SIGINT, then drains. `with_parent` also ends it when stdin does: a program that holds the other
/// end has then ended, however it ended.
///
/// # Errors
/// When the address is in use, or the data folder cannot be opened.
pub async fn serve(options: ServeOptions, with_parent: bool) -> anyhow::Result<()> {
    let signal = stop_signal()?;
    let stop = async move {
        tokio::select! {
            () = signal => {}
            () = stdin_end(), if with_parent => {}
        }
    };
    let serving = Serving::bind(options).await?;
    let admin = tokio::spawn(
        AdminDoor::bind(serving.store().clone())
            .context("cannot make the door in the data folder through which the operator's commands come")?
            .serve(),
    );
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on http://{}", serving.address()).and_then(|()| stdout.flush())?;
    let done = serving.run(stop).await;
    admin.abort();
    done
}

/// A hub that is bound to its address and its data folder, and serves once it is [`run`](Self::run).
#[derive(Debug)]
pub struct Serving {
    hub: Arc<Hub>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Serving {
    /// Opens the data folder and the address.
    ///
    /// # Errors
    /// When the address is in use, or the data folder cannot be opened.
    pub async fn bind(options: ServeOptions) -> anyhow::Result<Self> {
        let ServeOptions { listen, data, public_url, name, fee } = options;
        let store = tokio::task::spawn_blocking(move || Store::open(&data, fee)).await??;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on {listen}; another program, perhaps another hub, may have it. Stop that one, or \
                 choose another address with --listen"
            )
        })?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() && public_url.as_ref().is_none_or(|url| url.scheme() != "https") {
            tracing::warn!(%address, "listening beyond this machine without encryption: put a TLS proxy in front and name it with --public-url");
        }
        let url = match public_url {
            Some(url) => url,
            None => Url::parse(&format!("http://{address}"))?,
        };
        let urls = vec![url.as_str().trim_end_matches('/').to_owned()];
        let name = name.unwrap_or_else(|| url.authority().to_owned());
        store.set_addresses(vec![url]).await?;
        Ok(Self { hub: Arc::new(Hub::new(store, name, urls)), listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it keeps.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.hub.store
    }

    /// Serves until `stop`, then drains: takes nothing new, tells every node, lets running answers finish for a while.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let Self { hub, listener, address } = self;
        let listener = listener.tap_io(|socket| {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "a socket keeps Nagle's delay");
            }
        });
        let (close, closed) = oneshot::channel::<()>();
        let server = axum::serve(listener, gateway::router(Arc::clone(&hub)));
        let server = server.with_graceful_shutdown(async {
            // A dropped sender means the same as a message: close.
            let _ = closed.await;
        });
        let mut server = tokio::spawn(async move { server.await });
        tracing::info!(%address, key = %hub.key, "serving");
        tokio::select! {
            () = stop => {}
            ended = &mut server => return Ok(ended??),
        }
        tracing::info!(under_way = hub.under_way(), "draining");
        hub.drain(DRAIN);
        if timeout(DRAIN, hub.idle()).await.is_err() {
            tracing::warn!(under_way = hub.under_way(), "answers outlast the drain and are broken off");
        }
        hub.cut_all();
        drop(close);
        hub.tasks.close();
        let ended = timeout(LAST_WORDS, async {
            hub.idle().await;
            hub.tasks.wait().await;
            (&mut server).await
        });
        match ended.await {
            Ok(ended) => Ok(ended??),
            Err(_) => {
                tracing::warn!("connections that would not end are dropped");
                server.abort();
                Ok(())
            }
        }
    }
}

async fn stdin_end() {
    let (held, end) = oneshot::channel::<()>();
    // A thread of its own: a runtime would wait for its read when it ends.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(held);
    });
    let _ = end.await;
}

#[cfg(unix)]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut ctrl_c = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        ctrl_c.recv().await;
    })
}
