//! Node sessions: the WebSocket at `GET /node/v1`, and what the gateway holds of each; and the keys that nodes make.

mod inbox;
mod keys;
mod link;
mod outbox;
mod seat;
mod socket;

pub(crate) use inbox::{Over, Received};
pub(crate) use keys::take as take_key;
pub(crate) use link::{Link, Stream};
pub(crate) use outbox::Outbox;
pub(crate) use seat::{Left, Seat};
pub(crate) use socket::upgrade;
