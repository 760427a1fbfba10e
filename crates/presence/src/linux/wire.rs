//! A descriptor to wait on.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

/// Told by the kernel when there is something to read, or when nothing will ever be again.
#[derive(Debug)]
pub(super) struct Wire(AsyncFd<OwnedFd>);

impl Wire {
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "tokio leaves it to the caller that the descriptor stays the same")]
        // SAFETY: an owned descriptor is open, and nothing here hands it out but borrowed.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        registered.map(Self).map_err(io::Error::from)
    }

    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.0.readable().await
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
