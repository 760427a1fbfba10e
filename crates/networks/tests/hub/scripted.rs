//! A hub and a host that do what a test tells them, over a real socket.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use idlewatt_core::work::{Ask, Finished, Head, Piece};
use idlewatt_networks::host::{NotKept, Sleep};
use idlewatt_networks::hub::{self, Identity, Joined, Membership, Stopped};
use idlewatt_networks::{Answer, Host, NetworkReport};
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::handshake::{hello_is_signed, sign_welcome};
use idlewatt_protocol::limits::SUBPROTOCOL;
use idlewatt_protocol::message::{
    Challenge, Deadlines, Endpoint, Hello, HubMessage, NodeMessage, Outcome, Posted, RefusalCode, Request,
    Resumed, State, Welcome,
};
use idlewatt_protocol::receipt::{Energy, Envelope, STATEMENT_TYPE, Statement, Timings, sign_batch};
use idlewatt_protocol::{
    Artefact, Capabilities, Nonce, Price, PublicKey, RequestId, Scope, ServiceOffer, UnixMillis, Usage,
    UsageSource,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::server::{Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tokio_util::sync::CancellationToken;
use url::Url;

/// Longer than anything here takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(10);

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LONG, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen"),
    }
}

pub(crate) struct Hub {
    listener: TcpListener,
    pub(crate) key: SigningKey,
    /// The addresses that it tells of itself.
    pub(crate) told: Vec<Url>,
    nonce: u8,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener, key: SigningKey::from_bytes(&[1; 32]), told: Vec::new(), nonce: 0 }
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://{}", self.listener.local_addr().unwrap()).parse().unwrap()
    }

    pub(crate) fn public(&self) -> PublicKey {
        PublicKey::from(&self.key)
    }

    /// The next connection, before anything is said.
    pub(crate) async fn accept(&mut self) -> Peer {
        let (stream, _) = soon("a connection", self.listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the shape that tungstenite asks for")]
        let upgrade = |request: &Upgrade, mut response: Response| {
            assert_eq!(request.uri().path(), "/node/v1");
            assert_eq!(request.headers()["sec-websocket-protocol"], SUBPROTOCOL);
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
            Ok(response)
        };
        Peer { socket: accept_hdr_async(stream, upgrade).await.unwrap() }
    }

    /// Whether a connection waits to be accepted; takes it.
    pub(crate) async fn is_dialled(&self) -> bool {
        tokio::time::timeout(Duration::ZERO, self.listener.accept()).await.is_ok()
    }

    /// A fresh challenge of this hub's.
    pub(crate) fn challenge(&mut self) -> Challenge {
        self.nonce += 1;
        Challenge { nonce: Nonce([self.nonce; 32]), versions: vec![1], hub_key: self.public() }
    }

    pub(crate) fn welcome(&self, challenge: &Challenge, hello: &Hello) -> Welcome {
        Welcome {
            epoch: self.nonce.into(),
            signature: sign_welcome(&self.key, challenge, hello, self.nonce.into()),
            heartbeat_s: 20,
            account: "anna".into(),
            hub_name: "test hub".into(),
            urls: self.told.iter().map(Url::to_string).collect(),
            resumed: vec![],
        }
    }

    /// A node that is in, with the streams that go on.
    pub(crate) async fn take_up(&mut self, resumed: Vec<Resumed>) -> (Peer, Hello) {
        let mut peer = self.accept().await;
        let challenge = self.challenge();
        peer.say(&HubMessage::Challenge(challenge.clone())).await;
        let hello = peer.hello().await;
        assert!(hello_is_signed(&challenge, &hello));
        let welcome = Welcome { resumed, ..self.welcome(&challenge, &hello) };
        peer.say(&HubMessage::Welcome(welcome)).await;
        (peer, hello)
    }

    /// A node that is in, past its first offer and state.
    pub(crate) async fn admit(&mut self) -> (Peer, Hello) {
        let (mut peer, hello) = self.take_up(vec![]).await;
        assert!(
            matches!(peer.hear().await, Heard::Said(NodeMessage::Offer { services }) if services.len() == 1)
        );
        assert!(matches!(peer.hear().await, Heard::Said(NodeMessage::State(state)) if state.accepting));
        (peer, hello)
    }
}

#[derive(Debug)]
pub(crate) enum Heard {
    Said(NodeMessage),
    Data(Frame),
    Gone,
}

pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Peer {
    pub(crate) async fn say(&mut self, message: &HubMessage) {
        self.socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            match soon("a frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return Heard::Said(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Binary(bytes))) => return Heard::Data(Frame::decode(&bytes).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_) | Message::Frame(_)) | Err(_)) | None => return Heard::Gone,
            }
        }
    }

    pub(crate) async fn said(&mut self) -> NodeMessage {
        match self.hear().await {
            Heard::Said(message) => message,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn data(&mut self) -> Frame {
        match self.hear().await {
            Heard::Data(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.said().await {
            NodeMessage::Hello(hello) => *hello,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn gone(&mut self) {
        while !matches!(self.hear().await, Heard::Gone) {}
    }

    /// Sends a request with its body in two frames.
    pub(crate) async fn ask(&mut self, stream: u32) {
        let body = Bytes::from_static(br#"{"messages":[]}"#);
        let request = Request {
            stream,
            request: RequestId([u8::try_from(stream).unwrap(); 16]),
            service: "m".into(),
            endpoint: Endpoint::ChatCompletions,
            body_bytes: body.len() as u64,
            salt: Nonce([5; 32]),
            own: false,
            max_tokens: 64,
            price: Price(1),
            deadlines: Deadlines { first_token_ms: 1000, between_ms: 1000 },
            ids: false,
            prefix: None,
        };
        self.say(&HubMessage::Request(request)).await;
        for (offset, payload) in [(0, body.slice(..6)), (6, body.slice(6..))] {
            let frame = Frame { kind: Kind::Body, last: offset > 0, stream, offset, payload };
            self.socket.send(Message::Binary(frame.encode())).await.unwrap();
        }
    }
}

/// A request that reached the host, and the reins of its answer.
pub(crate) struct Begun {
    pub(crate) ask: Ask,
    /// One piece at a time; dropping it ends the answer.
    pub(crate) pieces: mpsc::Sender<Piece>,
    /// What the session made of it.
    pub(crate) finished: oneshot::Receiver<(Option<Outcome>, Usage)>,
}

/// The host side of a test.
pub(crate) struct Node {
    pub(crate) begun: mpsc::UnboundedReceiver<Begun>,
    pub(crate) reports: mpsc::UnboundedReceiver<NetworkReport>,
    pub(crate) posted: mpsc::UnboundedReceiver<Posted>,
    pub(crate) host: Arc<Scripted>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Stopped>,
}

pub(crate) struct Scripted {
    begun: mpsc::UnboundedSender<Begun>,
    reports: mpsc::UnboundedSender<NetworkReport>,
    posted: mpsc::UnboundedSender<Posted>,
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) sleep: watch::Sender<Sleep>,
    pub(crate) state: Mutex<State>,
    pub(crate) through: Mutex<u64>,
    /// The next posting is not kept.
    pub(crate) full: AtomicBool,
    pub(crate) outbox: Mutex<Vec<Envelope>>,
    key: SigningKey,
}

pub(crate) fn identity() -> Identity {
    Identity { key: Arc::new(SigningKey::from_bytes(&[2; 32])), agent: "test/1".into(), name: None }
}

impl Node {
    pub(crate) fn start(hub: &Hub) -> Self {
        Self::start_with(hub.public(), vec![hub.url()], None)
    }

    pub(crate) fn start_with(hub_key: PublicKey, urls: Vec<Url>, joined: Option<Joined>) -> Self {
        let (begins, begun) = mpsc::unbounded_channel();
        let (report, reports) = mpsc::unbounded_channel();
        let (post, posted) = mpsc::unbounded_channel();
        let host = Arc::new(Scripted {
            begun: begins,
            reports: report,
            posted: post,
            changes: watch::Sender::new(0),
            sleep: watch::Sender::default(),
            state: Mutex::new(State { accepting: true, own: false, free_slots: 1, why: None, until: None }),
            through: Mutex::new(0),
            full: AtomicBool::new(false),
            outbox: Mutex::new(Vec::new()),
            key: SigningKey::from_bytes(&[2; 32]),
        });
        let membership = Membership { network: "circle".into(), hub_key, urls, proxy: None };
        let stop = CancellationToken::new();
        let task = tokio::spawn(hub::run(membership, identity(), host.clone(), joined, stop.clone()));
        Self { begun, reports, posted, host, stop, task }
    }

    pub(crate) async fn next_begun(&mut self) -> Begun {
        soon("a begin", self.begun.recv()).await.unwrap()
    }

    pub(crate) async fn reported(&mut self, wanted: impl Fn(&NetworkReport) -> bool) -> NetworkReport {
        loop {
            let report = soon("a report", self.reports.recv()).await.unwrap();
            if wanted(&report) {
                return report;
            }
        }
    }
}

pub(crate) fn piece(bytes: &[u8], completion: u32) -> Piece {
    Piece { bytes: Bytes::copy_from_slice(bytes), text: "t".into(), usage: tokens(completion), cached: 0 }
}

pub(crate) fn tokens(completion: u32) -> Usage {
    Usage { prompt: 3, completion, source: UsageSource::Server }
}

pub(crate) fn artefact() -> Artefact {
    Artefact {
        model: "m".into(),
        quantisation: None,
        digest: None,
        engine: "llama.cpp".into(),
        engine_build: None,
    }
}

#[async_trait]
impl Host for Scripted {
    fn offer(&self) -> Vec<ServiceOffer> {
        vec![ServiceOffer {
            service: "m".into(),
            artefact: artefact(),
            slots: 1,
            context: 2048,
            price: Price(1),
            capabilities: Capabilities::default(),
            warm: true,
            load_ms: None,
            scope: Scope::Circle,
            region: None,
        }]
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn sleep(&self) -> watch::Receiver<Sleep> {
        self.sleep.subscribe()
    }

    async fn begin(&self, ask: Ask) -> Result<Box<dyn Answer>, RefusalCode> {
        if !self.state().accepting {
            return Err(RefusalCode::Paused);
        }
        let (pieces, taken) = mpsc::channel(1);
        let (finish, finished) = oneshot::channel();
        self.begun.send(Begun { ask, pieces, finished }).unwrap();
        Ok(Box::new(ScriptedAnswer { pieces: taken, finish }))
    }

    async fn sign(&self, statement: Statement) -> Result<Envelope, NotKept> {
        let payload = serde_json::to_vec(&statement).unwrap();
        let envelope = sign_batch(&self.key, STATEMENT_TYPE, &[payload]).remove(0);
        self.outbox.lock().unwrap().push(envelope.clone());
        Ok(envelope)
    }

    async fn unsettled(&self, limit: usize) -> Vec<Envelope> {
        self.outbox.lock().unwrap().iter().take(limit).cloned().collect()
    }

    async fn posted(&self, posted: Posted) -> Result<(), NotKept> {
        if self.full.swap(false, Ordering::Relaxed) {
            return Err(NotKept);
        }
        *self.through.lock().unwrap() = posted.seq;
        self.posted.send(posted).unwrap();
        Ok(())
    }

    async fn void(&self, _request: RequestId) {}

    async fn posted_through(&self) -> u64 {
        *self.through.lock().unwrap()
    }

    fn report(&self, report: NetworkReport) {
        // A test that has seen enough drops the other end.
        let _ = self.reports.send(report);
    }
}

struct ScriptedAnswer {
    pieces: mpsc::Receiver<Piece>,
    finish: oneshot::Sender<(Option<Outcome>, Usage)>,
}

#[async_trait]
impl Answer for ScriptedAnswer {
    async fn head(&mut self) -> Result<Head, Finished> {
        Ok(Head { status: 200, streaming: true })
    }

    async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }

    async fn finish(self: Box<Self>, outcome: Option<Outcome>, usage: Usage) -> Finished {
        let _ = self.finish.send((outcome, usage));
        Finished {
            outcome: outcome.unwrap_or(Outcome::Complete),
            artefact: artefact(),
            usage,
            started: UnixMillis(1),
            timings: Timings::default(),
            energy: Energy::default(),
            message: None,
        }
    }
}
