//! The hub's doors: where connections come in, what each may take of this machine, and who is behind it.
//!
//! One door is for this machine, or for a reverse proxy in front: plain HTTP/1.1. The other, opened by choice, is for the
//! networks that this machine is in: TLS with a certificate that the hub's own key vouches for, HTTP/1.1 or HTTP/2. What
//! a request is allowed to do is not decided here.

mod addresses;
mod announce;
mod bounded;
mod certificate;
mod peer;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse as _, Response};
use axum::{BoxError, Router};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service as _;

use crate::gateway::{Refusal, refusal};
use crate::hub::Hub;
use bounded::Bounded;
use idlewatt_hub_core::openai::ApiError;
use peer::{Ticket, client, is_in};

pub(crate) use addresses::Addresses;
pub(crate) use announce::Announcement;
pub(crate) use certificate::Authority;
pub(crate) use peer::{Crowd, Peer};
pub use peer::{Network, NotANetwork};

/// What a connection may take of this machine. The defaults are what a hub uses; each is said in docs/hub.md.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// TLS is agreed within this time.
    pub handshake: Duration,
    /// The head of a request is here within this time, and a connection without a request is kept for as long: a little
    /// more than reverse proxies keep theirs (nginx 60 s), so that it is they who close.
    pub head: Duration,
    /// A peer that takes nothing of what it is sent is dropped after this time: twice that after which an answer is given up,
    /// so that whoever reads on in between is told.
    pub stall: Duration,
    /// Connections that one address may have at a time; requests, where it comes through a trusted proxy. Nodes that
    /// joined and this machine itself are not counted. Of IPv6 an address is its /64.
    pub per_address: usize,
    /// Connections in all, nodes aside; further ones wait in the system's queue.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(65),
            stall: 2 * idlewatt_protocol::limits::CREDIT_TIMEOUT,
            per_address: 256,
            connections: 16 * 1024,
        }
    }
}

/// Longest head of a request, bytes; and how many header fields.
const HEAD_BYTES: usize = 32 * 1024;
const HEAD_FIELDS: usize = 100;
/// Bytes of one HTTP/1 connection in either direction that are held here.
const BUFFER: usize = 64 * 1024;
/// Requests at a time on one HTTP/2 connection, and how much each and all of them may send ahead, bytes.
const H2_STREAMS: u32 = 64;
const H2_STREAM_WINDOW: u32 = 128 * 1024;
const H2_WINDOW: u32 = 1024 * 1024;
/// Streams that a peer may open and reset before they were taken (CVE-2023-44487).
const H2_RESETS: usize = 20;
const H2_PING: Duration = Duration::from_secs(30);
const H2_PONG: Duration = Duration::from_secs(20);
/// Longest head of an HTTP/2 request, bytes, as its fields count there.
const HEAD_LIST: u32 = 32 * 1024;
const H2: &[u8] = b"h2";
/// When a client of a crowded address tries again.
const CROWDED: Duration = Duration::from_secs(2);
/// Accepting fails when the process is out of files, mostly: others may close theirs within this time.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// As many connections as the system lets this process have: the usual soft limit of 1,024 files is there for programs
/// that use `select`.
#[cfg(unix)]
pub(crate) fn allow_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, files) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Where there is no such limit.
#[cfg(not(unix))]
pub(crate) fn allow_connections() {}

/// A listening address, and how to speak there.
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// `None` speaks plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
}

/// What all connections share.
pub(crate) struct House {
    pub(crate) hub: Arc<Hub>,
    pub(crate) router: Router,
    pub(crate) bounds: Bounds,
    /// Whose word on where a request comes from is believed.
    pub(crate) proxies: Vec<Network>,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) places: Arc<Semaphore>,
    /// Connections take no further request, once cancelled.
    pub(crate) closing: CancellationToken,
    pub(crate) connections: TaskTracker,
}

impl Door {
    /// Takes connections until the house closes.
    pub(crate) async fn serve(self, house: Arc<House>) {
        let Self { listener, tls } = self;
        loop {
            let accepted = tokio::select! {
                accepted = accept(&listener, &house.places) => accepted,
                () = house.closing.cancelled() => return,
            };
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(OUT_OF_FILES).await;
                    continue;
                }
            };
            house.hub.metrics.connections.add(1);
            let Some(ticket) = house.admit(peer.ip()) else {
                house.hub.metrics.connections_refused.add(1);
                tracing::debug!(peer = %peer.ip(), "one address has too many connections");
                continue;
            };
            let (within, tls) = (Arc::clone(&house), tls.clone());
            house.connections.spawn(async move {
                let _place = place;
                let open = &within.hub.metrics.connections_open;
                open.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = within.serve(stream, peer, tls, ticket).await {
                    tracing::debug!(peer = %peer.ip(), %error, "a connection ended");
                }
                within.hub.metrics.connections_open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // An IPv4 peer at an IPv6 door is the IPv4 peer everywhere behind it.
    Ok((stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()), place))
}

impl House {
    /// A place for this address; `None` where it has too many. Who speaks for others is counted by request.
    fn admit(&self, address: IpAddr) -> Option<Ticket> {
        if address.is_loopback() || is_in(&self.proxies, address) {
            return Some(Ticket::uncounted());
        }
        self.crowd.enter(address, self.bounds.per_address)
    }

    async fn serve(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
        ticket: Ticket,
    ) -> Result<(), BoxError> {
        let stream = Bounded::new(stream, self.bounds.head, self.bounds.stall);
        let ticket = Arc::new(ticket);
        let Some(tls) = tls else { return self.http1(stream, peer, false, ticket).await };
        let stream = timeout(self.bounds.handshake, tls.accept(stream)).await??;
        if stream.get_ref().1.alpn_protocol() == Some(H2) {
            self.http2(stream, peer, ticket).await
        } else {
            self.http1(stream, peer, true, ticket).await
        }
    }

    async fn http1(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        encrypted: bool,
        ticket: Arc<Ticket>,
    ) -> Result<(), BoxError> {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.bounds.head);
        builder.max_headers(HEAD_FIELDS).max_header_size(HEAD_BYTES).max_buf_size(BUFFER);
        let service = service_fn(|request| self.answer(request, peer, encrypted, &ticket));
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades());
        tokio::select! {
            ended = serving.as_mut() => return Ok(ended?),
            () = self.closing.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        Ok(serving.await?)
    }

    async fn http2(
        self: &Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        ticket: Arc<Ticket>,
    ) -> Result<(), BoxError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(H2_PING).keep_alive_timeout(H2_PONG);
        builder.max_concurrent_streams(H2_STREAMS).max_pending_accept_reset_streams(H2_RESETS);
        builder.initial_stream_window_size(H2_STREAM_WINDOW).initial_connection_window_size(H2_WINDOW);
        builder.max_header_list_size(HEAD_LIST).max_send_buf_size(BUFFER);
        let house = Arc::clone(self);
        let service = service_fn(move |request| {
            let (house, ticket) = (Arc::clone(&house), Arc::clone(&ticket));
            async move { house.answer(request, peer, true, &ticket).await }
        });
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            ended = serving.as_mut() => return Ok(ended?),
            () = self.closing.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        Ok(serving.await?)
    }

    async fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        encrypted: bool,
        ticket: &Arc<Ticket>,
    ) -> Result<Response, Infallible> {
        let address = client(&self.proxies, peer.ip(), request.headers());
        let mut ticket = Arc::clone(ticket);
        if address != peer.ip() {
            let Some(of_client) = self.crowd.enter(address, self.bounds.per_address) else {
                self.hub.metrics.connections_refused.add(1);
                return Ok(crowded().into_response());
            };
            ticket = Arc::new(of_client);
        }
        let peer = Peer { address, encrypted, ticket: Arc::clone(&ticket) };
        request.extensions_mut().insert(peer);
        let response = self.router.clone().call(request.map(Body::new)).await?;
        // Held until the answer's last byte.
        Ok(response.map(|body| Body::new(body.map_frame(move |frame| (frame, &ticket).0))))
    }
}

fn crowded() -> Refusal {
    let words = "Too many requests of this address are under way at this hub. Wait for some of them, or ask its operator.";
    Refusal(ApiError {
        status: 429,
        retry_after: Some(CROWDED),
        ..refusal(429, "too_many_connections", words).0
    })
}
