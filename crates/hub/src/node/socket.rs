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
use idlewatt_hub_core::chatter::Chatter;
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_hub_core::session::{Breach, Due, Heard};
use idlewatt_hub_core::settle::open_statement;
use idlewatt_protocol::frame::HEADER;
use idlewatt_protocol::handshake::{hello_is_signed, sign_welcome};
use idlewatt_protocol::limits::{
    FRAMES_PER_FLUSH, HANDSHAKE_TIMEOUT, HEARTBEAT, MAX_CONTROL_BYTES, MAX_FRAME_PAYLOAD, MAX_NAME,
    PROTOCOL_VERSION, RESUME_WINDOW, SUBPROTOCOL, WEBSOCKET_READ_BUFFER,
};
use idlewatt_protocol::message::{
    Challenge, Hello, HubMessage, NodeMessage, Refuse, RefuseCode, State as NodeState, Welcome,
};
use idlewatt_protocol::receipt::{Envelope, Opener};
use idlewatt_protocol::{Class, Nonce, PublicKey};
use tokio::time::{sleep, timeout, timeout_at};

use super::inbox::Over;
use super::link::Link;
use super::outbox::{Out, Outgoing, outbox};
use super::seat::Seat;
use crate::doors::Peer;
use crate::gateway::refusal;
use crate::hub::{Entering, Hub, clock};

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
    let running = hub.tasks.token();
    let (out, queue) = outbox();
    let is_near = peer.address.is_loopback();
    let joined = match timeout(HANDSHAKE_TIMEOUT, join(&hub, &mut socket)).await {
        Ok(Some(Ok(joined))) => joined,
        Ok(Some(Err(refuse))) => return turn_away(&mut socket, &refuse).await,
        Ok(None) | Err(_) => return,
    };
    // Who joined is known: what strangers may hold here does not bound it.
    drop(peer);
    let Joined { challenge, hello, account, epoch } = joined;
    let (node, posted_through) = (hello.node_key, hello.posted_through);
    let (agent, resume) = (hello.agent.clone(), hello.resume.clone());
    let entered = hub.enter(Entering { node, account, agent, epoch, out, resume });
    let (seat, resumed) = match entered {
        Ok(entered) => entered,
        Err(refuse) => return turn_away(&mut socket, &refuse).await,
    };
    let (streams, account) = (resumed.len(), &seat.link.account);
    tracing::info!(node = %node.short(), %account, epoch, agent = ?seat.link.agent, streams, "a node is connected");
    let welcome = Welcome {
        epoch,
        signature: sign_welcome(hub.store.hub_key(), &challenge, &hello, epoch),
        heartbeat_s: u32::try_from(HEARTBEAT.as_secs()).unwrap_or(u32::MAX),
        account: account.to_string(),
        hub_name: hub.name.clone(),
        urls: hub.urls(is_near).iter().map(|url| url.as_str().trim_end_matches('/').to_owned()).collect(),
        resumed,
    };
    let welcomed = timeout(HANDSHAKE_TIMEOUT, say(&mut socket, &HubMessage::Welcome(welcome))).await;
    if matches!(welcomed, Ok(Some(()))) {
        serve(&hub, &seat, socket, queue, posted_through).await;
    }
    let is_awaited = hub.leave(&seat);
    tracing::info!(node = %node.short(), epoch, is_awaited, "a node's connection is over");
    drop(running);
    if is_awaited {
        sleep(RESUME_WINDOW).await;
        hub.give_up(&seat);
    }
}

/// From the welcome to the end of the socket.
async fn serve(hub: &Arc<Hub>, seat: &Seat, socket: WebSocket, queue: Outgoing, posted_through: u64) {
    let (sink, stream) = socket.split();
    let mut writer = Box::pin(write(sink, queue));
    let ended = tokio::select! {
        () = &mut writer => return,
        ended = read(hub, seat, stream) => ended,
        ended = beat(hub, seat) => ended,
        ended = replay(hub, seat, posted_through) => ended,
    };
    let is_lost = match ended {
        Ok(End::Lost) => true,
        Ok(End::Over) => false,
        Err(breach) => {
            hub.cut_off(&seat.link, &breach);
            false
        }
    };
    if !is_lost {
        let _ = timeout(FAREWELL, writer).await;
    }
}

/// Why a socket is no longer read.
enum End {
    /// The node or the way to it is gone.
    Lost,
    /// The hub ended the session, and its last words are on their way.
    Over,
}

async fn turn_away(socket: &mut WebSocket, refuse: &Refuse) {
    tracing::info!(code = ?refuse.code, "a node is not let in");
    let _ = timeout(FAREWELL, farewell(socket, refuse)).await;
}

struct Joined {
    challenge: Challenge,
    hello: Box<Hello>,
    account: AccountName,
    epoch: u64,
}

/// The handshake; `None` when the peer went away in it.
async fn join(hub: &Arc<Hub>, socket: &mut WebSocket) -> Option<Result<Joined, Refuse>> {
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
    match hub.store.login(challenge.clone(), (*hello).clone()).await {
        Ok(login) => Some(Ok(Joined { challenge, hello, account: login.account, epoch: login.epoch })),
        Err(refuse) => Some(Err(refuse)),
    }
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
async fn write(mut sink: SplitSink<WebSocket, Message>, mut queue: Outgoing) {
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
            next = if fed < FRAMES_PER_FLUSH { queue.try_recv() } else { None };
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
async fn read(hub: &Arc<Hub>, seat: &Seat, mut stream: SplitStream<WebSocket>) -> Result<End, Breach> {
    let mut said = None;
    let mut chatter = Chatter::new(clock());
    while let Some(message) = stream.next().await {
        let heard = match message {
            Ok(Message::Text(text)) => {
                chatter.heard(clock(), 1)?;
                hear(hub, seat, &text, &mut said, &mut chatter)
            }
            Ok(Message::Binary(bytes)) => {
                // Bytes are bounded by credit; frames without any are not.
                if bytes.len() <= HEADER {
                    chatter.heard(clock(), 1)?;
                }
                seat.binary(&bytes)
            }
            Ok(Message::Ping(_) | Message::Pong(_)) => {
                chatter.heard(clock(), 1)?;
                seat.alive()
            }
            Ok(Message::Close(_)) => return Ok(End::Lost),
            Err(error) => return too_long(error).map_or(Ok(End::Lost), Err),
        };
        let Some(is_back) = heard else { return Ok(End::Over) };
        if let (true, Some(state)) = (is_back?, &said) {
            hub.route(|routing| routing.state(&seat.link.key, state));
        }
    }
    Ok(End::Lost)
}

/// tungstenite refuses an oversized frame before it is read; anything else is a lost connection.
fn too_long(error: axum::Error) -> Option<Breach> {
    let inner = error.into_inner();
    let capacity = inner.to_string().contains("too long") || inner.to_string().contains("too big");
    capacity.then(|| Breach(format!("a frame is over the limit of {MAX_CONTROL_BYTES} bytes")))
}

/// Takes in one message; whether the node had been taken for away. `said` is what the node said of itself last, to come back to after a silence.
fn hear(
    hub: &Arc<Hub>,
    seat: &Seat,
    text: &str,
    said: &mut Option<NodeState>,
    chatter: &mut Chatter,
) -> Option<Result<bool, Breach>> {
    let mut statements = None;
    let key = &seat.link.key;
    let heard = seat.text(text, |heard| match heard {
        Heard::Offer(services) => hub.route(|routing| routing.offer(key, services)),
        Heard::State(state) => {
            *said = Some(state);
            hub.route(|routing| routing.state(key, &state));
        }
        Heard::Head { owner, status, streaming } => owner.head(status, streaming),
        Heard::Ended { owner, end } => {
            chatter.answered();
            owner.over(Over::Ended(end));
        }
        Heard::Refused { owner, code } => {
            chatter.answered();
            owner.over(Over::Refused(code));
        }
        Heard::Statements(batch) => statements = Some(batch),
        Heard::Yield => {
            *said = None;
            away(hub, key, Class::Busy);
        }
        Heard::Drain { .. } => {
            *said = None;
            away(hub, key, Class::Offline);
        }
    });
    match (heard, statements) {
        (Some(Ok(is_back)), Some(batch)) => {
            let allowed = chatter.heard(clock(), batch.len());
            Some(allowed.and_then(|()| believe(hub, &seat.link, batch)).map(|()| is_back))
        }
        (heard, _) => heard,
    }
}

fn away(hub: &Hub, node: &PublicKey, why: Class) {
    hub.route(|routing| routing.away(node, why));
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
async fn beat(hub: &Hub, seat: &Seat) -> Result<End, Breach> {
    while let Some(ticked) = seat.tick(clock()) {
        let (due, next) = ticked?;
        match due {
            Due::Nothing | Due::Ping => {}
            Due::Silent => {
                tracing::info!(node = %seat.link.key.short(), "a node that somebody waits for is silent");
                away(hub, &seat.link.key, Class::Offline);
            }
            Due::Dead => {
                tracing::info!(node = %seat.link.key.short(), "a node stopped answering pings");
                return Ok(End::Lost);
            }
        }
        // Whether a stream began or the time came, the next tick says.
        let _ = timeout_at(next.into(), seat.link.sooner.notified()).await;
    }
    Ok(End::Over)
}

/// Sends what was posted while the node was away, a page at a time, then lets new postings follow. Ends only when the
/// past cannot be read: the node gets it at its next hello.
async fn replay(hub: &Hub, seat: &Seat, posted_through: u64) -> Result<End, Breach> {
    let mut through = posted_through;
    loop {
        match hub.store.postings_after(seat.link.key, through, REPLAY).await {
            Ok(page) => {
                let is_last = page.len() < REPLAY;
                through = page.last().map_or(through, |posted| posted.seq);
                seat.replay(page).await;
                if is_last {
                    seat.follow(through);
                    return std::future::pending().await;
                }
            }
            Err(error) => {
                tracing::error!(node = %seat.link.key.short(), %error, "postings could not be read: the session ends");
                return Ok(End::Lost);
            }
        }
    }
}
