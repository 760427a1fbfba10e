//! From a hub's address to an open WebSocket: TCP, a proxy where one is set, TLS, upgrade.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use idlewatt_protocol::PublicKey;
use idlewatt_protocol::frame::HEADER;
use idlewatt_protocol::invite::check_hub_url;
use idlewatt_protocol::limits::{MAX_CONTROL_BYTES, MAX_FRAME_PAYLOAD, SUBPROTOCOL, WEBSOCKET_READ_BUFFER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as SocketError, http};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use url::Url;

use crate::trust::{client_config, is_near_host};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// TCP, proxy, TLS and upgrade together.
const DIAL: Duration = Duration::from_secs(10);
/// TCP alone: an address of another network does not answer at all, and the hub's next one is to have its turn.
const CONNECT: Duration = Duration::from_secs(4);
/// Largest head of a proxy's answer, bytes.
const PROXY_HEAD: usize = 8 * 1024;
/// Bytes gathered before the socket writes by itself; a burst of 32 frames of usual size fits.
const WRITE_BUFFER: usize = 16 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{0}")]
    Address(String),
    #[error("nothing listens there, or the network is down ({0})")]
    Tcp(io::ErrorKind),
    #[error("it did not answer within 10 seconds")]
    Slow,
    #[error("the proxy does not let the connection through")]
    Proxy,
    #[error("no encrypted connection could be made: {0}")]
    Tls(String),
    #[error(
        "what answers there shows a certificate that the hub's key does not vouch for, nor, at a public address, this machine"
    )]
    OtherKey,
    #[error("what answers there is no hub ({0})")]
    NotAHub(String),
}

/// Dials one hub, and keeps what dialling needs.
#[derive(Debug)]
pub(super) struct Dialler {
    hub: PublicKey,
    proxy: Option<Url>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Dialler {
    pub(super) fn new(hub: PublicKey, proxy: Option<Url>) -> Self {
        Self { hub, proxy, tls: None }
    }

    pub(super) async fn dial(&mut self, hub: &Url) -> Result<Socket, DialError> {
        tokio::time::timeout(DIAL, self.dial_slowly(hub)).await.unwrap_or(Err(DialError::Slow))
    }

    async fn dial_slowly(&mut self, hub: &Url) -> Result<Socket, DialError> {
        check_hub_url(hub).map_err(|error| DialError::Address(error.to_string()))?;
        let secure = hub.scheme() == "https";
        let (Some(host), Some(port)) = (hub.host_str(), hub.port_or_known_default()) else {
            return Err(DialError::Address("the hub has no address".to_owned()));
        };
        let scheme = if secure { "wss" } else { "ws" };
        let path = hub.path().trim_end_matches('/');
        let uri: http::Uri = format!("{scheme}://{host}:{port}{path}/node/v1")
            .parse()
            .map_err(|_| DialError::Address("the hub's address is malformed".to_owned()))?;
        let stream = match self.proxy.as_ref().filter(|_| secure && !is_near(hub)) {
            Some(proxy) => through(proxy, host, port).await?,
            None => tcp(host, port).await?,
        };
        stream.set_nodelay(true).map_err(|error| DialError::Tcp(error.kind()))?;
        let connector = if secure { Connector::Rustls(self.tls()?) } else { Connector::Plain };
        let request = ClientRequestBuilder::new(uri).with_sub_protocol(SUBPROTOCOL);
        let largest = MAX_CONTROL_BYTES.max(HEADER + MAX_FRAME_PAYLOAD);
        let config = WebSocketConfig::default()
            .read_buffer_size(WEBSOCKET_READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_message_size(Some(largest))
            .max_frame_size(Some(largest));
        let upgraded = client_async_tls_with_config(request, stream, Some(config), Some(connector)).await;
        upgraded.map(|(socket, _)| socket).map_err(|error| match error {
            SocketError::Io(error) if secure => untrusted(&error),
            SocketError::Io(error) => DialError::Tcp(error.kind()),
            SocketError::Tls(error) => DialError::Tls(error.to_string()),
            SocketError::Http(answer) => DialError::NotAHub(format!("HTTP {}", answer.status().as_u16())),
            other => DialError::NotAHub(other.to_string()),
        })
    }

    fn tls(&mut self) -> Result<Arc<rustls::ClientConfig>, DialError> {
        if let Some(config) = &self.tls {
            return Ok(config.clone());
        }
        let config = client_config(self.hub).map_err(|error| DialError::Tls(error.to_string()))?;
        Ok(self.tls.insert(Arc::new(config)).clone())
    }
}

/// A certificate that is refused comes as an error of the stream.
fn untrusted(error: &io::Error) -> DialError {
    let inner = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_)) => DialError::OtherKey,
        _ => DialError::Tls(error.to_string()),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await {
        Ok(connected) => connected.map_err(|error| DialError::Tcp(error.kind())),
        Err(_) => Err(DialError::Tcp(io::ErrorKind::TimedOut)),
    }
}

/// On this machine's own networks, to which no proxy leads: see [`crate::trust::is_near_host`].
#[must_use]
pub fn is_near(hub: &Url) -> bool {
    hub.host().is_some_and(|host| is_near_host(&host))
}

/// Asks an HTTP proxy for a tunnel.
async fn through(proxy: &Url, host: &str, port: u16) -> Result<TcpStream, DialError> {
    let (Some(proxy_host), Some(proxy_port)) = (proxy.host_str(), proxy.port_or_known_default()) else {
        return Err(DialError::Proxy);
    };
    let mut stream = tcp(proxy_host, proxy_port).await?;
    let broken = |error: io::Error| DialError::Tcp(error.kind());
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(broken)?;
    // One byte at a time, so that nothing of the tunnel itself is swallowed with the head.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= PROXY_HEAD {
            return Err(DialError::Proxy);
        }
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    let ok = head.starts_with(b"HTTP/1.1 200") || head.starts_with(b"HTTP/1.0 200");
    if ok { Ok(stream) } else { Err(DialError::Proxy) }
}
