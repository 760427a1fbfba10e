//! What has come of one answer and was not taken yet: at most one credit window of bytes.

use std::sync::Mutex;

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
    /// The session is gone.
    Lost,
}

/// The next thing of an answer.
#[derive(Debug)]
pub(crate) enum Received {
    /// It begins.
    Head { status: u16, streaming: bool },
    /// Everything that came since.
    Bytes(Bytes),
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
    over: Option<Over>,
}

impl Inbox {
    pub(crate) fn head(&self, status: u16, streaming: bool) {
        lock(&self.inner).head = Some((status, streaming));
        self.ready.notify_one();
    }

    pub(crate) fn bytes(&self, bytes: &[u8]) {
        lock(&self.inner).bytes.extend_from_slice(bytes);
        self.ready.notify_one();
    }

    pub(crate) fn over(&self, over: Over) {
        lock(&self.inner).over.get_or_insert(over);
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
        inner.over.clone().map(Received::Over)
    }
}
