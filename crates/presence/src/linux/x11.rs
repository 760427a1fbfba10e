//! An X server: its idle counter, and beside it what covers the screen and whether the displays are off; and one key. A
//! connection each, so that a question about windows never stands before the news that somebody is back.

use std::os::fd::AsFd as _;

use x11rb::connection::Connection as _;
use x11rb::errors::{ConnectError, ConnectionError, ReplyError, ReplyOrIdError};
use x11rb::protocol::Event;
use x11rb::rust_connection::RustConnection;

use super::wire::Wire;

pub(super) mod idle;
pub(super) mod key;
pub(super) mod screen;

/// Why this display tells nothing, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the X server does not answer ({0})")]
    Connect(#[from] ConnectError),
    #[error("the X server is gone ({0})")]
    Gone(#[from] ConnectionError),
    #[error("the X server refuses a question ({0})")]
    Refused(#[from] ReplyOrIdError),
    #[error("the X server has no idle counter")]
    NoCounter,
    #[error("the connection cannot be waited on ({0})")]
    Wait(#[from] std::io::Error),
}

impl From<ReplyError> for Lost {
    fn from(error: ReplyError) -> Self {
        Self::Refused(error.into())
    }
}

/// Something to wait on for a connection's events.
fn wire(server: &RustConnection) -> std::io::Result<Wire> {
    Wire::new(server.stream().as_fd().try_clone_to_owned()?)
}

/// The next event. Those that a question drew from the wire are found, too.
async fn event(server: &RustConnection, wire: &Wire) -> Result<Event, Lost> {
    loop {
        if let Some(event) = server.poll_for_event()? {
            return Ok(event);
        }
        let mut ready = wire.readable().await?;
        // Looked at again before the readiness is taken back: what arrived in between is not lost.
        match server.poll_for_event()? {
            Some(event) => return Ok(event),
            None => ready.clear_ready(),
        }
    }
}

/// Asks the server something, off the async threads: it answers when it likes.
async fn ask<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, Lost> + Send + 'static,
) -> Result<T, Lost> {
    match tokio::task::spawn_blocking(question).await {
        Ok(answer) => answer,
        Err(join) => Err(Lost::Wait(join.into())),
    }
}
