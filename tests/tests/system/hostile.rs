//! A node that keeps to no rule, speaking the real protocol to a real hub: it is cut off, and nothing is billed.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use futures_util::{SinkExt, StreamExt};
use idlewatt_protocol::frame::{Frame, Kind};
use idlewatt_protocol::handshake::NodeSide;
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::limits::{CHATTER_AT_ONCE, MAX_CONTROL_BYTES, MAX_FRAME_PAYLOAD, SUBPROTOCOL};
use idlewatt_protocol::message::{End, HubMessage, NodeMessage, Outcome, Request, State};
use idlewatt_protocol::usage::UsageSource;
use idlewatt_protocol::{Artefact, Capabilities, Nonce, Price, Scope, ServiceOffer, Usage};
use idlewatt_tests::{Answer, Consumer, Hub};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::{chat, stream};

/// A node whose every message is chosen by the test.
struct Rogue {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Rogue {
    /// Joins honestly, and offers a model at a high price.
    async fn join(hub: &Hub) -> Self {
        let invite: Invite = hub.invite("rogue").parse().unwrap();
        let mut request = format!("{}/node/v1", hub.url.replace("http", "ws")).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = connect_async(request).await.unwrap();
        let mut rogue = Self { socket };
        let HubMessage::Challenge(challenge) = rogue.next().await.expect("a challenge") else {
            panic!("no challenge")
        };
        let key = SigningKey::from_bytes(&[9; 32]);
        let side = NodeSide {
            key: &key,
            hub_key: invite.key,
            token: Some(&invite.token),
            agent: "rogue/1",
            name: None,
            posted_through: 0,
            resume: None,
        };
        rogue.say(&NodeMessage::Hello(Box::new(side.answer(&challenge, Nonce([7; 32])).unwrap()))).await;
        let HubMessage::Welcome(_) = rogue.next().await.expect("a welcome") else { panic!("not let in") };
        let artefact = Artefact {
            model: idlewatt_tests::MODEL.into(),
            quantisation: None,
            digest: None,
            engine: "rogue".into(),
            engine_build: None,
        };
        let capabilities = Capabilities {
            chat: true,
            streaming: true,
            cancels: true,
            usage: true,
            ..Capabilities::default()
        };
        let offer = ServiceOffer {
            service: "s".into(),
            artefact,
            slots: 4,
            context: 4096,
            price: Price(50_000_000),
            capabilities,
            warm: true,
            load_ms: None,
            scope: Scope::Circle,
            region: None,
        };
        rogue.say(&NodeMessage::Offer { services: vec![offer] }).await;
        rogue
            .say(&NodeMessage::State(State {
                accepting: true,
                own: false,
                free_slots: 4,
                why: None,
                until: None,
            }))
            .await;
        rogue
    }

    async fn say(&mut self, message: &NodeMessage) {
        self.text(serde_json::to_string(message).unwrap()).await;
    }

    /// A hub that has already cut the node off is as good as one that does so now.
    async fn text(&mut self, text: String) {
        drop(self.socket.send(Message::text(text)).await);
    }

    async fn bytes(&mut self, bytes: Vec<u8>) {
        drop(self.socket.send(Message::binary(bytes)).await);
    }

    /// The same again and again, faster than a node ever has to; until the hub has had enough.
    async fn flood(&mut self, message: Message) {
        for _ in 0..4 * CHATTER_AT_ONCE {
            if self.socket.send(message.clone()).await.is_err() {
                return;
            }
        }
    }

    async fn data(&mut self, stream: u32, offset: u64, payload: &str, last: bool) {
        let payload = payload.as_bytes().to_vec().into();
        self.bytes(Frame { kind: Kind::Data, last, stream, offset, payload }.encode().to_vec()).await;
    }

    /// The next control message; `None` once the hub has closed the socket.
    async fn next(&mut self) -> Option<HubMessage> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.socket.next());
            match next.await.expect("the hub says nothing for 10 s")? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn request(&mut self) -> Request {
        loop {
            if let HubMessage::Request(request) = self.next().await.expect("the hub sends a request") {
                return request;
            }
        }
    }

    /// Reads on until the socket is closed; whether the hub said why.
    async fn cut_off(mut self) -> bool {
        let mut told = false;
        while let Some(message) = self.next().await {
            told |= matches!(message, HubMessage::Refuse(_));
        }
        told
    }
}

/// What the rogue does with the request that it is given.
#[derive(Clone, Copy, Debug)]
enum Misdeed {
    OversizedFrame,
    OversizedMessage,
    GapInOffsets,
    ForeignStream,
    NoFrameAtAll,
    NoJson,
    InflatedCount,
    EndsShort,
    FloodOfStates,
    FloodOfPings,
    FloodOfEmptyFrames,
}

const MISDEEDS: [Misdeed; 11] = [
    Misdeed::OversizedFrame,
    Misdeed::OversizedMessage,
    Misdeed::GapInOffsets,
    Misdeed::ForeignStream,
    Misdeed::NoFrameAtAll,
    Misdeed::NoJson,
    Misdeed::InflatedCount,
    Misdeed::EndsShort,
    Misdeed::FloodOfStates,
    Misdeed::FloodOfPings,
    Misdeed::FloodOfEmptyFrames,
];

const PIECE: &str = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"},\"finish_reason\":null}]}\n\n";

async fn misbehave(rogue: &mut Rogue, request: &Request, misdeed: Misdeed) {
    let stream = request.stream;
    rogue.say(&NodeMessage::Head { stream, status: 200, streaming: true }).await;
    rogue.data(stream, 0, PIECE, false).await;
    let sent = PIECE.len() as u64;
    let end = |completion, length| {
        NodeMessage::End(End {
            stream,
            outcome: Outcome::Complete,
            length,
            usage: Usage { prompt: 5, completion, source: UsageSource::Server },
            message: None,
        })
    };
    match misdeed {
        Misdeed::OversizedFrame => {
            let mut frame =
                Frame { kind: Kind::Data, last: false, stream, offset: sent, payload: vec![].into() }
                    .encode()
                    .to_vec();
            frame.resize(frame.len() + MAX_FRAME_PAYLOAD + 1, b'x');
            rogue.bytes(frame).await;
        }
        Misdeed::OversizedMessage => rogue.text(format!("{:?}", "x".repeat(MAX_CONTROL_BYTES))).await,
        Misdeed::GapInOffsets => rogue.data(stream, sent + 1, PIECE, false).await,
        Misdeed::ForeignStream => rogue.data(stream + 1_000, 0, PIECE, false).await,
        Misdeed::NoFrameAtAll => rogue.bytes(vec![0xff; 40]).await,
        Misdeed::NoJson => rogue.text("{\"type\":\"surprise\"}".into()).await,
        Misdeed::InflatedCount => {
            rogue.data(stream, sent, "data: [DONE]\n\n", true).await;
            rogue.say(&end(1_000_000, sent + 14)).await;
        }
        Misdeed::EndsShort => rogue.say(&end(1, sent + 4_000)).await,
        Misdeed::FloodOfStates => {
            let state = State { accepting: true, own: false, free_slots: 4, why: None, until: None };
            let text = serde_json::to_string(&NodeMessage::State(state)).unwrap();
            rogue.flood(Message::text(text)).await;
        }
        Misdeed::FloodOfPings => rogue.flood(Message::Ping(Vec::new().into())).await,
        Misdeed::FloodOfEmptyFrames => {
            let empty = Frame { kind: Kind::Data, last: false, stream, offset: sent, payload: vec![].into() };
            rogue.flood(Message::Binary(empty.encode())).await;
        }
    }
}

async fn ask(consumer: Consumer) -> Answer {
    consumer.chat(&stream("Hi", 16)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_node_is_cut_off_and_bills_nothing() {
    for misdeed in MISDEEDS {
        let hub = Hub::start();
        let consumer = hub.consumer("guest", 1_000);
        let mut rogue = Rogue::join(&hub).await;
        hub.until_available(&consumer, true).await;
        let answer = tokio::spawn(ask(consumer.clone()));
        let request = rogue.request().await;
        misbehave(&mut rogue, &request, misdeed).await;
        println!("{misdeed:?}");
        // A flood that is still on its way when the hub closes resets the connection, and the hub's word is lost with it.
        let is_flood =
            matches!(misdeed, Misdeed::FloodOfStates | Misdeed::FloodOfPings | Misdeed::FloodOfEmptyFrames);
        let told = rogue.cut_off().await;
        assert!(told || is_flood, "{misdeed:?}: the hub tells the node which rule it broke");
        let answer = answer.await.unwrap();
        if !matches!(misdeed, Misdeed::InflatedCount) {
            assert!(!answer.done && answer.error().is_some(), "{misdeed:?}: {answer:?}");
        }
        assert_eq!(hub.account("guest")["balance_ucr"], 1_000_000_000, "{misdeed:?}");
        assert_eq!(hub.account("rogue")["balance_ucr"], 0, "{misdeed:?}");
        assert_eq!(hub.account("guest")["reserved_ucr"], 0, "{misdeed:?}: what was reserved is free again");
        hub.check_ledger();
    }
    println!("{} misdeeds, each cut off, nothing billed", MISDEEDS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_invite_or_with_anothers_proof_nobody_gets_in() {
    let hub = Hub::start();
    let consumer = hub.consumer("guest", 1);
    let mut request = format!("{}/node/v1", hub.url.replace("http", "ws")).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    for token in [None, Some("made-up-token")] {
        let (socket, _) = connect_async(request.clone()).await.unwrap();
        let mut rogue = Rogue { socket };
        let HubMessage::Challenge(challenge) = rogue.next().await.expect("a challenge") else {
            panic!("no challenge")
        };
        let key = SigningKey::from_bytes(&[8; 32]);
        let side = NodeSide {
            key: &key,
            hub_key: challenge.hub_key,
            token,
            agent: "rogue/1",
            name: None,
            posted_through: 0,
            resume: None,
        };
        rogue.say(&NodeMessage::Hello(Box::new(side.answer(&challenge, Nonce([7; 32])).unwrap()))).await;
        assert!(rogue.cut_off().await, "{token:?}");
    }
    assert_eq!(consumer.listed().await, Some(vec![]));
    assert_eq!(consumer.chat(&chat("Hi", 4)).await.status, 404);
}
