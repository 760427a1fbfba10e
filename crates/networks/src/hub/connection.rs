//! One open connection to a hub: the socket and the session machine, in one task.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use idlewatt_core::Now;
use idlewatt_core::session::{Closed, Effect, Introduction, Session};
use idlewatt_protocol::RequestId;
use idlewatt_protocol::limits::FRAMES_PER_FLUSH;
use idlewatt_protocol::message::{Posted, Welcome};
use idlewatt_protocol::receipt::{Envelope, Statement};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};
use tokio_util::sync::CancellationToken;

use super::answer::{self, News, Order};
use super::dial::Socket;
use crate::host::SharedHost;

/// Pieces of all answers that may wait for the session's task.
const NEWS: usize = 64;
/// Frames that may wait for the socket before no more pieces are taken.
const OUTBOX: usize = 4 * FRAMES_PER_FLUSH;
/// Postings that may wait for the host's store before the hub is not read any further.
const BOOKS: usize = 256;
/// Statements of earlier sessions that are sent again in one session.
const UNSETTLED: usize = 4096;
/// How long a stop waits for the last statements.
const GOODBYE: Duration = Duration::from_secs(2);

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

/// A connection whose handshake is done.
pub(super) struct Connection {
    wire: Wire,
    session: Session,
}

impl Connection {
    /// Proves both sides to each other on a fresh socket.
    pub(super) async fn open(socket: Socket, introduction: Introduction) -> Result<(Self, Welcome), Over> {
        let mut wire = Wire { socket, outbox: VecDeque::new(), unflushed: 0 };
        let mut session = Session::new(introduction, &now());
        loop {
            while let Some(effect) = session.next_effect() {
                match effect {
                    Effect::Text(text) => wire.outbox.push_back(Message::text(text)),
                    Effect::Welcomed(welcome) => return Ok((Self { wire, session }, welcome)),
                    Effect::Close(why) => return Err(Over::Closed(why)),
                    _ => {}
                }
            }
            tokio::select! {
                received = wire.turn() => receive(&mut session, received)?,
                () = until(&session) => session.time(&now()),
            }
        }
    }

    /// Names the network on this node, where it was not known yet when the connection opened.
    pub(super) fn rename(&mut self, network: &str) {
        self.session.rename(network);
    }

    /// Runs the session to its end.
    pub(super) async fn drive(self, host: &SharedHost, stop: &CancellationToken) -> Over {
        let (news, mut told) = mpsc::channel(NEWS);
        let (signed, mut envelopes) = mpsc::unbounded_channel();
        let (books, mut keeper) = keep_books(host.clone());
        let mut changes = host.changes();
        let mut sleep = host.sleep();
        let mut run = Run {
            host: host.clone(),
            session: self.session,
            wire: self.wire,
            orders: HashMap::new(),
            news,
            signed,
            signing: 0,
            books,
        };
        run.send_unsettled();
        run.session.offer(host.offer());
        run.session.state(host.state());
        let mut goodbye = None;
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        let over = loop {
            if let Some(over) = run.act().await {
                break over;
            }
            if goodbye.is_some() && run.session.streams() == 0 && run.signing == 0 && run.wire.is_quiet() {
                break Over::Stopped;
            }
            let wakeup = [run.session.wakeup().map(|wakeup| wakeup.at), goodbye].into_iter().flatten().min();
            if let Some(at) = wakeup {
                let at = tokio::time::Instant::from_std(at);
                // A later wake-up is found out when the timer fires: moving it at every message would cost more.
                if timer.is_elapsed() || at < timer.deadline() {
                    timer.as_mut().reset(at);
                }
            }
            tokio::select! {
                received = run.wire.turn() => {
                    if let Err(over) = receive(&mut run.session, received) {
                        break over;
                    }
                }
                Some((stream, what)) = told.recv(), if run.wire.outbox.len() < OUTBOX => {
                    run.hear(stream, what);
                    // What is ready now goes out with one flush.
                    while run.wire.outbox.len() < OUTBOX
                        && let Ok((stream, what)) = told.try_recv()
                    {
                        run.hear(stream, what);
                    }
                }
                Some(mut batch) = envelopes.recv() => {
                    run.signing -= 1;
                    while let Ok(more) = envelopes.try_recv() {
                        run.signing -= 1;
                        batch.extend(more);
                    }
                    run.session.signed(batch);
                }
                Ok(()) = changes.changed() => {
                    run.session.offer(host.offer());
                    run.session.state(host.state());
                }
                // A session that outlived a sleep, or a clock that was set, finds it out now.
                Ok(()) = sleep.changed() => run.session.time(&now()),
                // Going on would leave a hole in the books that no later hello asks for.
                _ = &mut keeper => break Over::Lost("a posting could not be kept on this machine's disk".to_owned()),
                () = stop.cancelled(), if goodbye.is_none() => {
                    run.session.yield_all();
                    goodbye = Some(Instant::now() + GOODBYE);
                }
                () = timer.as_mut() => {
                    run.session.time(&now());
                    if goodbye.is_some_and(|at| at <= Instant::now()) {
                        break Over::Stopped;
                    }
                }
            }
        };
        run.session.lost();
        let _ = run.act().await;
        if matches!(over, Over::Stopped) {
            // The hub learns at once, rather than by a missed ping; whether it does changes nothing here.
            let _ = tokio::time::timeout(GOODBYE, run.wire.socket.close(None)).await;
        }
        drop(run);
        // The next hello names the last posting kept, so every one that came must be kept by then.
        if !keeper.is_finished() {
            let _ = keeper.await;
        }
        over
    }
}

/// A running session and everything that hangs on it.
struct Run {
    host: SharedHost,
    session: Session,
    wire: Wire,
    orders: HashMap<u32, watch::Sender<Order>>,
    news: mpsc::Sender<(u32, News)>,
    /// One message for each of `signing`.
    signed: mpsc::UnboundedSender<Vec<Envelope>>,
    /// Tasks that bring statements.
    signing: usize,
    books: mpsc::Sender<Entry>,
}

impl Run {
    /// Does what the session asks for; tells when it is over.
    async fn act(&mut self) -> Option<Over> {
        while let Some(effect) = self.session.next_effect() {
            match effect {
                Effect::Text(text) => self.wire.outbox.push_back(Message::text(text)),
                Effect::Binary(bytes) => self.wire.outbox.push_back(Message::Binary(bytes)),
                Effect::Begin { stream, ask, through } => {
                    let (order, orders) = watch::channel(Order { through, finish: None });
                    self.orders.insert(stream, order);
                    let (host, news) = (self.host.clone(), self.news.clone());
                    tokio::spawn(answer::drive(host, ask, stream, orders, news));
                }
                Effect::Allow { stream, through } => self.order(stream, |order| order.through = through),
                Effect::Finish { stream, outcome, usage } => {
                    self.order(stream, |order| order.finish = Some((outcome, usage)));
                }
                Effect::Sign(statement) => self.sign(*statement),
                Effect::Posted(posted) => self.enter(Entry::Posted(Box::new(posted))).await,
                Effect::Void(request) => self.enter(Entry::Void(request)).await,
                Effect::Close(why) => return Some(Over::Closed(why)),
                Effect::Welcomed(_) => {}
            }
        }
        None
    }

    fn order(&self, stream: u32, change: impl FnOnce(&mut Order)) {
        if let Some(order) = self.orders.get(&stream) {
            order.send_modify(change);
        }
    }

    fn hear(&mut self, stream: u32, what: News) {
        match what {
            News::Head(head) => self.session.head(stream, head),
            News::Piece(piece) => self.session.piece(stream, piece, Instant::now()),
            News::Ended => self.session.ended(stream, Instant::now()),
            News::Refused(code) => {
                self.orders.remove(&stream);
                self.session.refused(stream, code);
            }
            News::Finished(finished) => {
                self.orders.remove(&stream);
                self.session.finished(stream, *finished);
            }
        }
    }

    /// In a task of its own, so that a statement is kept even when the session is lost meanwhile.
    fn sign(&mut self, statement: Statement) {
        self.signing += 1;
        let (host, signed) = (self.host.clone(), self.signed.clone());
        tokio::spawn(async move {
            let request = statement.request;
            let envelope = host
                .sign(statement)
                .await
                .inspect_err(|error| tracing::error!(%request, %error, "a statement is lost"))
                .ok();
            let envelope = envelope.into_iter().collect();
            // A session that is gone sends it again from the outbox.
            let _ = signed.send(envelope);
        });
    }

    fn send_unsettled(&mut self) {
        let (host, signed) = (self.host.clone(), self.signed.clone());
        self.signing += 1;
        tokio::spawn(async move {
            let _ = signed.send(host.unsettled(UNSETTLED).await);
        });
    }

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
struct Wire {
    socket: Socket,
    outbox: VecDeque<Message>,
    unflushed: usize,
}

impl Wire {
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

async fn until(session: &Session) {
    match session.wakeup() {
        Some(wakeup) => tokio::time::sleep_until(tokio::time::Instant::from_std(wakeup.at)).await,
        None => std::future::pending().await,
    }
}

fn now() -> Now {
    Now { monotonic: Instant::now(), wall: jiff::Timestamp::now(), zone: jiff::tz::TimeZone::UTC }
}
