//! A request as the meter sees it. It ends with the connection to the model server: whoever reads the answer may take its
//! time, and what the cards do meanwhile is not this request's.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use idlewatt_core::meter::Task;
use idlewatt_core::work::Piece;
use idlewatt_protocol::RequestId;
use idlewatt_protocol::receipt::Energy;

use crate::cards::Cards;

/// One request under the meter. Dropping it ends it.
pub(crate) struct Metered {
    cards: Arc<Cards>,
    request: RequestId,
    energy: OnceLock<Energy>,
}

impl Metered {
    /// It goes to its model server. The cards are to be read right before.
    #[must_use]
    pub(crate) fn begin(cards: &Arc<Cards>, request: RequestId, task: Task, at: Instant) -> Arc<Self> {
        cards.request_began(request, task, at);
        Arc::new(Self { cards: Arc::clone(cards), request, energy: OnceLock::new() })
    }

    /// The server gave more of its answer.
    pub(crate) fn went_on(&self, piece: &Piece) {
        self.cards.request_went_on(self.request, piece.usage, piece.cached);
    }

    /// Its connection to the server was closed at `at`: reads the cards for what it cost. The first end counts.
    pub(crate) async fn end(&self, at: Instant) -> Energy {
        if self.energy.get().is_none() {
            self.cards.read_for_meter().await;
        }
        self.end_unread(at)
    }

    /// The same with what was read before, where nobody can wait for the cards.
    pub(crate) fn end_unread(&self, at: Instant) -> Energy {
        *self.energy.get_or_init(|| self.cards.request_ended(self.request, at))
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.end_unread(Instant::now());
    }
}
