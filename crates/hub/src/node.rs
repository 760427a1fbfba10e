//! Node sessions: the WebSocket at `GET /node/v1`, and what the gateway holds of each.

mod inbox;
mod link;
mod socket;

pub(crate) use inbox::{Over, Received};
pub(crate) use link::{Link, Stream};
pub(crate) use socket::upgrade;
