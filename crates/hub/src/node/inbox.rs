//! What has come of one answer and was not taken yet: at most one credit window of bytes.

use std::sync::Mutex;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use idlewatt_protocol::message::{End, RefusalCode};
use tokio::sync::Notify;

use crate::hub::lock;

/// How a stream is over.
#[derive(Clone, Debug)]
pub(crate) enum Over {
    /// The node ended it.
    Ended(End),
    /// The node did not take it.
    Refused(RefusalCode),
    /// The node no longer has it, or will not come back.
    Lost,
}

/// The next thing of an answer.
#[derive(Debug)]
pub(crate) enum Received {
    /// It begins.
    Head { status: u16, streaming: bool },
    /// Everything that came since.
    Bytes(Bytes),
    /// The node's connection is lost, or it is silent. It may come back and go on where it was; for so long it is waited for
    /// where nobody else can.
    Away(Duration),
    /// It is back.
    Back,
    /// Nothing more comes. Said again each time.
    Over(Over),
}

/// Filled by the node's session, emptied by whoever relays the answer.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    head: Option<(u16, bool)>,
    bytes: BytesMut,
    away: Option<Duration>,
    /// What whoever takes was told last.
    told: Option<Duration>,
    over: Option<Over>,
}

impl Inbox {
    pub(crate) fn head(&self, status: u16, streaming: bool) {
        self.put(|inner| inner.head = Some((status, streaming)));
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) {
        self.put(|inner| inner.bytes.extend_from_slice(bytes));
    }

    /// The node is away, and waited for so long; or back.
    pub(crate) fn away(&self, wait: Option<Duration>) {
        self.put(|inner| inner.away = wait);
    }

    pub(crate) fn over(&self, over: Over) {
        self.put(|inner| {
            inner.over.get_or_insert(over);
        });
    }

    fn put(&self, put: impl FnOnce(&mut Inner)) {
        put(&mut lock(&self.inner));
        self.ready.notify_one();
    }

    /// The next thing, in the order it came. Dropping the future loses nothing. One task at a time may wait.
    pub(crate) async fn next(&self) -> Received {
        loop {
            if let Some(received) = self.take() {
                return received;
            }
            self.ready.notified().await;
        }
    }

    fn take(&self) -> Option<Received> {
        let mut inner = lock(&self.inner);
        if let Some((status, streaming)) = inner.head.take() {
            return Some(Received::Head { status, streaming });
        }
        if !inner.bytes.is_empty() {
            return Some(Received::Bytes(inner.bytes.split().freeze()));
        }
        if let Some(over) = &inner.over {
            return Some(Received::Over(over.clone()));
        }
        let away = inner.away;
        let is_news = std::mem::replace(&mut inner.told, away) != away;
        is_news.then(|| away.map_or(Received::Back, Received::Away))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    #[test]
    fn what_came_before_a_loss_is_taken_before_it_and_news_are_told_once() {
        let inbox = Inbox::default();
        inbox.away(Some(WAIT));
        inbox.bytes(b"ab");
        assert!(matches!(inbox.take(), Some(Received::Bytes(bytes)) if bytes == "ab"));
        assert!(matches!(inbox.take(), Some(Received::Away(WAIT))));
        assert!(inbox.take().is_none());
        inbox.away(None);
        inbox.away(Some(WAIT));
        assert!(inbox.take().is_none(), "nothing changed meanwhile");
        inbox.away(None);
        assert!(matches!(inbox.take(), Some(Received::Back)));
        inbox.over(Over::Lost);
        assert!(matches!(inbox.take(), Some(Received::Over(Over::Lost))));
    }
}
