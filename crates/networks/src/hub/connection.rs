//! One open connection to a hub: the socket, and the session on it, in one task.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use idlewatt_core::session::{Closed, Effect, Introduction, Session};
use idlewatt_protocol::limits::FRAMES_PER_FLUSH;
use idlewatt_protocol::message::{Posted, Welcome};
use idlewatt_protocol::{Nonce, RequestId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

use super::answers::{Answers, GOODBYE, now, until};
use super::dial::Socket;
use crate::host::SharedHost;

/// Frames that may wait for the socket before no more pieces are taken.
const OUTBOX: usize = 4 * FRAMES_PER_FLUSH;
/// Postings that may wait for the host's store before the hub is not read any further.
const BOOKS: usize = 256;

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum Over {
    Stopped,
    Closed(Closed),
    Lost(String),
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("this machine goes to sleep"),
            Self::Lost(why) => f.write_str(why),
            Self::Closed(Closed::Refused { message, .. }) => f.write_str(message),
            Self::Closed(Closed::Distrusted(why)) => write!(f, "{why}"),
            Self::Closed(Closed::Breach(which)) => write!(f, "the hub broke the protocol: {which}"),
            Self::Closed(Closed::Silent) => f.write_str("the hub fell silent"),
            Self::Closed(Closed::ClockJumped) => f.write_str("this machine slept, or its clock was set"),
        }
    }
}

/// A connection whose handshake is done, and the session on it.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) session: Session,
}

impl Connection {
    /// Proves both sides to each other on a fresh socket, for the first time.
    pub(super) async fn open(socket: Socket, introduction: Introduction) -> Result<(Self, Welcome), Over> {
        let mut wire = Wire::new(socket);
        let mut session = Session::new(introduction, &now());
        loop {
            while let Some(effect) = session.next_effect() {
                if let Some(welcome) = greet(effect, &mut wire)? {
                    return Ok((Self { wire, session }, welcome));
                }
            }
            tokio::select! {
                received = wire.turn() => receive(&mut session, received)?,
                () = until(&session) => session.time(&now()),
            }
        }
    }
}

/// One step of a handshake.
fn greet(effect: Effect, wire: &mut Wire) -> Result<Option<Welcome>, Over> {
    match effect {
        Effect::Text(text) => wire.outbox.push_back(Message::text(text)),
        Effect::Welcomed(welcome) => return Ok(Some(welcome)),
        Effect::Close(why) => return Err(Over::Closed(why)),
        _ => {}
    }
    Ok(None)
}

impl Answers {
    /// Proves both sides to each other on a fresh socket; the answers go on meanwhile.
    pub(super) async fn enter(&mut self, socket: Socket, through: u64) -> Result<(Wire, Welcome), Over> {
        let mut wire = Wire::new(socket);
        self.session.reopen(Nonce(rand::random()), through, &now());
        loop {
            while let Some(effect) = self.session.next_effect() {
                if let Some(effect) = self.take(effect)
                    && let Some(welcome) = greet(effect, &mut wire)?
                {
                    return Ok((wire, welcome));
                }
            }
            tokio::select! {
                received = wire.turn() => receive(&mut self.session, received)?,
                () = self.step() => {}
            }
        }
    }

    /// Runs the session to the end of its connection.
    pub(super) async fn drive(&mut self, wire: Wire, stop: &CancellationToken) -> Over {
        let (books, mut keeper) = keep_books(self.host.clone());
        let mut changes = self.host.changes();
        let mut sleep = self.host.sleep();
        let mut on = Line { wire, books };
        self.send_unsettled();
        self.session.offer(self.host.offer());
        self.session.state(self.host.state());
        let mut goodbye = None;
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let over = loop {
            if let Some(over) = self.act_on(&mut on).await {
                break over;
            }
            if goodbye.is_some() && self.are_done() && on.wire.is_quiet() {
                break Over::Stopped;
            }
            let wakeup = [self.session.wakeup().map(|wakeup| wakeup.at), goodbye].into_iter().flatten().min();
            if let Some(at) = wakeup {
                let at = tokio::time::Instant::from_std(at);
                // A later wake-up is found out when the timer fires: moving it at every message would cost more.
                if timer.is_elapsed() || at < timer.deadline() {
                    timer.as_mut().reset(at);
                }
            }
            tokio::select! {
                received = on.wire.turn() => {
                    if let Err(over) = receive(&mut self.session, received) {
                        break over;
                    }
                }
                Some((stream, what)) = self.told.recv(), if on.wire.outbox.len() < OUTBOX => {
                    self.hear(stream, what);
                    // What is ready now goes out with one flush.
                    while on.wire.outbox.len() < OUTBOX
                        && let Ok((stream, what)) = self.told.try_recv()
                    {
                        self.hear(stream, what);
                    }
                }
                Some(batch) = self.envelopes.recv() => self.bring(batch),
                Ok(()) = changes.changed() => {
                    self.session.offer(self.host.offer());
                    self.session.state(self.host.state());
                }
                // A session that outlived a sleep, or a clock that was set, finds it out now.
                Ok(()) = sleep.changed() => self.session.time(&now()),
                // Going on would leave a hole in the books that no later hello asks for.
                _ = &mut keeper => break Over::Lost("a posting could not be kept on this machine's disk".to_owned()),
                () = stop.cancelled(), if goodbye.is_none() => {
                    self.session.yield_all();
                    goodbye = Some(Instant::now() + GOODBYE);
                }
                () = timer.as_mut() => {
                    self.session.time(&now());
                    if goodbye.is_some_and(|at| at <= Instant::now()) {
                        break Over::Stopped;
                    }
                }
            }
        };
        self.session.lost(Instant::now());
        if matches!(over, Over::Stopped) {
            // The hub learns at once, rather than by a missed ping; whether it does changes nothing here.
            let _ = tokio::time::timeout(GOODBYE, on.wire.socket.close(None)).await;
        }
        drop(on);
        // The next hello names the last posting kept, so every one that came must be kept by then.
        if !keeper.is_finished() {
            let _ = keeper.await;
        }
        over
    }

    /// Does what the session asks for; tells when its connection is over.
    async fn act_on(&mut self, on: &mut Line) -> Option<Over> {
        while let Some(effect) = self.session.next_effect() {
            let Some(effect) = self.take(effect) else { continue };
            match effect {
                Effect::Text(text) => on.wire.outbox.push_back(Message::text(text)),
                Effect::Binary(bytes) => on.wire.outbox.push_back(Message::Binary(bytes)),
                Effect::Posted(posted) => on.enter(Entry::Posted(Box::new(posted))).await,
                Effect::Void(request) => on.enter(Entry::Void(request)).await,
                Effect::Close(why) => return Some(Over::Closed(why)),
                _ => {}
            }
        }
        None
    }
}

/// A connection, and the books of what comes in on it.
struct Line {
    wire: Wire,
    books: mpsc::Sender<Entry>,
}

impl Line {
    async fn enter(&self, entry: Entry) {
        // The keeper ends before this sender only where the session is about to.
        let _ = self.books.send(entry).await;
    }
}

/// What the hub settled, for the host to keep in this order.
enum Entry {
    Posted(Box<Posted>),
    Void(RequestId),
}

/// Ends when the sender is gone, or with the first posting that could not be kept.
fn keep_books(host: SharedHost) -> (mpsc::Sender<Entry>, JoinHandle<()>) {
    let (books, mut entries) = mpsc::channel(BOOKS);
    let keeper = tokio::spawn(async move {
        while let Some(entry) = entries.recv().await {
            match entry {
                Entry::Posted(posted) => {
                    if host.posted(*posted).await.is_err() {
                        break;
                    }
                }
                Entry::Void(request) => host.void(request).await,
            }
        }
    });
    (books, keeper)
}

/// The socket with the frames that wait for it.
pub(super) struct Wire {
    socket: Socket,
    outbox: VecDeque<Message>,
    unflushed: usize,
}

impl Wire {
    fn new(socket: Socket) -> Self {
        Self { socket, outbox: VecDeque::new(), unflushed: 0 }
    }

    /// Sends what waits, flushing when nothing more does or after 32 frames. Ready when all of it is sent (`None`), so that
    /// more may be taken, or when something is received. Cancel-safe.
    async fn turn(&mut self) -> Result<Option<Message>, Over> {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    fn is_quiet(&self) -> bool {
        self.outbox.is_empty() && self.unflushed == 0
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Over>> {
        let had_some = !self.is_quiet();
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(lost(&error))),
            Poll::Ready(Ok(())) if had_some => return Poll::Ready(Ok(None)),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        self.socket.poll_next_unpin(cx).map(|received| match received {
            Some(Ok(message)) => Ok(Some(message)),
            Some(Err(error)) => Err(lost(&error)),
            None => Err(Over::Lost("the hub closed the connection".to_owned())),
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        loop {
            while self.unflushed < FRAMES_PER_FLUSH && !self.outbox.is_empty() {
                std::task::ready!(self.socket.poll_ready_unpin(cx))?;
                if let Some(message) = self.outbox.pop_front() {
                    self.socket.start_send_unpin(message)?;
                    self.unflushed += 1;
                }
            }
            if self.unflushed == 0 {
                return Poll::Ready(Ok(()));
            }
            std::task::ready!(self.socket.poll_flush_unpin(cx))?;
            self.unflushed = 0;
        }
    }
}

fn receive(session: &mut Session, received: Result<Option<Message>, Over>) -> Result<(), Over> {
    let Some(message) = received? else { return Ok(()) };
    match message {
        Message::Text(text) => session.text(&text, &now()),
        Message::Binary(bytes) => session.binary(&bytes, &now()),
        Message::Ping(_) | Message::Pong(_) => session.heard(&now()),
        Message::Close(_) | Message::Frame(_) => {
            return Err(Over::Lost("the hub closed the connection".to_owned()));
        }
    }
    Ok(())
}

fn lost(error: &SocketError) -> Over {
    match error {
        SocketError::Capacity(_) => Over::Closed(Closed::Breach("a frame over the limit")),
        SocketError::Io(error) => Over::Lost(format!("the connection broke ({})", error.kind())),
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
            Over::Lost("the hub closed the connection".to_owned())
        }
        other => Over::Lost(format!("the connection broke ({other})")),
    }
}
