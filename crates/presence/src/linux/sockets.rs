//! Being told when an X server starts: its socket appears in a folder.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

const FOLDER: &str = "/tmp/.X11-unix";

/// A watch on the folder of X sockets.
pub(super) struct Sockets(Option<Receiver>);

impl Sockets {
    pub(super) fn watch() -> Self {
        match open() {
            Ok(watch) => Self(Some(watch)),
            Err(error) => {
                tracing::debug!(%error, "a later X server will not be noticed");
                Self(None)
            }
        }
    }

    /// Waits until the socket of a local display is there and accepts; for ever for a display that has none.
    pub(super) async fn appeared(&mut self, display: &str) {
        let (Some(watch), Some(socket)) = (&self.0, socket(display)) else { return pending().await };
        loop {
            if accepts(&socket).await {
                return;
            }
            if watch.readable().await.is_err() {
                return pending().await;
            }
            // Whatever changed, the socket is tried again.
            while watch.try_read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        }
    }
}

fn open() -> std::io::Result<Receiver> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let told = WatchFlags::CREATE | WatchFlags::MOVED_TO;
    // Before the first X server there is no folder; then its parent tells of it.
    if inotify::add_watch(&inotify, FOLDER, told).is_err() {
        inotify::add_watch(&inotify, "/tmp", told)?;
    }
    // Inotify reads like a pipe: bytes when there is something to tell.
    Receiver::from_owned_fd_unchecked(inotify)
}

/// Whether a server listens. A server binds its socket a moment before it listens, hence the second looks.
async fn accepts(socket: &Path) -> bool {
    for wait in [10, 40, 160, 640] {
        match tokio::net::UnixStream::connect(socket).await {
            Ok(_) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return false,
            Err(_) => tokio::time::sleep(Duration::from_millis(wait)).await,
        }
    }
    false
}

/// The socket of a local display: `:1.0` is `X1`.
fn socket(display: &str) -> Option<PathBuf> {
    let number = display.strip_prefix(':')?.split('.').next()?;
    number.parse::<u16>().ok()?;
    Some(Path::new(FOLDER).join(format!("X{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_displays_have_a_socket() {
        assert_eq!(socket(":12.0"), Some(PathBuf::from("/tmp/.X11-unix/X12")));
        assert_eq!(socket("host:0"), None);
        assert_eq!(socket(":"), None);
    }
}
