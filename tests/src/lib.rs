//! Whole systems, for tests: real hubs, real engines and a real model server as processes of their own, each in its own
//! folder, each killed when its value is dropped.
//!
//! Nothing here knows how a program works inside: it starts the built binaries, reads what they print, and asks over
//! the doors that everybody has. Waiting is bounded polling on what can be seen, and a time that passes says what did
//! not happen. Bounds are the claimed ones when `IDLEWATT_STRICT` is set (`script/show` does), ten times as long
//! otherwise, so that a busy machine does not lie.

#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test harness fails by panicking"
)]

mod bus;
mod card;
mod consumer;
mod disk;
pub mod hub;
mod keyring;
mod logind;
mod model;
pub mod node;
mod process;

use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use bus::Bus;
pub use card::{Card, Draws};
pub use consumer::{Answer, Consumer, Stream, text_of};
pub use disk::SmallDisk;
pub use hub::Hub;
pub use keyring::Keyring;
pub use logind::Logind;
pub use model::{ModelServer, python};
pub use node::Node;
pub use process::{Process, Ran, binary};

/// The model that [`ModelServer`] runs, as consumers name it.
pub const MODEL: &str = "smollm2-135m-instruct";

/// This package's folder. Asked at run time: a build folder that several checkouts share would remember another one's.
#[must_use]
pub fn here() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo and nextest say where the package is"))
}

/// A claimed time bound: as it is under `IDLEWATT_STRICT`, ten times as long otherwise.
#[must_use]
pub fn claimed(bound: Duration) -> Duration {
    if std::env::var_os("IDLEWATT_STRICT").is_some() { bound } else { bound * 10 }
}

/// Waits until `seen` gives something, and gives it back with the time that it took.
pub async fn until<T, F: Future<Output = Option<T>>>(
    bound: Duration,
    what: &str,
    mut seen: impl FnMut() -> F,
) -> (T, Duration) {
    let begun = Instant::now();
    loop {
        if let Some(value) = seen().await {
            return (value, begun.elapsed());
        }
        assert!(begun.elapsed() < bound, "not within {bound:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An HTTP client that goes straight to loopback.
#[must_use]
pub fn http() -> reqwest::Client {
    // Only the first of a process is taken; the others are the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .read_timeout(Duration::from_secs(45))
        .build()
        .expect("an HTTP client")
}

/// A hub, an engine and a model server, connected, with one consumer who has credit. The consumer's account is not the
/// node's, so that credits move.
pub struct System {
    /// The model server.
    pub model: ModelServer,
    /// The hub.
    pub hub: Hub,
    /// The node, sharing the model server's model on the hub for account `host`.
    pub node: Node,
    /// A consumer on the hub: account `guest`.
    pub consumer: Consumer,
}

impl System {
    /// Brings it all up, with a fee; returns when the hub lists the model.
    pub async fn start() -> Self {
        Self::on(ModelServer::start(&["--parallel", "4", "--threads", "1"])).await
    }

    /// The same on a model server of one's own.
    pub async fn on(model: ModelServer) -> Self {
        Self::beside(model, Vec::new()).await
    }

    /// The same beside daemons that these variables lead to.
    pub async fn beside(model: ModelServer, daemons: Vec<(&'static str, String)>) -> Self {
        let hub = Hub::start_with(&["--fee", "2.5"]);
        let node = Node::start_in(tempfile::tempdir().expect("a folder"), daemons);
        // A round price would hide rounding.
        node.share(&model, "1.234567").await;
        node.join(&hub, "host").await;
        let consumer = hub.consumer("guest", 1_000);
        hub.until_available(&consumer, true).await;
        Self { model, hub, node, consumer }
    }
}
