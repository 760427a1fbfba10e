//! The WebSocket of one node: handshake, one reader, one writer, one heartbeat, in one task.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use idlewatt_hub_core::session::{Breach, Due, Heard};
use idlewatt_hub_core::settle::open_statement;
use idlewatt_protocol::handshake::{hello_is_signed, sign_welcome};
use idlewatt_protocol::limits::{
    FRAMES_PER_FLUSH, HANDSHAKE_TIMEOUT, HEARTBEAT, MAX_CONTROL_BYTES, MAX_FRAME_PAYLOAD, MAX_NAME,
    PROTOCOL_VERSION, SUBPROTOCOL, WEBSOCKET_READ_BUFFER,
};
use idlewatt_protocol::message::{Challenge, HubMessage, NodeMessage, Refuse, RefuseCode, Welcome};
use idlewatt_protocol::receipt::{Envelope, Opener};
use idlewatt_protocol::{Class, Nonce};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep_until, timeout};
use url::Url;

use super::inbox::Over;
use super::link::{Link, Out};
use crate::doors::Peer;
use crate::gateway::refusal;
use crate::hub::{Hub, clock};

/// Time for a node to take its last message before the socket is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// Postings read from the store at a time; each carries its receipt of a few KiB.
const REPLAY: usize = 100;

/// `GET /node/v1`
pub(crate) async fn upgrade(
    State(hub): State<Arc<Hub>>,
    Extension(peer): Extension<Peer>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let words = "This path is for nodes, which speak WebSocket here. Join with `idlewatt join INVITE`.";
        let refusal = refusal(426, "upgrade_required", words);
        return ([(header::UPGRADE, HeaderValue::from_static("websocket"))], refusal).into_response();
    };
    upgrade
        .protocols([SUBPROTOCOL])
        .read_buffer_size(WEBSOCKET_READ_BUFFER)
        .write_buffer_size(MAX_FRAME_PAYLOAD)
        .max_frame_size(MAX_CONTROL_BYTES)
        .max_message_size(MAX_CONTROL_BYTES)
        .on_upgrade(|socket| run(hub, socket, peer))
}

async fn run(hub: Arc<Hub>, mut socket: WebSocket, peer: Peer) {
    // A stopping hub waits for farewells.
    let _running = hub.tasks.token();
    let (out, queue) = unbounded_channel();
    let joined = match timeout(HANDSHAKE_TIMEOUT, join(&hub, &mut socket, &peer)).await {
        Ok(Some(Ok(joined))) => joined,
        Ok(Some(Err(refuse))) => {
            tracing::info!(code = ?refuse.code, "a node is not let in");
            let _ = timeout(FAREWELL, farewell(&mut socket, &refuse)).await;
            return;
        }
        Ok(None) | Err(_) => return,
    };
    // Who joined is known: what strangers may hold here does not bound it.
    drop(peer);
    let Joined { node, account, epoch, agent, posted_through } = joined;
    let link = Arc::new(Link::new(node, account, epoch, agent, out));
    if !hub.register(&link) {
        return;
    }
    tracing::info!(node = %node.short(), account = %link.account, epoch, agent = ?link.agent, "a node is connected");
    let (sink, stream) = socket.split();
    let mut writer = Box::pin(write(sink, queue));
    let ended = tokio::select! {
        () = &mut writer => Ok(()),
        ended = read(&hub, &link, stream) => ended,
        ended = beat(&link) => ended,
        ended = replay(&hub, &link, posted_through) => ended,
    };
    if let Err(breach) = ended {
        hub.cut_off(&link, &breach);
        let _ = timeout(FAREWELL, writer).await;
    }
    link.close();
    hub.unregister(&link);
    tracing::info!(node = %node.short(), epoch, "a node's session is over");
}

struct Joined {
    node: idlewatt_protocol::PublicKey,
    account: idlewatt_hub_core::ledger::AccountName,
    epoch: u64,
    agent: String,
    posted_through: u64,
}

/// The handshake; `None` when the peer went away in it.
async fn join(hub: &Arc<Hub>, socket: &mut WebSocket, peer: &Peer) -> Option<Result<Joined, Refuse>> {
    if socket.protocol().is_none() {
        return Some(Err(refuse(
            RefuseCode::Version,
            "This program does not name the subprotocol idlewatt.node.v1. Update it.",
        )));
    }
    let challenge =
        Challenge { nonce: Nonce(rand::random()), versions: vec![PROTOCOL_VERSION], hub_key: hub.key };
    say(socket, &HubMessage::Challenge(challenge.clone())).await?;
    let text = loop {
        match socket.recv().await?.ok()? {
            Message::Text(text) => break text,
            Message::Ping(_) | Message::Pong(_) => {}
            Message::Binary(_) | Message::Close(_) => return None,
        }
    };
    let Ok(NodeMessage::Hello(hello)) = serde_json::from_str(&text) else {
        return Some(Err(refuse(
            RefuseCode::Protocol,
            "The first message must be a hello. Update the node's program.",
        )));
    };
    if hello.version != PROTOCOL_VERSION {
        return Some(Err(refuse(
            RefuseCode::Version,
            "This hub does not speak the protocol version that the node chose. Update the older of the two.",
        )));
    }
    if hello.agent.len() > MAX_NAME || hello.name.as_ref().is_some_and(|name| name.len() > MAX_NAME) {
        return Some(Err(refuse(RefuseCode::Protocol, "A name in the hello is longer than 256 bytes.")));
    }
    if !hello_is_signed(&challenge, &hello) {
        return Some(Err(refuse(
            RefuseCode::BadProof,
            "The hello's signature does not fit this session: the node's key is damaged, or someone replays it.",
        )));
    }
    if hub.is_draining() {
        return Some(Err(refuse(RefuseCode::Busy, "The hub stops now. Trying again later.")));
    }
    let login = match hub.store.login(challenge.clone(), (*hello).clone()).await {
        Ok(login) => login,
        Err(refuse) => return Some(Err(refuse)),
    };
    let welcome = Welcome {
        epoch: login.epoch,
        signature: sign_welcome(hub.store.hub_key(), &challenge, &hello, login.epoch),
        heartbeat_s: u32::try_from(HEARTBEAT.as_secs()).unwrap_or(u32::MAX),
        account: login.account.to_string(),
        hub_name: hub.name.clone(),
        urls: hub.urls(peer.address.is_loopback()).iter().map(Url::to_string).collect(),
        resumed: Vec::new(),
    };
    say(socket, &HubMessage::Welcome(welcome)).await?;
    Some(Ok(Joined {
        node: hello.node_key,
        account: login.account,
        epoch: login.epoch,
        agent: hello.agent.clone(),
        posted_through: hello.posted_through,
    }))
}

async fn say(socket: &mut WebSocket, message: &HubMessage) -> Option<()> {
    let text = serde_json::to_string(message).ok()?;
    socket.send(Message::text(text)).await.ok()
}

async fn farewell(socket: &mut WebSocket, refuse: &Refuse) {
    if say(socket, &HubMessage::Refuse(refuse.clone())).await.is_some() {
        let _ = socket.send(Message::Close(close(refuse))).await;
        // Until the peer's own close, so that what it still sends does not reset the connection before it has read.
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

fn refuse(code: RefuseCode, message: &str) -> Refuse {
    Refuse { code, message: message.to_owned() }
}

fn close(refuse: &Refuse) -> Option<CloseFrame> {
    let code = if refuse.code.is_temporary() { close_code::AWAY } else { close_code::POLICY };
    Some(CloseFrame { code, reason: "see the refuse message".into() })
}

/// Ends when the queue closes, a close was sent, or the socket fails.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut queue: UnboundedReceiver<Out>) {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        let mut fed = 0;
        while let Some(out) = next {
            let last = matches!(out, Out::Close(_));
            if feed(&mut sink, out).await.is_none() {
                return;
            }
            if last {
                let _ = sink.flush().await;
                return;
            }
            fed += 1;
            next = if fed < FRAMES_PER_FLUSH { queue.try_recv().ok() } else { None };
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

async fn feed(sink: &mut SplitSink<WebSocket, Message>, out: Out) -> Option<()> {
    let message = match out {
        Out::Text(text) => Message::text(text),
        Out::Binary(bytes) => Message::Binary(bytes),
        Out::Ping => Message::Ping(Bytes::new()),
        Out::Mark(mark) => {
            sink.flush().await.ok()?;
            // Whoever waited ended with the session.
            let _ = mark.send(());
            return Some(());
        }
        Out::Close(refuse) => {
            let text = serde_json::to_string(&HubMessage::Refuse(refuse.clone())).ok()?;
            sink.feed(Message::text(text)).await.ok()?;
            Message::Close(close(&refuse))
        }
    };
    sink.feed(message).await.ok()
}

/// Ends when the node closes, the socket fails, the session is over, or with what the node did wrong.
async fn read(hub: &Arc<Hub>, link: &Arc<Link>, mut stream: SplitStream<WebSocket>) -> Result<(), Breach> {
    while let Some(message) = stream.next().await {
        let heard = match message {
            Ok(Message::Text(text)) => hear(hub, link, &text),
            Ok(Message::Binary(bytes)) => link.binary(&bytes),
            Ok(Message::Ping(_) | Message::Pong(_)) => {
                link.alive();
                Some(Ok(()))
            }
            Ok(Message::Close(_)) => None,
            Err(error) => return too_long(error).map_or(Ok(()), Err),
        };
        match heard {
            Some(result) => result?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// tungstenite refuses an oversized frame before it is read; anything else is a lost connection.
fn too_long(error: axum::Error) -> Option<Breach> {
    let inner = error.into_inner();
    let capacity = inner.to_string().contains("too long") || inner.to_string().contains("too big");
    capacity.then(|| Breach(format!("a frame is over the limit of {MAX_CONTROL_BYTES} bytes")))
}

fn hear(hub: &Arc<Hub>, link: &Arc<Link>, text: &str) -> Option<Result<(), Breach>> {
    let mut statements = None;
    let key = &link.key;
    let heard = link.text(text, |heard| match heard {
        Heard::Offer(services) => {
            hub.routing().router.offer(key, services);
            hub.changed().notify_waiters();
        }
        Heard::State(state) => {
            hub.routing().router.state(key, &state);
            hub.changed().notify_waiters();
        }
        Heard::Head { owner, status, streaming } => owner.head(status, streaming),
        Heard::Ended { owner, end } => owner.over(Over::Ended(end)),
        Heard::Refused { owner, code } => owner.over(Over::Refused(code)),
        Heard::Statements(batch) => statements = Some(batch),
        Heard::Yield => away(hub, link, Class::Busy),
        Heard::Drain { .. } => away(hub, link, Class::Offline),
    });
    match (heard, statements) {
        (Some(Ok(())), Some(batch)) => Some(believe(hub, link, batch)),
        (heard, _) => heard,
    }
}

fn away(hub: &Hub, link: &Link, why: Class) {
    hub.routing().router.away(&link.key, why);
}

/// Hands authentic statements to whoever settles their requests; the node may forget those of void requests.
fn believe(hub: &Arc<Hub>, link: &Arc<Link>, batch: Vec<Envelope>) -> Result<(), Breach> {
    let mut opener = Opener::default();
    for envelope in batch {
        let statement = open_statement(&mut opener, &envelope, &link.key, &hub.key)?;
        let request = statement.request;
        if !hub.take_statement(&link.key, envelope, statement) {
            let (hub, link) = (Arc::clone(hub), Arc::clone(link));
            let tasks = hub.tasks.clone();
            tasks.spawn(async move {
                // A posting to this node was sent, or is replayed on its next hello.
                if let Ok(false) = hub.store.is_posted(request, link.key).await {
                    link.send(&HubMessage::Void { request });
                }
            });
        }
    }
    Ok(())
}

/// Pings, and ends when they stay unanswered.
async fn beat(link: &Link) -> Result<(), Breach> {
    while let Some(ticked) = link.tick(clock()) {
        let (due, next) = ticked?;
        if due == Due::Dead {
            tracing::info!(node = %link.key.short(), "a node stopped answering pings");
            return Ok(());
        }
        sleep_until(next.into()).await;
    }
    Ok(())
}

/// Sends what was posted while the node was away, a page at a time, then lets new postings follow. Ends only when the
/// past cannot be read: the node gets it at its next hello.
async fn replay(hub: &Hub, link: &Link, posted_through: u64) -> Result<(), Breach> {
    let mut through = posted_through;
    loop {
        match hub.store.postings_after(link.key, through, REPLAY).await {
            Ok(page) => {
                let is_last = page.len() < REPLAY;
                through = page.last().map_or(through, |posted| posted.seq);
                link.replay(page).await;
                if is_last {
                    link.follow(through);
                    return std::future::pending().await;
                }
            }
            Err(error) => {
                tracing::error!(node = %link.key.short(), %error, "postings could not be read: the session ends");
                return Ok(());
            }
        }
    }
}
