//! Unix: the door is the socket `admin.sock` in the data folder.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::{OUT_OF_FILES, answer};
use crate::store::Store;

const SOCKET: &str = "admin.sock";

/// The listening socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminDoor {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
    store: Store,
}

impl AdminDoor {
    /// Listens in the store's folder. The store has the folder's lock, so a socket file that is there is a dead hub's.
    ///
    /// # Errors
    /// When the socket cannot be made; a path over about 100 bytes is too long for one.
    pub fn bind(store: Store) -> io::Result<Self> {
        let path = store.folder().join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&path)?.uid();
        Ok(Self { listener, path, owner, store })
    }

    /// Answers commands until dropped.
    pub async fn serve(self) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a command did not reach the hub");
                    tokio::time::sleep(OUT_OF_FILES).await;
                    continue;
                }
            };
            // Root may do everything anyway.
            let peer = stream.peer_cred().map(|peer| peer.uid());
            let Some(uid) = peer.ok().filter(|uid| *uid == self.owner || *uid == 0) else {
                tracing::warn!("another user's command was not taken");
                continue;
            };
            tokio::spawn(answer(self.store.clone(), format!("command line, user {uid}"), stream));
        }
    }
}

impl Drop for AdminDoor {
    fn drop(&mut self) {
        // Left behind, it would only be a dead file that the next hub removes.
        let _ = fs::remove_file(&self.path);
    }
}

/// A way to the hub that serves this folder; `None` when none does.
pub(super) async fn knock(folder: &Path) -> Option<UnixStream> {
    UnixStream::connect(folder.join(SOCKET)).await.ok()
}
