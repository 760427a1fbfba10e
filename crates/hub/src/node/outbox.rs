//! What waits for a node's socket. A node that reads slowly is given nothing new before it makes the hub hold too much.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use idlewatt_protocol::limits::MAX_REQUEST_BODY;
use idlewatt_protocol::message::Refuse;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// With so many bytes waiting a node gets no further request: four of the largest.
const FULL: usize = 4 * MAX_REQUEST_BODY;

/// What the socket's writer puts on the wire.
#[derive(Debug)]
pub(crate) enum Out {
    Text(String),
    Binary(Bytes),
    Ping,
    /// Everything before it is to be on its way; then whoever waits is told.
    Mark(oneshot::Sender<()>),
    /// Says why and closes.
    Close(Refuse),
}

impl Out {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            Self::Ping | Self::Mark(_) | Self::Close(_) => 0,
        }
    }
}

/// The end that is filled.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    queue: UnboundedSender<Out>,
    waiting: Arc<AtomicUsize>,
}

/// The end that is written to the socket.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: UnboundedReceiver<Out>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn outbox() -> (Outbox, Outgoing) {
    let (tx, rx) = unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    (Outbox { queue: tx, waiting: Arc::clone(&waiting) }, Outgoing { queue: rx, waiting })
}

impl Outbox {
    /// A writer that is gone has lost the seat; what matters of this is found again when the node resumes.
    pub(super) fn send(&self, out: Out) {
        self.waiting.fetch_add(out.bytes(), Ordering::Relaxed);
        let _ = self.queue.send(out);
    }

    /// Whether too much waits for a further request.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= FULL
    }
}

impl Outgoing {
    pub(super) async fn recv(&mut self) -> Option<Out> {
        let out = self.queue.recv().await?;
        Some(self.took(out))
    }

    pub(super) fn try_recv(&mut self) -> Option<Out> {
        let out = self.queue.try_recv().ok()?;
        Some(self.took(out))
    }

    fn took(&self, out: Out) -> Out {
        self.waiting.fetch_sub(out.bytes(), Ordering::Relaxed);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_takes_nothing_fills_up_and_one_that_does_empties() {
        let (outbox, mut outgoing) = outbox();
        let body = Bytes::from(vec![0; MAX_REQUEST_BODY]);
        for _ in 0..4 {
            assert!(!outbox.is_full());
            outbox.send(Out::Binary(body.clone()));
        }
        assert!(outbox.is_full());
        assert!(matches!(outgoing.recv().await, Some(Out::Binary(_))));
        assert!(!outbox.is_full());
    }
}
