//! One answer on its way from the host to the session, in a task of its own.

use idlewatt_core::work::{Ask, Finished, Head, Piece};
use idlewatt_protocol::Usage;
use idlewatt_protocol::message::{Outcome, RefusalCode};
use tokio::sync::{mpsc, watch};

use crate::host::SharedHost;

/// What the session wants of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Pieces may be taken until this many bytes.
    pub(super) through: u64,
    /// End it so.
    pub(super) finish: Option<(Option<Outcome>, Usage)>,
}

/// What an answer tells the session.
#[derive(Debug)]
pub(super) enum News {
    Refused(RefusalCode),
    Head(Head),
    Piece(Piece),
    Ended,
    Finished(Box<Finished>),
}

/// Begins and drives one answer until it is finished. A session that is gone without a word counts as failed.
pub(super) async fn drive(
    host: SharedHost,
    ask: Ask,
    stream: u32,
    mut order: watch::Receiver<Order>,
    news: mpsc::Sender<(u32, News)>,
) {
    let begun = tokio::select! {
        biased;
        _ = finish_of(&mut order) => Err(RefusalCode::Busy),
        begun = host.begin(ask) => begun,
    };
    let mut answer = match begun {
        Ok(answer) => answer,
        Err(code) => return tell(&news, stream, News::Refused(code)).await,
    };
    let head = tokio::select! {
        biased;
        finish = finish_of(&mut order) => Err(finish),
        head = answer.head() => Ok(head),
    };
    let finish = match head {
        Ok(Ok(head)) => {
            tell(&news, stream, News::Head(head)).await;
            let mut told = order.clone();
            let stopped = tokio::select! {
                biased;
                finish = finish_of(&mut told) => Some(finish),
                () = pieces(&mut *answer, stream, &mut order, &news) => None,
            };
            match stopped {
                Some(finish) => finish,
                None => {
                    tell(&news, stream, News::Ended).await;
                    finish_of(&mut order).await
                }
            }
        }
        Ok(Err(finished)) => return tell(&news, stream, News::Finished(Box::new(finished))).await,
        Err(finish) => finish,
    };
    let (outcome, usage) = finish;
    let finished = answer.finish(outcome, usage).await;
    tell(&news, stream, News::Finished(Box::new(finished))).await;
}

/// Takes pieces as long as the window is open.
async fn pieces(
    answer: &mut dyn crate::Answer,
    stream: u32,
    order: &mut watch::Receiver<Order>,
    news: &mpsc::Sender<(u32, News)>,
) {
    let mut taken = 0;
    loop {
        // The channel's room is taken first, so that a piece is never held when the answer is told to end.
        let Ok(room) = news.reserve().await else { return };
        if order.wait_for(|order| order.through > taken).await.is_err() {
            return;
        }
        let Some(piece) = answer.next().await else { return };
        taken += piece.bytes.len() as u64;
        room.send((stream, News::Piece(piece)));
    }
}

async fn finish_of(order: &mut watch::Receiver<Order>) -> (Option<Outcome>, Usage) {
    let finish = order.wait_for(|order| order.finish.is_some()).await.ok().and_then(|order| order.finish);
    finish.unwrap_or((Some(Outcome::Failed), Usage::NONE))
}

/// A session that is gone has no use for news.
async fn tell(news: &mpsc::Sender<(u32, News)>, stream: u32, what: News) {
    let _ = news.send((stream, what)).await;
}
