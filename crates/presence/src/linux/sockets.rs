//! Being told when a server starts that is reached by a socket in a folder: an X server, a compositor, a sound server.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe::Receiver;

/// Where X servers listen.
const X_SOCKETS: &str = "/tmp/.X11-unix";

/// A server that accepts and then refuses is tried again after this long, twice as long each time, to [`SELDOM`] at most.
const SOON: Duration = Duration::from_secs(5);

const SELDOM: Duration = Duration::from_secs(5 * 60);

/// A watch on one server's socket.
pub(super) struct Socket {
    path: PathBuf,
    changes: Option<Receiver>,
    /// When it was last found, and how long to rest should that have been in vain.
    found: Option<Instant>,
    rest: Duration,
}

impl Socket {
    pub(super) fn watch(path: &Path) -> Self {
        let changes = open(path);
        if let Err(error) = &changes {
            tracing::debug!(%error, path = %path.display(), "a later server will not be noticed");
        }
        Self { path: path.to_owned(), changes: changes.ok(), found: None, rest: Duration::ZERO }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the socket accepts. To be called again whenever the server behind it was lost or refused: that it accepts
    /// while it refuses does not spin.
    pub(super) async fn appeared(&mut self) {
        let (rest, next) = rest(self.found.map(|found| found.elapsed()), self.rest);
        self.rest = next;
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        while !accepts(&self.path).await {
            self.changed().await;
        }
        self.found = Some(Instant::now());
    }

    async fn changed(&mut self) {
        let Some(changes) = &self.changes else { return pending().await };
        if changes.readable().await.is_err() {
            return pending().await;
        }
        // Whatever changed, the socket is tried again; the folder itself may be the news.
        while changes.try_read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
        if let Ok(again) = open(&self.path) {
            self.changes = Some(again);
        }
    }
}

/// How long to rest before a server is tried again that `lasted` so long, and how long the next time. The first loss is answered
/// at once: a server that crashed may be back.
fn rest(lasted: Option<Duration>, due: Duration) -> (Duration, Duration) {
    match lasted {
        Some(lasted) if lasted < SELDOM => (due, (due * 2).clamp(SOON, SELDOM)),
        _ => (Duration::ZERO, Duration::ZERO),
    }
}

/// Watches the folder of a socket, or the nearest one above it that is there.
fn open(socket: &Path) -> std::io::Result<Receiver> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let told = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
    let mut above = socket.ancestors().skip(1);
    loop {
        let Some(folder) = above.next() else { return Err(std::io::ErrorKind::NotFound.into()) };
        match inotify::add_watch(&inotify, folder, told) {
            Ok(_) => break,
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
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

/// The socket of a local X display: `:1.0` is `X1`.
pub(super) fn of_display(display: &str) -> Option<PathBuf> {
    let number = display.strip_prefix(':')?.split('.').next()?;
    number.parse::<u16>().ok()?;
    Some(Path::new(X_SOCKETS).join(format!("X{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_displays_have_a_socket() {
        assert_eq!(of_display(":12.0"), Some(PathBuf::from("/tmp/.X11-unix/X12")));
        assert_eq!(of_display("host:0"), None);
        assert_eq!(of_display(":"), None);
    }

    #[test]
    fn a_server_that_accepts_and_refuses_is_asked_ever_more_seldom() {
        let (mut due, mut asked, mut rested) = (Duration::ZERO, 0, Duration::ZERO);
        assert_eq!(rest(None, due), (Duration::ZERO, Duration::ZERO));
        while rested < Duration::from_secs(3600) {
            let (now, next) = rest(Some(Duration::ZERO), due);
            (due, asked, rested) = (next, asked + 1, rested + now);
        }
        assert!((10..20).contains(&asked), "{asked} times in an hour");
        assert_eq!(
            rest(Some(SELDOM), due),
            (Duration::ZERO, Duration::ZERO),
            "one that lasted is trusted again"
        );
    }

    #[tokio::test]
    async fn a_socket_in_a_folder_that_is_not_there_yet_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pulse").join("native");
        let mut socket = Socket::watch(&path);
        let server = async {
            tokio::task::yield_now().await;
            std::fs::create_dir(folder.path().join("pulse")).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::os::unix::net::UnixListener::bind(&path).unwrap()
        };
        let both = async { tokio::join!(socket.appeared(), server) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    }
}
