//! A node with the real session client over a scripted model server. What it keeps survives its being killed, as a disk's
//! content would.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ed25519_dalek::SigningKey;
use idlewatt_core::work::Ask;
use idlewatt_networks::host::{Answer, Host, NetworkReport, NotKept, Sleep};
use idlewatt_networks::hub::{Identity, Membership, join, run};
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::message::{Posted, RefusalCode, State};
use idlewatt_protocol::receipt::{Envelope, STATEMENT_TYPE, Statement, sign_batch};
use idlewatt_protocol::{
    Capabilities, Continuation, MicroCredits, Price, PublicKey, RequestId, Scope, ServiceOffer,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::model::{Telling, artefact};
use super::scripted::TestHub;
use super::way::Way;

/// Answers at once.
const SLOTS: u32 = 6;

pub struct Node {
    pub owner: String,
    pub kept: Arc<Kept>,
    pub way: Way,
    membership: Membership,
    identity: Identity,
    running: Option<JoinHandle<()>>,
}

/// What a node has on disk, and what its host decides.
pub struct Kept {
    key: SigningKey,
    continuation: Continuation,
    accepting: Mutex<bool>,
    changes: watch::Sender<u64>,
    yields: watch::Sender<u64>,
    sleep: watch::Sender<Sleep>,
    posted: Mutex<Vec<Posted>>,
    outbox: Mutex<Vec<(RequestId, Envelope)>>,
}

impl Node {
    pub async fn start(hub: &TestHub, number: u8, continuation: Continuation) -> Self {
        let owner = format!("host{number}");
        let way = Way::to(hub.address).await;
        let url: url::Url = format!("http://{}", way.address).parse().unwrap();
        let key = SigningKey::from_bytes(&[number; 32]);
        let identity = Identity { key: Arc::new(key.clone()), agent: "scripted/1".into(), name: None };
        let kept = Arc::new(Kept {
            key,
            continuation,
            accepting: Mutex::new(true),
            changes: watch::Sender::new(0),
            yields: watch::Sender::new(0),
            sleep: watch::Sender::default(),
            posted: Mutex::default(),
            outbox: Mutex::default(),
        });
        let hub_key = PublicKey::from(hub.store.hub_key());
        let invite = Invite { hubs: vec![url.clone()], key: hub_key, token: hub.token(&owner).await };
        join(&invite, &identity, None).await.unwrap();
        let membership = Membership { network: "circle".into(), hub_key, urls: vec![url], proxy: None };
        let mut node = Self { owner, kept, way, membership, identity, running: None };
        node.wake();
        node
    }

    /// Its program runs again, with nothing but what it kept.
    pub fn wake(&mut self) {
        let (membership, identity) = (self.membership.clone(), self.identity.clone());
        let host = Arc::clone(&self.kept);
        self.running = Some(tokio::spawn(async move {
            run(membership, identity, host, None, CancellationToken::new()).await;
        }));
    }

    /// Its program is gone from one moment to the next, its connections with it.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
        self.way.cut();
    }

    /// The host takes the GPU back, or gives it away again.
    pub fn give(&self, accepting: bool) {
        *self.kept.accepting.lock().unwrap() = accepting;
        if !accepting {
            self.kept.yields.send_modify(|count| *count += 1);
        }
        self.kept.changes.send_modify(|count| *count += 1);
    }

    /// What the hub said that it earned.
    pub fn earned(&self) -> MicroCredits {
        let posted = self.kept.posted.lock().unwrap();
        posted.iter().fold(MicroCredits::ZERO, |sum, posted| sum.saturating_add(posted.earned))
    }
}

#[async_trait]
impl Host for Kept {
    fn offer(&self) -> Vec<ServiceOffer> {
        vec![ServiceOffer {
            service: "s".into(),
            artefact: artefact(),
            slots: SLOTS,
            context: 8192,
            price: Price(1_000_000),
            capabilities: Capabilities {
                chat: true,
                streaming: true,
                cancels: true,
                usage: true,
                continuation: self.continuation,
                ..Capabilities::default()
            },
            warm: true,
            load_ms: None,
            scope: Scope::Circle,
            region: None,
        }]
    }

    fn state(&self) -> State {
        let accepting = *self.accepting.lock().unwrap();
        let free_slots = if accepting { SLOTS } else { 0 };
        State { accepting, own: false, free_slots, why: None, until: None }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn sleep(&self) -> watch::Receiver<Sleep> {
        self.sleep.subscribe()
    }

    async fn begin(&self, ask: Ask) -> Result<Box<dyn Answer>, RefusalCode> {
        let yields = self.yields.subscribe();
        if !*self.accepting.lock().unwrap() {
            return Err(RefusalCode::Paused);
        }
        match Telling::new(&ask, yields) {
            Some(telling) => Ok(Box::new(telling)),
            None => Err(RefusalCode::Continuation),
        }
    }

    async fn sign(&self, statement: Statement) -> Result<Envelope, NotKept> {
        let payload = serde_json::to_vec(&statement).unwrap();
        let envelope = sign_batch(&self.key, STATEMENT_TYPE, &[payload]).remove(0);
        self.outbox.lock().unwrap().push((statement.request, envelope.clone()));
        Ok(envelope)
    }

    async fn unsettled(&self, limit: usize) -> Vec<Envelope> {
        self.outbox.lock().unwrap().iter().take(limit).map(|(_, envelope)| envelope.clone()).collect()
    }

    async fn posted(&self, posted: Posted) -> Result<(), NotKept> {
        self.outbox.lock().unwrap().retain(|(request, _)| *request != posted.request);
        self.posted.lock().unwrap().push(posted);
        Ok(())
    }

    async fn void(&self, request: RequestId) {
        self.outbox.lock().unwrap().retain(|(other, _)| *other != request);
    }

    async fn posted_through(&self) -> u64 {
        self.posted.lock().unwrap().last().map_or(0, |posted| posted.seq)
    }

    fn report(&self, _report: NetworkReport) {}
}
