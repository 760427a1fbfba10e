//! One request being answered: from the model server's bytes to pieces that may leave the machine, with a clock on every
//! wait.
//!
//! A task of its own owns the connection to the server, so that taking the slot back closes it at once, however long the
//! network takes to read. Dropping the [`Pieces`] does the same.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use idlewatt_core::answer::{Ending, PublicNames, Rewriting};
use idlewatt_core::work::{Head, Piece};
use idlewatt_protocol::RequestId;
use idlewatt_protocol::continuation::Prefix;
use idlewatt_protocol::message::{Deadlines, Endpoint, Outcome};
use idlewatt_servers::{Begun, Call, Model, ModelServer, ServerError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::metered::Metered;
use crate::slots::Slot;

/// Pieces read ahead of the network; past it the server is not read, and waits.
const AHEAD: usize = 32;

/// What is asked of a server.
pub(crate) struct Question {
    /// The request.
    pub(crate) request: RequestId,
    /// The server.
    pub(crate) server: Arc<dyn ModelServer>,
    /// Which of its models.
    pub(crate) model: Model,
    /// Which endpoint.
    pub(crate) endpoint: Endpoint,
    /// The body as it came.
    pub(crate) body: Bytes,
    /// Most completion tokens.
    pub(crate) max_tokens: u32,
    /// Whether each event is to carry the ids of its text.
    pub(crate) ids: bool,
    /// What of the answer was delivered already; the body ends with it.
    pub(crate) prefix: Option<Prefix>,
    /// Time limits.
    pub(crate) deadlines: Deadlines,
}

/// What comes of it, in this order: a head, pieces, the end. Without a head there is only the end.
pub(crate) enum Step {
    /// The answer begins.
    Head(Head),
    /// More of it.
    Piece(Piece),
    /// Nothing more comes.
    End(End),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// Complete, yielded or failed.
    pub(crate) outcome: Outcome,
    /// When the connection to the server was closed.
    pub(crate) at: Instant,
    /// Why it failed, for people.
    pub(crate) message: Option<String>,
    /// Whether the server itself is in doubt.
    pub(crate) server_lost: bool,
}

/// An answer under way.
pub(crate) struct Pieces {
    steps: mpsc::Receiver<Step>,
    task: JoinHandle<()>,
}

impl Pieces {
    /// Asks the server. The slot is given back, and the request metered to its end, when the connection is closed.
    #[must_use]
    pub(crate) fn ask(question: Question, slot: Slot, metered: Arc<Metered>) -> Self {
        let (sender, steps) = mpsc::channel(AHEAD);
        Self { steps, task: tokio::spawn(run(question, slot, metered, sender)) }
    }

    /// What comes next; `None` after the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Step> {
        self.steps.recv().await
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(question: Question, slot: Slot, metered: Arc<Metered>, steps: mpsc::Sender<Step>) {
    let taken_back = slot.taken_back().clone();
    let failed = tokio::select! {
        biased;
        () = taken_back.cancelled() => Err(Failure::Yielded),
        ended = answer(question, &metered, &steps) => ended,
    };
    // The connection is closed by now: what it was held for is free.
    drop(slot);
    let at = Instant::now();
    metered.end(at).await;
    let (outcome, message, server_lost) = match failed {
        Ok(()) => (Outcome::Complete, None, false),
        Err(Failure::Yielded) => (Outcome::Yielded, None, false),
        Err(Failure::Failed { message, server_lost }) => (Outcome::Failed, Some(message), server_lost),
    };
    // Nobody listens any more when the network went first.
    drop(steps.send(Step::End(End { outcome, at, message, server_lost })).await);
}

enum Failure {
    Yielded,
    Failed { message: String, server_lost: bool },
}

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let server_lost = matches!(error, ServerError::Unreachable | ServerError::BrokenOff);
        Self::Failed { message: error.to_string(), server_lost }
    }
}

async fn answer(question: Question, metered: &Metered, steps: &mpsc::Sender<Step>) -> Result<(), Failure> {
    let Question { request, server, model, endpoint, body, max_tokens, ids, prefix, deadlines } = question;
    let first = deadlines.first_token();
    let begun = Instant::now();
    let mut answer = {
        let parts = prefix.map(|it| it.split(&body).ok_or(ServerError::Continuation)).transpose()?;
        let own = parts.as_ref().map_or(&body[..], |it| it.body);
        let begun = parts.as_ref().map(|it| Begun { text: it.text, ids: &it.ids });
        let call = Call { ids, begun, ..Call::new(endpoint, own, max_tokens) };
        within(first, server.call(&model, call)).await??
    };
    let head = Head { status: answer.status, streaming: answer.streaming };
    if prefix.is_some() && (head.status != 200 || !head.streaming) {
        // No answer to the consumer's request: another node may go on with it.
        return Err(ServerError::Continuation.into());
    }
    let names = PublicNames::new(request, endpoint, &model.artefact);
    let mut rewriting = Rewriting::new(names, endpoint, head, body.len());
    if ids {
        rewriting = rewriting.telling_ids();
    }
    if prefix.is_some() {
        rewriting = rewriting.going_on();
    }
    drop(body);
    send(steps, Step::Head(head)).await?;
    // The first piece has what is left of its time; every other has its own.
    let mut limit = first.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
    loop {
        match within(limit, answer.chunk()).await?? {
            Some(bytes) => rewriting.push(&bytes),
            None => rewriting.close(),
        }
        loop {
            if let Some(piece) = rewriting.next_piece() {
                limit = deadlines.between();
                metered.went_on(&piece);
                send(steps, Step::Piece(piece)).await?;
            } else if let Some(text) = rewriting.text_without_ids() {
                let ids = server.ids_of(&model, text).await;
                rewriting.learn(ids);
            } else {
                break;
            }
        }
        match rewriting.ending() {
            None => {}
            Some(Ending::Complete) => return Ok(()),
            Some(Ending::Broken(why)) => {
                return Err(Failure::Failed { message: why.to_owned(), server_lost: true });
            }
        }
    }
}

/// The network reads at its own pace: no limit here is on it.
async fn send(steps: &mpsc::Sender<Step>, step: Step) -> Result<(), Failure> {
    // With nobody to read on, the answer is over as if taken back.
    steps.send(step).await.map_err(|_| Failure::Yielded)
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    timeout(limit, work).await.map_err(|_| Failure::Failed {
        message: format!("the model server gave nothing for {} s", limit.as_secs()),
        server_lost: false,
    })
}
