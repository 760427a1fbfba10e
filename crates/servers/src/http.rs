//! The one way to speak to a model server: no proxy, no redirects, short limits, bounded bodies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use idlewatt_protocol::message::Endpoint;
use reqwest::header::{CONTENT_TYPE, HeaderValue, SERVER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

use crate::request::Allowed;
use crate::{Call, Model, ServerAnswer, ServerError, ServerKeys, UnloadError};

/// A server on loopback that listens takes a connection at once; one on the LAN within a round trip.
const CONNECT: Duration = Duration::from_secs(2);
/// For answers that a server has ready: lists and facts, no generation.
const FACTS: Duration = Duration::from_secs(3);
/// For a server to let go of a model: some answer only when it is done.
pub(crate) const FREEING: Duration = Duration::from_secs(10);
/// For a server to take a model back into memory.
pub(crate) const LOADING: Duration = Duration::from_secs(120);
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

    /// Sends a request with the server's key, if there is one, and reads the whole answer, up to 1 MiB.
    async fn exchange(
        &self,
        root: &Url,
        request: RequestBuilder,
        within: Duration,
    ) -> Result<Whole, ServerError> {
        let key = self.keys.key(root);
        let refused = refused(key.is_some());
        let mut answer = keyed(request, key).timeout(within).send().await.map_err(|error| failed(&error))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(ServerError::Nonsense("a redirect, which is not followed"));
        }
        let server = answer.headers().get(SERVER).and_then(|it| it.to_str().ok());
        let server = server.unwrap_or_default().to_owned();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| ServerError::BrokenOff)? {
            body.extend_from_slice(&chunk);
            if body.len() > FACTS_BYTES {
                return Err(ServerError::Nonsense("longer than 1 MiB"));
            }
        }
        Ok(Whole { status, server, body, refused })
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
        let key = self.keys.key(root);
        let refused = refused(key.is_some());
        let ask = |client: &reqwest::Client| {
            let json = HeaderValue::from_static("application/json");
            let request = client.post(url.clone()).header(CONTENT_TYPE, json).body(body.clone());
            keyed(request, key.clone()).send()
        };
        // A server may close a kept connection (after some time, or some requests) just as it is used again. Nothing has
        // come back then, and asking a model twice changes nothing, so a new connection decides.
        let answer = match ask(&self.client).await {
            Err(error) if !error.is_connect() => ask(&self.fresh).await,
            answer => answer,
        };
        let body = answer.map_err(|error| match failed(&error) {
            ServerError::Unreachable if !error.is_connect() => ServerError::BrokenOff,
            failed => failed,
        })?;
        let status = body.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(refused);
        }
        Ok(ServerAnswer { status: status.as_u16(), streaming: status.is_success() && is_stream(&body), body })
    }
}

/// An answer read to its end.
pub(crate) struct Whole {
    pub(crate) status: StatusCode,
    /// What its `Server` header says; a name proves nothing.
    pub(crate) server: String,
    body: Vec<u8>,
    /// What a refusal means.
    refused: ServerError,
}

impl Whole {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, ServerError> {
        self.good()?;
        serde_json::from_slice(&self.body).map_err(|_| ServerError::Nonsense("not the JSON its API promises"))
    }

    fn text(self) -> Result<String, ServerError> {
        self.good()?;
        String::from_utf8(self.body).map_err(|_| ServerError::Nonsense("not text"))
    }

    fn good(&self) -> Result<(), ServerError> {
        match self.status {
            StatusCode::OK => Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.refused.clone()),
            _ => Err(ServerError::Nonsense("an error status")),
        }
    }

    /// Whether a server that was asked to free memory agreed, going by the status alone.
    pub(crate) fn agreed(&self) -> Result<(), UnloadError> {
        match self.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                Err(UnloadError::Unsupported)
            }
            _ => Err(UnloadError::Refused),
        }
    }
}

/// One server's address, and the way to it. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    http: Http,
    root: Url,
}

impl Site {
    pub(crate) fn new(http: &Http, root: &Url) -> Self {
        Self { http: http.clone(), root: root.clone() }
    }

    pub(crate) fn root(&self) -> &Url {
        &self.root
    }

    /// Whether the host has set a key for it.
    pub(crate) fn has_key(&self) -> bool {
        self.http.keys.key(&self.root).is_some()
    }

    /// Whatever is at `path`.
    pub(crate) async fn get(&self, path: &str) -> Result<Whole, ServerError> {
        let request = self.http.client.get(at(&self.root, path)?);
        self.http.exchange(&self.root, request, FACTS).await
    }

    /// Facts as JSON.
    pub(crate) async fn facts<T: DeserializeOwned>(&self, path: &str) -> Result<T, ServerError> {
        self.get(path).await?.json()
    }

    /// Facts, where their absence, or another server's answer in their place, means that this is another server.
    ///
    /// # Errors
    /// When the server is away or wants a key.
    pub(crate) async fn facts_if_any<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, ServerError> {
        match self.facts(path).await {
            Ok(facts) => Ok(Some(facts)),
            Err(ServerError::Nonsense(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// A short text, such as a greeting page.
    pub(crate) async fn text(&self, path: &str) -> Result<String, ServerError> {
        self.get(path).await?.text()
    }

    /// Tells the server to do something.
    pub(crate) async fn tell(
        &self,
        path: &str,
        what: &Value,
        within: Duration,
    ) -> Result<Whole, ServerError> {
        self.post(path, what.to_string(), within).await
    }

    /// Asks the server to work something out that takes no generation, with a body of JSON.
    pub(crate) async fn work_out<T: DeserializeOwned>(
        &self,
        path: &str,
        body: String,
    ) -> Result<T, ServerError> {
        self.post(path, body, FACTS).await?.json()
    }

    async fn post(&self, path: &str, body: String, within: Duration) -> Result<Whole, ServerError> {
        let request = self.http.client.post(at(&self.root, path)?);
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body);
        self.http.exchange(&self.root, request, within).await
    }

    /// Sends an inference request as it is.
    pub(crate) async fn infer(&self, endpoint: Endpoint, body: String) -> Result<ServerAnswer, ServerError> {
        self.http.infer(&self.root, endpoint, body).await
    }

    /// Sends what is allowed of a request, with nothing of the server's own in it, to a server that goes on with nothing.
    pub(crate) async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        if call.begun.is_some() {
            return Err(ServerError::Continuation);
        }
        let allowed = Allowed::read(call.endpoint, call.body)?;
        self.infer(call.endpoint, allowed.write(&model.id, call.max_tokens, "")).await
    }
}

fn keyed(request: RequestBuilder, key: Option<String>) -> RequestBuilder {
    match key {
        Some(key) => request.bearer_auth(key),
        None => request,
    }
}

/// What a refusal means, by whether a key was sent.
const fn refused(keyed: bool) -> ServerError {
    if keyed { ServerError::KeyWrong } else { ServerError::KeyNeeded }
}

/// Why nothing came back. A certificate is told apart: the server is there, and trying again will not help.
fn failed(error: &reqwest::Error) -> ServerError {
    let mut cause = std::error::Error::source(error);
    while let Some(it) = cause {
        if it.to_string().contains("certificate") {
            return ServerError::Certificate;
        }
        cause = it.source();
    }
    ServerError::Unreachable
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
