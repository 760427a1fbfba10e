//! Many idle nodes of one hub in one process, each with a key, an invite and a connection of its own, through the very client
//! that a node uses.
//!
//! `idle-nodes --data HUB-FOLDER --nodes N` joins them all and prints `joined N`. For each line on its standard input it prints
//! how they stand, as JSON, and forgets what it told.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use ed25519_dalek::SigningKey;
use idlewatt_core::work::Ask;
use idlewatt_measuring::{number, option};
use idlewatt_networks::host::{Answer, Host, NetworkReport, NotKept, Sleep};
use idlewatt_networks::hub::{Identity, Membership, join, run};
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::message::{Posted, RefusalCode, State};
use idlewatt_protocol::receipt::{Envelope, Statement};
use idlewatt_protocol::{Artefact, Capabilities, Price, RequestId, Scope, ServiceOffer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Handshakes at once while they join.
const AT_ONCE: usize = 64;

/// How all of them stand.
struct All {
    began: Instant,
    connected: AtomicU64,
    lost: AtomicU64,
    /// When a connection was made, since the start, milliseconds.
    back: Mutex<Vec<u64>>,
    refused: AtomicU64,
}

/// A node that never gets work.
struct Idle {
    all: Arc<All>,
    is_connected: Mutex<bool>,
    changes: watch::Sender<u64>,
    sleep: watch::Sender<Sleep>,
}

#[async_trait]
impl Host for Idle {
    fn offer(&self) -> Vec<ServiceOffer> {
        let artefact = Artefact {
            model: "idle".into(),
            quantisation: Some("q4".into()),
            digest: None,
            engine: "llama.cpp".into(),
            engine_build: None,
        };
        let capabilities = Capabilities { chat: true, streaming: true, ..Capabilities::default() };
        vec![ServiceOffer {
            service: "s1".into(),
            artefact,
            slots: 4,
            context: 8192,
            price: Price::ZERO,
            capabilities,
            warm: true,
            load_ms: None,
            scope: Scope::Circle,
            region: None,
        }]
    }

    fn state(&self) -> State {
        State { accepting: true, own: false, free_slots: 4, why: None, until: None }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn sleep(&self) -> watch::Receiver<Sleep> {
        self.sleep.subscribe()
    }

    async fn begin(&self, _: Ask) -> Result<Box<dyn Answer>, RefusalCode> {
        Err(RefusalCode::Busy)
    }

    async fn sign(&self, _: Statement) -> Result<Envelope, NotKept> {
        Err(NotKept)
    }

    async fn unsettled(&self, _: usize) -> Vec<Envelope> {
        Vec::new()
    }

    async fn posted(&self, _: Posted) -> Result<(), NotKept> {
        Ok(())
    }

    async fn void(&self, _: RequestId) {}

    async fn posted_through(&self) -> u64 {
        0
    }

    fn report(&self, report: NetworkReport) {
        let now = matches!(report, NetworkReport::Connected { .. });
        let mut is_connected = self.is_connected.lock().unwrap_or_else(PoisonError::into_inner);
        match (*is_connected, now) {
            (false, true) => {
                self.all.connected.fetch_add(1, Ordering::Relaxed);
                let ms = u64::try_from(self.all.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.all.back.lock().unwrap_or_else(PoisonError::into_inner).push(ms);
            }
            (true, false) => {
                self.all.connected.fetch_sub(1, Ordering::Relaxed);
                self.all.lost.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        *is_connected = now;
        if matches!(report, NetworkReport::Refused { .. } | NetworkReport::Distrusted { .. }) {
            self.all.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn invite(data: &Path) -> io::Result<Invite> {
    let mut admin = UnixStream::connect(data.join("admin.sock")).await?;
    let command = json!({ "command": "invite_create", "account": "hosts", "spends": false });
    admin.write_all(format!("{command}\n").as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(admin).read_line(&mut line).await?;
    let answer: Value = serde_json::from_str(&line)?;
    let invite = find(&answer, "invite").ok_or_else(|| io::Error::other(format!("no invite: {line}")))?;
    invite.parse().map_err(|error| io::Error::other(format!("{error}")))
}

/// The text under this name, wherever it is.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    match value {
        Value::Object(members) => members
            .get(name)
            .and_then(Value::as_str)
            .or_else(|| members.values().find_map(|member| find(member, name))),
        _ => None,
    }
}

async fn node(data: PathBuf, all: Arc<All>) -> io::Result<()> {
    let identity = Identity {
        key: Arc::new(SigningKey::from_bytes(&rand::random())),
        agent: "idlewatt/bench".into(),
        name: None,
    };
    let invite = invite(&data).await?;
    let joined = join(&invite, &identity, None).await.map_err(io::Error::other)?;
    let membership =
        Membership { network: "hub".into(), hub_key: joined.hub_key, urls: joined.urls.clone(), proxy: None };
    let idle = Idle {
        all,
        is_connected: Mutex::new(false),
        changes: watch::Sender::new(0),
        sleep: watch::Sender::new(Sleep::default()),
    };
    tokio::spawn(run(membership, identity, Arc::new(idle), Some(joined), CancellationToken::new()));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let (data, nodes) = (PathBuf::from(option("data", "")), number("nodes", 100));
    let all = Arc::new(All {
        began: Instant::now(),
        connected: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        back: Mutex::default(),
        refused: AtomicU64::new(0),
    });
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = Vec::new();
    for _ in 0..nodes {
        let permit = Arc::clone(&at_once).acquire_owned().await.map_err(io::Error::other)?;
        let (data, all) = (data.clone(), Arc::clone(&all));
        joining.push(tokio::spawn(async move {
            let joined = node(data, all).await;
            drop(permit);
            joined
        }));
    }
    for one in joining {
        one.await.map_err(io::Error::other)??;
    }
    println!("joined {nodes}");
    let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || io::stdin().lines().map_while(Result::ok).try_for_each(|_| ask.send(())));
    while asked.recv().await.is_some() {
        let back = std::mem::take(&mut *all.back.lock().unwrap_or_else(PoisonError::into_inner));
        let told = json!({
            "at_ms": u64::try_from(all.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "connected": all.connected.load(Ordering::Relaxed),
            "lost": all.lost.swap(0, Ordering::Relaxed),
            "refused": all.refused.load(Ordering::Relaxed),
            "connected_at_ms": back,
        });
        println!("{told}");
    }
    Ok(())
}
