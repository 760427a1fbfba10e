//! `idlewatt-hub serve`: listens, says where, and drains when told to stop.

use std::fmt;
use std::future::Future;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use idlewatt_hub_core::ledger::FeeRate;
use idlewatt_protocol::PublicKey;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::admin::AdminDoor;
use crate::doors::{Addresses, Announcement, Authority, Door, House, allow_connections};
use crate::gateway;
use crate::hub::Hub;
use crate::store::Store;

pub use crate::doors::{Bounds, Network, NotANetwork};

/// Running answers get this long to finish once the hub was told to stop.
const DRAIN: Duration = Duration::from_secs(30);

/// And this long to break off cleanly, with receipts, after that.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often this machine's own addresses are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// What `idlewatt-hub serve` was asked for.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen without encryption, for this machine or a proxy in front; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to listen with TLS, for the networks that this machine is in.
    pub lan: Option<SocketAddr>,
    /// Whether to say there by multicast DNS that a hub is here.
    pub announce: bool,
    /// Proxies whose word on where a request comes from is believed.
    pub proxies: Vec<Network>,
    /// What a connection may take of this machine.
    pub bounds: Bounds,
    /// The folder of `hub.db`, `hub.key` and the operator's door; made when missing.
    pub data: PathBuf,
    /// A further address that invites and nodes are given: the public one.
    pub public_url: Option<Url>,
    /// What nodes call this hub; without one, the address that they are given.
    pub name: Option<String>,
    /// The hub's part of each payment.
    pub fee: FeeRate,
}

impl ServeOptions {
    /// A hub with this folder for this machine only; port 0 takes a free one.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf) -> Self {
        Self {
            listen,
            lan: None,
            announce: true,
            proxies: Vec::new(),
            bounds: Bounds::default(),
            data,
            public_url: None,
            name: None,
            fee: FeeRate::NONE,
        }
    }
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
    allow_connections();
    let serving = Serving::bind(options).await?;
    let admin = tokio::spawn(
        AdminDoor::bind(serving.store().clone())
            .context("cannot make the door in the data folder through which the operator's commands come")?
            .serve(),
    );
    let mut ready = format!("listening on http://{}\n", serving.address());
    if let Some(lan) = serving.lan() {
        ready.push_str(&format!("listening on https://{lan}\n"));
    }
    // At once: whoever waits for the first line may close its end then.
    let mut stdout = std::io::stdout();
    stdout.write_all(ready.as_bytes()).and_then(|()| stdout.flush())?;
    serving.run(stop).await;
    admin.abort();
    Ok(())
}

/// A hub that is bound to its addresses and its data folder, and serves once it is [`run`](Self::run).
pub struct Serving {
    hub: Arc<Hub>,
    doors: Vec<Door>,
    address: SocketAddr,
    lan: Option<Lan>,
    public_url: Option<Url>,
    proxies: Vec<Network>,
    bounds: Bounds,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("address", &self.address).finish_non_exhaustive()
    }
}

/// The door to the networks that this machine is in.
struct Lan {
    address: SocketAddr,
    authority: Authority,
    announce: bool,
}

impl Serving {
    /// Opens the data folder and the addresses.
    ///
    /// # Errors
    /// When an address is in use, or the data folder cannot be opened.
    pub async fn bind(options: ServeOptions) -> anyhow::Result<Self> {
        let ServeOptions { listen, lan, announce, proxies, bounds, data, public_url, name, fee } = options;
        let store = tokio::task::spawn_blocking(move || Store::open(&data, fee)).await??;
        let (listener, address) = listen_on(listen, "--listen").await?;
        let is_behind_tls = public_url.as_ref().is_some_and(|url| url.scheme() == "https");
        if !address.ip().is_loopback() && !is_behind_tls {
            tracing::warn!(%address, "listening beyond this machine without encryption: `--lan` is encrypted, or put a TLS proxy in front and name it with --public-url");
        }
        let mut doors = vec![Door { listener, tls: None }];
        let lan = match lan {
            None => None,
            Some(lan) => {
                let (listener, address) = listen_on(lan, "--lan").await?;
                let authority = Authority::new(store.hub_key(), store.folder())?;
                let tls = TlsAcceptor::from(Arc::new(authority.server_config()?));
                doors.push(Door { listener, tls: Some(tls) });
                Some(Lan { address, authority, announce })
            }
        };
        let addresses =
            addresses(&PublicKey::from(store.hub_key()), address, lan.as_ref(), public_url.as_ref());
        let name = name.unwrap_or_else(|| {
            let url = public_url.as_ref().unwrap_or(&addresses.near);
            url.authority().to_owned()
        });
        // For the operator on this machine, past whatever proxy may be in front.
        if let Ok(near) = Url::parse(&format!("http://{}", this_machine(address))) {
            store.serves_at(near);
        }
        let hub = Arc::new(Hub::new(store, name, addresses));
        let serving = Self { hub, doors, address, lan, public_url, proxies, bounds };
        serving.is_found().await?;
        Ok(serving)
    }

    /// Where it listens without encryption.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens with TLS.
    #[must_use]
    pub fn lan(&self) -> Option<SocketAddr> {
        self.lan.as_ref().map(|lan| lan.address)
    }

    /// Invites and the certificate name the addresses that the hub has now.
    async fn is_found(&self) -> anyhow::Result<()> {
        let far = self.hub.urls(false);
        if let Some(lan) = &self.lan {
            let near = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
            let named =
                far.iter().filter_map(|url| Some(url.host_str()?.trim_matches(['[', ']']).to_owned()));
            lan.authority.certify(&named.chain(near).collect::<Vec<_>>())?;
        }
        self.hub.store.set_addresses(far).await?;
        Ok(())
    }

    /// Follows this machine from network to network, as laptops and leases of routers go.
    async fn stay_found(&self) {
        let Some(lan) = &self.lan else { return std::future::pending().await };
        loop {
            sleep(LOOK).await;
            let now = addresses(&self.hub.key, self.address, Some(lan), self.public_url.as_ref());
            if self.hub.found_at(now) {
                tracing::info!(urls = ?self.hub.urls(false), "the hub has other addresses than before");
                if let Err(error) = self.is_found().await {
                    tracing::error!(%error, "the hub's new addresses could not be kept");
                }
            }
        }
    }

    /// What it keeps.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.hub.store
    }

    /// Serves until `stop`, then drains: takes nothing new, tells every node, lets running answers finish for a while.
    ///
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let doors = std::mem::take(&mut self.doors);
        let hub = Arc::clone(&self.hub);
        let house = Arc::new(House {
            hub: Arc::clone(&hub),
            router: gateway::router(Arc::clone(&hub)),
            bounds: self.bounds,
            proxies: std::mem::take(&mut self.proxies),
            crowd: Arc::default(),
            places: Arc::new(Semaphore::new(self.bounds.connections)),
            closing: CancellationToken::new(),
            connections: TaskTracker::new(),
        });
        for door in doors {
            house.connections.spawn(door.serve(Arc::clone(&house)));
        }
        let _announced = self
            .lan
            .as_ref()
            .filter(|lan| lan.announce)
            .map(|lan| Announcement::begin(&hub.key, lan.address));
        tracing::info!(address = %self.address, lan = ?self.lan(), key = %hub.key, "serving");
        tokio::select! {
            () = stop => {}
            () = self.stay_found() => {}
            () = crate::routing::follow(Arc::clone(&hub)) => {}
        }
        tracing::info!(under_way = hub.under_way(), "draining");
        hub.drain(DRAIN);
        if timeout(DRAIN, hub.idle()).await.is_err() {
            tracing::warn!(under_way = hub.under_way(), "answers outlast the drain and are broken off");
        }
        hub.cut_all();
        house.closing.cancel();
        hub.tasks.close();
        house.connections.close();
        let ended = timeout(LAST_WORDS, async {
            hub.idle().await;
            hub.tasks.wait().await;
            house.connections.wait().await;
        });
        if ended.await.is_err() {
            tracing::warn!("connections that would not end are dropped");
        }
    }
}

async fn listen_on(address: SocketAddr, option: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; another program, perhaps another hub, may have it. Stop that one, or \
             choose another address with {option}"
        )
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Where a hub with this key is to be found now.
fn addresses(key: &PublicKey, plain: SocketAddr, lan: Option<&Lan>, public: Option<&Url>) -> Addresses {
    let name = lan.filter(|lan| lan.announce).map(|_| Announcement::host(key));
    Addresses::new(plain, lan.map(|lan| lan.address), name.as_deref(), public.cloned())
}

/// Where this machine reaches what listens there.
fn this_machine(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        _ => address,
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
