//! The one way to speak to a model server: no proxy, no redirects, short limits, bounded bodies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use idlewatt_protocol::message::Endpoint;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use crate::{ServerAnswer, ServerError, ServerKeys};

/// A server on loopback that listens takes a connection at once; one on the LAN within a round trip.
const CONNECT: Duration = Duration::from_secs(2);
/// For answers that a server has ready: lists and facts, no generation.
const FACTS: Duration = Duration::from_secs(3);
/// Largest answer to a question about facts, bytes. llama.cpp's `/props` carries a chat template of tens of kilobytes.
const FACTS_BYTES: usize = 1024 * 1024;
/// llama.cpp closes a kept connection after 5 s; one second less, so that a request never meets a closing one.
const KEEP: Duration = Duration::from_secs(4);

/// What every client of a model server keeps to: straight to it, and nowhere else.
pub(crate) fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
}

/// The client and the keys. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    /// Never takes a connection that was used before.
    fresh: reqwest::Client,
    keys: Arc<dyn ServerKeys>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// # Errors
    /// When no TLS configuration can be made.
    pub(crate) fn new(keys: Arc<dyn ServerKeys>) -> Result<Self, reqwest::Error> {
        let fresh = client().pool_max_idle_per_host(0).build()?;
        Ok(Self { client: client().pool_idle_timeout(KEEP).build()?, fresh, keys })
    }

    fn with_key(&self, root: &Url, request: RequestBuilder) -> RequestBuilder {
        match self.keys.key(root) {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Facts as JSON.
    pub(crate) async fn facts<T: DeserializeOwned>(&self, root: &Url, path: &str) -> Result<T, ServerError> {
        let request = self.client.get(at(root, path)?);
        self.read(root, request).await
    }

    async fn read<T: DeserializeOwned>(&self, root: &Url, request: RequestBuilder) -> Result<T, ServerError> {
        let bytes = self.bytes(root, request).await?;
        serde_json::from_slice(&bytes).map_err(|_| ServerError::Nonsense("not the JSON its API promises"))
    }

    /// A short text, such as a greeting page.
    pub(crate) async fn text(&self, root: &Url, path: &str) -> Result<String, ServerError> {
        let bytes = self.bytes(root, self.client.get(at(root, path)?)).await?;
        String::from_utf8(bytes).map_err(|_| ServerError::Nonsense("not text"))
    }

    async fn bytes(&self, root: &Url, request: RequestBuilder) -> Result<Vec<u8>, ServerError> {
        let mut answer =
            self.with_key(root, request).timeout(FACTS).send().await.map_err(|_| ServerError::Unreachable)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(ServerError::KeyNeeded),
            _ => return Err(ServerError::Nonsense("an error status")),
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| ServerError::BrokenOff)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > FACTS_BYTES {
                return Err(ServerError::Nonsense("longer than 1 MiB"));
            }
        }
        Ok(bytes)
    }

    /// Sends an inference request. No time limit of its own: how long a model may think is for the caller to say.
    pub(crate) async fn infer(
        &self,
        root: &Url,
        endpoint: Endpoint,
        body: String,
    ) -> Result<ServerAnswer, ServerError> {
        let url = at(root, endpoint.path())?;
        let body = Bytes::from(body);
        let ask = |client: &reqwest::Client| {
            let json = HeaderValue::from_static("application/json");
            let request = client.post(url.clone()).header(CONTENT_TYPE, json).body(body.clone());
            self.with_key(root, request).send()
        };
        // A server may close a kept connection (after some time, or some requests) just as it is used again. Nothing has
        // come back then, and asking a model twice changes nothing, so a new connection decides.
        let answer = match ask(&self.client).await {
            Err(error) if !error.is_connect() => ask(&self.fresh).await,
            answer => answer,
        };
        let body = answer.map_err(|error| {
            if error.is_connect() { ServerError::Unreachable } else { ServerError::BrokenOff }
        })?;
        let status = body.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(ServerError::KeyNeeded);
        }
        Ok(ServerAnswer { status: status.as_u16(), streaming: status.is_success() && is_stream(&body), body })
    }
}

fn is_stream(answer: &Response) -> bool {
    answer
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|kind| kind.trim_start().starts_with("text/event-stream"))
}

/// `path` (with its query) below a root that may have a path of its own.
fn at(root: &Url, path: &str) -> Result<Url, ServerError> {
    let mut text = root.as_str().trim_end_matches('/').to_owned();
    text.push_str(path);
    Url::parse(&text).map_err(|_| ServerError::Nonsense("no address"))
}

/// Whether an address is on this machine.
#[must_use]
pub fn is_loopback(root: &Url) -> bool {
    match root.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::NoKeys;

    async fn asked(peer: &mut TcpStream) {
        let mut heard = [0; 4096];
        assert!(peer.read(&mut heard).await.unwrap() > 0);
    }

    async fn answered(peer: &mut TcpStream) {
        asked(peer).await;
        peer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    }

    #[tokio::test]
    async fn regression_a_kept_connection_that_closes_under_a_request_loses_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            answered(&mut first).await;
            // The second request comes on the kept connection, and finds it closing.
            asked(&mut first).await;
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            answered(&mut second).await;
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Http::new(Arc::new(NoKeys)).unwrap();
        for _ in 0..2 {
            let answer = http.infer(&root, Endpoint::Completions, "{}".into()).await.unwrap();
            assert_eq!(answer.body.bytes().await.unwrap(), "{}");
        }
        server.await.unwrap();
    }
}
