//! A real hub in this process, and a node whose every frame the test writes.

#![expect(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helpers fail as tests do")]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt, StreamExt};
use idlewatt_hub::serve::{ServeOptions, Serving};
use idlewatt_hub::store::Store;
use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::handshake::NodeSide;
use idlewatt_protocol::limits::SUBPROTOCOL;
use idlewatt_protocol::message::{
    Challenge, End, HubMessage, NodeMessage, Outcome, Posted, Refuse, Request, Resume, State, Welcome,
};
use idlewatt_protocol::receipt::{
    Energy, Receipt, ReceiptFile, STATEMENT_TYPE, Statement, Timings, Verified, commitment, sign_batch,
};
use idlewatt_protocol::{
    Artefact, Capabilities, Joined, MicroCredits, Nonce, Price, PublicKey, Scope, ServiceOffer, UnixMillis,
    Usage, UsageSource,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

/// No step of a test takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

pub struct TestHub {
    pub address: SocketAddr,
    /// Where it listens with TLS.
    pub lan: Option<SocketAddr>,
    pub store: Store,
    pub http: reqwest::Client,
    /// The consumer's key, with 10 credits.
    pub key: String,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl TestHub {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts one with other doors than usual.
    pub async fn start_with(change: impl FnOnce(&mut ServeOptions)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    async fn start_in(folder: tempfile::TempDir, change: impl FnOnce(&mut ServeOptions)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options = ServeOptions {
            fee: "5".parse().unwrap(),
            ..ServeOptions::new("127.0.0.1:0".parse().unwrap(), folder.path().to_owned())
        };
        change(&mut options);
        let serving = Serving::bind(options).await.unwrap();
        let (address, lan, store) = (serving.address(), serving.lan(), serving.store().clone());
        let key = store
            .create_key(account("consumer"), MicroCredits(10_000_000), KeyLimits::default())
            .await
            .unwrap()
            .key;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(serving.run(async {
            let _ = stopped.await;
        }));
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { address, lan, store, http, key, stop: Some(stop), running: Some(running), folder }
    }

    /// Stops it and waits until it has drained.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        timeout(PATIENCE * 3, self.running.take().unwrap()).await.unwrap().unwrap();
    }

    pub fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops it and starts another on the same folder.
    pub async fn restart(self) -> Self {
        self.restart_with(|_| {}).await
    }

    /// The same with other doors.
    pub async fn restart_with(mut self, change: impl FnOnce(&mut ServeOptions)) -> Self {
        self.stop().await;
        let Self { store, folder, .. } = self;
        drop(store);
        Self::start_in(folder, change).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http.get(self.url(path)).bearer_auth(&self.key).send().await.unwrap()
    }

    pub fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http
            .post(self.url(path))
            .bearer_auth(&self.key)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Sends a request in the background, so that the test can play the node.
    pub fn ask(&self, path: &str, body: &Value) -> JoinHandle<reqwest::Response> {
        let request = self.post(path, body);
        tokio::spawn(async move { request.send().await.unwrap() })
    }

    /// The receipt of a response, verified offline.
    pub async fn receipt(&self, response_headers: &reqwest::header::HeaderMap) -> (ReceiptFile, Verified) {
        let id = response_headers["x-idlewatt-receipt"].to_str().unwrap();
        assert_eq!(response_headers["x-request-id"], *id);
        let got = self.get(&format!("/v1/receipts/{id}")).await;
        let status = got.status();
        let text = got.text().await.unwrap();
        assert_eq!(status, 200, "{text}");
        let file: ReceiptFile = serde_json::from_str(&text).unwrap();
        let verified = file.verify().unwrap();
        assert_eq!(verified.receipt.hub, PublicKey::from(self.store.hub_key()));
        (file, verified)
    }

    pub fn available(&self) -> MicroCredits {
        self.store.available(&account("consumer"))
    }

    pub async fn connect(&self) -> Socket {
        let mut request = format!("ws://{}/node/v1", self.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let tcp = TcpStream::connect(self.address).await.unwrap();
        client_async(request, tcp).await.unwrap().0
    }

    pub async fn token(&self, owner: &str) -> String {
        self.store.create_invite(account(owner), true, None).await.unwrap().token
    }

    /// A node of `host` that offers [`offer`] and takes requests.
    pub async fn node(&self, seed: u8) -> Node {
        let token = self.token("host").await;
        let mut node = Node::join(self, seed, Some(&token), 0).await.unwrap();
        node.offer(vec![offer()]).await;
        node.ready(4).await;
        self.accepting(1).await;
        node
    }

    /// Waits until so many nodes take requests.
    pub async fn accepting(&self, nodes: usize) {
        let line = format!("idlewatt_hub_nodes_accepting {nodes}");
        timeout(PATIENCE, async {
            while !self.get("/metrics").await.text().await.unwrap().contains(&line) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}

pub type Socket = WebSocketStream<TcpStream>;

pub fn offer() -> ServiceOffer {
    ServiceOffer {
        service: "s1".into(),
        artefact: Artefact {
            model: "tiny".into(),
            quantisation: Some("q4".into()),
            digest: None,
            engine: "llama.cpp".into(),
            engine_build: None,
        },
        slots: 4,
        context: 4096,
        price: Price(1_000_000),
        capabilities: Capabilities {
            chat: true,
            completions: true,
            embeddings: true,
            streaming: true,
            cancels: true,
            usage: true,
            ..Capabilities::default()
        },
        warm: true,
        load_ms: None,
        scope: Scope::Circle,
        region: None,
    }
}

pub fn chat(stream: bool) -> Value {
    json!({"model": "tiny", "stream": stream, "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello"}]})
}

/// A chunk as a node sends it.
pub fn chunk(text: &str) -> String {
    let chunk = json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "/home/me/m.gguf",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

pub const FINISH: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
pub const USAGE: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,\"total_tokens\":12}}\n\n";
pub const DONE: &str = "data: [DONE]\n\n";

pub fn usage(prompt: u32, completion: u32) -> Usage {
    Usage { prompt, completion, source: UsageSource::Server }
}

/// What a node was asked.
pub struct Asked {
    pub request: Request,
    pub body: Bytes,
    /// Bytes of the answer sent so far.
    pub sent: u64,
}

impl Asked {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A node that does what the test says.
pub struct Node {
    pub key: SigningKey,
    pub hub: PublicKey,
    pub welcome: Welcome,
    pub socket: Socket,
}

impl Node {
    pub async fn join(
        hub: &TestHub,
        seed: u8,
        token: Option<&str>,
        posted_through: u64,
    ) -> Result<Self, Refuse> {
        Self::enter(hub, seed, token, posted_through, None).await
    }

    /// Comes back with the streams of a lost session.
    pub async fn resume(hub: &TestHub, seed: u8, resume: Resume) -> Self {
        Self::enter(hub, seed, None, 0, Some(resume)).await.unwrap()
    }

    async fn enter(
        hub: &TestHub,
        seed: u8,
        token: Option<&str>,
        posted_through: u64,
        resume: Option<Resume>,
    ) -> Result<Self, Refuse> {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let mut socket = hub.connect().await;
        let challenge = challenge(&mut socket).await;
        let side = NodeSide { resume, ..side(&key, &challenge, token, posted_through) };
        let hello = side.answer(&challenge, Nonce([seed; 32])).unwrap();
        say(&mut socket, &NodeMessage::Hello(Box::new(hello.clone()))).await;
        match hear(&mut socket).await {
            Some(HubMessage::Welcome(welcome)) => {
                side.check_welcome(&challenge, &hello, &welcome).unwrap();
                Ok(Self { key, hub: challenge.hub_key, welcome, socket })
            }
            Some(HubMessage::Refuse(refuse)) => Err(refuse),
            other => panic!("{other:?} is no answer to a hello"),
        }
    }

    pub async fn say(&mut self, message: &NodeMessage) {
        say(&mut self.socket, message).await;
    }

    pub async fn offer(&mut self, services: Vec<ServiceOffer>) {
        self.say(&NodeMessage::Offer { services }).await;
    }

    pub async fn ready(&mut self, free_slots: u32) {
        self.say(&NodeMessage::State(State {
            accepting: true,
            own: false,
            free_slots,
            why: None,
            until: None,
        }))
        .await;
    }

    pub async fn hear(&mut self) -> HubMessage {
        hear(&mut self.socket).await.expect("the hub closed the session")
    }

    /// Waits for a request and its whole body.
    pub async fn asked(&mut self) -> Asked {
        let request = loop {
            match self.hear().await {
                HubMessage::Request(request) => break request,
                HubMessage::Void { .. } | HubMessage::Posted(_) => {}
                other => panic!("{other:?} instead of a request"),
            }
        };
        let mut body = Vec::new();
        loop {
            let Message::Binary(bytes) = frame(&mut self.socket).await.unwrap() else { continue };
            let frame = Frame::decode(&bytes).unwrap();
            assert_eq!(
                (frame.kind, frame.stream, frame.offset),
                (Kind::Body, request.stream, body.len() as u64)
            );
            body.extend_from_slice(&frame.payload);
            if frame.last {
                assert_eq!(request.body_bytes, body.len() as u64);
                return Asked { request, body: body.into(), sent: 0 };
            }
        }
    }

    pub async fn head(&mut self, asked: &Asked, streaming: bool) {
        let stream = asked.request.stream;
        self.say(&NodeMessage::Head { stream, status: 200, streaming }).await;
    }

    pub async fn data(&mut self, asked: &mut Asked, text: &str) {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let offset = asked.sent;
        asked.sent += payload.len() as u64;
        self.raw(Frame { kind: Kind::Data, last: false, stream: asked.request.stream, offset, payload })
            .await;
    }

    pub async fn raw(&mut self, frame: Frame) {
        // Where the hub has cut the node off already, the test sees that at its next read.
        let _ = self.socket.send(Message::Binary(frame.encode())).await;
    }

    pub async fn end(&mut self, asked: &Asked, outcome: Outcome, length: u64, usage: Usage) {
        let stream = asked.request.stream;
        self.say(&NodeMessage::End(End { stream, outcome, length, usage, message: None })).await;
    }

    pub fn statement(
        &self,
        asked: &Asked,
        text: &str,
        outcome: Outcome,
        length: u64,
        usage: Usage,
    ) -> Statement {
        Statement {
            request: asked.request.request,
            node: PublicKey::from(&self.key),
            hub: self.hub,
            artefact: offer().artefact,
            endpoint: asked.request.endpoint,
            request_commitment: commitment(&asked.request.salt, &asked.body),
            response_commitment: commitment(&asked.request.salt, text.as_bytes()),
            outcome,
            length,
            joined: asked.request.prefix.map_or(Joined::Single, |prefix| prefix.joined()),
            usage,
            started: UnixMillis(1),
            timings: Timings::default(),
            energy: Energy::default(),
        }
    }

    pub async fn state_signed(&mut self, statement: &Statement, by: &SigningKey) {
        let statements = sign_batch(by, STATEMENT_TYPE, &[serde_json::to_vec(statement).unwrap()]);
        self.say(&NodeMessage::Statements { statements }).await;
    }

    /// Ends an answer and signs for it.
    pub async fn finish(&mut self, asked: &Asked, text: &str, outcome: Outcome, usage: Usage) {
        self.end(asked, outcome, asked.sent, usage).await;
        let statement = self.statement(asked, text, outcome, asked.sent, usage);
        let key = self.key.clone();
        self.state_signed(&statement, &key).await;
    }

    /// Streams `pieces` and a proper end with usage (9, 3).
    pub async fn stream(&mut self, asked: &mut Asked, pieces: &[&str]) {
        self.head(asked, true).await;
        for piece in pieces {
            self.data(asked, &chunk(piece)).await;
        }
        for part in [FINISH, USAGE, DONE] {
            self.data(asked, part).await;
        }
        self.finish(asked, &pieces.concat(), Outcome::Complete, usage(9, 3)).await;
    }

    pub async fn posted(&mut self) -> Posted {
        loop {
            match self.hear().await {
                HubMessage::Posted(posted) => return posted,
                HubMessage::Credit { .. } | HubMessage::Void { .. } => {}
                other => panic!("{other:?} instead of posted"),
            }
        }
    }

    /// Waits until the hub cuts this session off, and says why.
    pub async fn cut_off(&mut self) -> Refuse {
        loop {
            match hear(&mut self.socket).await {
                Some(HubMessage::Refuse(refuse)) => return refuse,
                Some(_) => {}
                None => panic!("closed without a reason"),
            }
        }
    }
}

pub async fn challenge(socket: &mut Socket) -> Challenge {
    match hear(socket).await {
        Some(HubMessage::Challenge(challenge)) => challenge,
        other => panic!("{other:?} is no challenge"),
    }
}

pub fn side<'a>(
    key: &'a SigningKey,
    challenge: &Challenge,
    token: Option<&'a str>,
    posted_through: u64,
) -> NodeSide<'a> {
    NodeSide {
        key,
        hub_key: challenge.hub_key,
        token,
        agent: "scripted/1",
        name: None,
        posted_through,
        resume: None,
    }
}

pub async fn say(socket: &mut Socket, message: &NodeMessage) {
    let _ = socket.send(Message::text(serde_json::to_string(message).unwrap())).await;
}

/// The next message; `None` when the hub closed.
pub async fn hear(socket: &mut Socket) -> Option<HubMessage> {
    loop {
        match frame(socket).await? {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

async fn frame(socket: &mut Socket) -> Option<Message> {
    timeout(PATIENCE, socket.next()).await.expect("the hub said nothing")?.ok()
}

/// The data of each event of a stream.
pub fn events(text: &str) -> Vec<String> {
    text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
}

/// The content of a chat stream, put together as an SDK does.
pub fn content(text: &str) -> String {
    events(text)
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

/// The receipt's only segment, as billed.
pub fn billed(receipt: &Receipt) -> Usage {
    assert_eq!(receipt.segments.len(), 1);
    receipt.segments[0].usage
}
