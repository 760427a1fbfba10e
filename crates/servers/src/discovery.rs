//! What listens on this machine, recognised by what it says.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use url::Url;

use crate::digest::Digests;
use crate::http::{Http, Site, is_loopback};
use crate::recognise::{Recognised, recognise};
use crate::{Kind, Model, ModelServer, ServerError, ServerKeys};

/// Loopback ports where model servers usually listen: Ollama, llama.cpp (old and new), LM Studio, vLLM, TabbyAPI and
/// text-generation-webui, KoboldCpp, SGLang, Jan; 8080 is also mlx_lm's and LocalAI's. A port says nothing about what is behind it.
pub const USUAL_PORTS: [u16; 9] = [11434, 8080, 9931, 1234, 8000, 5000, 5001, 30000, 1337];

/// All questions that recognise one address together.
const RECOGNISE: Duration = Duration::from_secs(5);

/// Where to look.
#[derive(Clone, Debug)]
pub struct DiscoverOptions {
    /// Whether to try [`USUAL_PORTS`] on 127.0.0.1.
    pub scan: bool,
    /// Roots that the host named; `http` or `https`, with or without a trailing `/v1`.
    pub urls: Vec<Url>,
    /// Ports on loopback that are never asked: this program's own.
    pub exclude_ports: Vec<u16>,
}

impl Default for DiscoverOptions {
    fn default() -> Self {
        Self { scan: true, urls: Vec::new(), exclude_ports: Vec::new() }
    }
}

/// A server that was found, or one that the host named and that was not.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its root, as asked.
    pub url: Url,
    /// Whether the host named it, so that its absence is worth a word.
    pub named: bool,
    /// The server; `None` when a named address does not answer like one.
    pub server: Option<Arc<dyn ModelServer>>,
    /// Its models, or why there are none.
    pub models: Result<Vec<Model>, ServerError>,
}

/// The way to every model server: one HTTP client, the servers' keys, and the digests already computed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Servers {
    http: Http,
    digests: Digests,
    /// Servers that answered, by address: what an adapter remembers lasts as long as its server does.
    met: Arc<Mutex<HashMap<Url, Recognised>>>,
}

impl Servers {
    /// Makes the client. A rustls crypto provider must be installed as the process's default.
    ///
    /// # Errors
    /// When the system's TLS roots cannot be loaded.
    pub fn new(keys: Arc<dyn ServerKeys>) -> Result<Self, reqwest::Error> {
        Ok(Self { http: Http::new(keys)?, digests: Digests::default(), met: Arc::default() })
    }

    /// Asks every address at once who is there, and every server what it offers; at most some seconds. Loads and wakes
    /// nothing. Servers come in the order of their addresses: named ones first.
    pub async fn discover(&self, options: &DiscoverOptions) -> Vec<Found> {
        let asked = join_all(candidates(options).into_iter().map(|(url, named)| self.look(url, named))).await;
        let found: Vec<(Found, bool)> = asked.into_iter().flatten().collect();
        let ollama = found.iter().any(|(found, _)| found.kind() == Some(Kind::Ollama));
        // Ollama starts llama.cpp servers of its own; their models are Ollama's.
        found.into_iter().filter(|(_, blob)| !(ollama && *blob)).map(|(found, _)| found).collect()
    }

    /// One address; with whether it serves a blob of Ollama's.
    async fn look(&self, url: Url, named: bool) -> Option<(Found, bool)> {
        let site = Site::new(&self.http, &url);
        let before = self.met().get(&url).cloned();
        let known = before.as_ref().map(|it| it.server.kind());
        let recognised = tokio::time::timeout(RECOGNISE, recognise(&site, &self.digests, known)).await;
        let now = match recognised.unwrap_or(Err(ServerError::Unreachable)) {
            Ok(Some(now)) => now,
            other => {
                let error = match other {
                    Err(error) => error,
                    Ok(_) => ServerError::Nonsense("it is no model server that is known here"),
                };
                return named.then(|| (Found { url, named, server: None, models: Err(error) }, false));
            }
        };
        let now = match before {
            Some(before) if before.server.kind() == now.server.kind() => before,
            _ => now,
        };
        let models = now.server.models().await;
        if models.is_ok() {
            self.met().insert(url.clone(), now.clone());
        } else {
            // With a key it may tell more of itself.
            self.met().remove(&url);
        }
        Some((Found { url, named, server: Some(now.server), models }, now.ollamas))
    }

    fn met(&self) -> std::sync::MutexGuard<'_, HashMap<Url, Recognised>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn kind(&self) -> Option<Kind> {
        self.server.as_ref().map(|server| server.kind())
    }
}

/// Roots to ask, each once, named ones first.
fn candidates(options: &DiscoverOptions) -> Vec<(Url, bool)> {
    let scanned = USUAL_PORTS.iter().filter(|_| options.scan);
    let scanned = scanned.filter_map(|port| Url::parse(&format!("http://127.0.0.1:{port}")).ok());
    let named = options.urls.iter().filter_map(tidied);
    let all = named.map(|url| (url, true)).chain(scanned.map(|url| (url, false)));
    let mut seen = HashSet::new();
    all.filter(|(url, _)| {
        let port = url.port_or_known_default();
        let own = is_loopback(url) && port.is_some_and(|port| options.exclude_ports.contains(&port));
        let host = if is_loopback(url) { "loopback" } else { url.host_str().unwrap_or_default() };
        !own && seen.insert((host.to_owned(), port, url.path().to_owned()))
    })
    .collect()
}

/// A root without what people paste behind it.
fn tidied(url: &Url) -> Option<Url> {
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return None;
    }
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').trim_end_matches("/v1").to_owned();
    url.set_path(&path);
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_asked_once_and_never_ones_own() {
        let urls =
            ["http://localhost:8080/v1/", "http://gpu.lan:8000", "ftp://x", "http://127.0.0.1:4180/v1"];
        let options = DiscoverOptions {
            scan: true,
            urls: urls.iter().map(|url| url.parse().unwrap()).collect(),
            exclude_ports: vec![4180, 5000],
        };
        let asked: Vec<String> =
            candidates(&options).iter().map(|(url, named)| format!("{url} {named}")).collect();
        assert_eq!(asked[..2], ["http://localhost:8080/ true", "http://gpu.lan:8000/ true"]);
        assert_eq!(asked.len(), 2 + USUAL_PORTS.len() - 2, "8080 was named, 5000 is excluded");
        assert!(candidates(&DiscoverOptions { scan: false, ..DiscoverOptions::default() }).is_empty());
    }
}
