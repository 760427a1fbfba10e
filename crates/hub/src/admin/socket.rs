//! `admin.sock`: the operator's commands to a hub that serves.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::{Answer, Command, CommandError, perform};
use crate::store::{ADMIN_SOCKET, Store};

/// The longest command, bytes.
const MAX_COMMAND: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Done(Answer),
    Refused(String),
}

/// The listening socket. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
    store: Store,
}

impl AdminSocket {
    /// Listens in the store's folder. The store has the folder's lock, so a socket file that is there is a dead hub's.
    ///
    /// # Errors
    /// When the socket cannot be made; a path over about 100 bytes is too long for one.
    pub fn bind(store: Store) -> io::Result<Self> {
        let path = store.folder().join(ADMIN_SOCKET);
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
                    // Out of file descriptors, mostly: let others close theirs.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Root may do everything anyway.
            let peer = stream.peer_cred().map(|peer| peer.uid());
            if !peer.is_ok_and(|uid| uid == self.owner || uid == 0) {
                tracing::warn!("another user's command was not taken");
                continue;
            }
            let store = self.store.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(&store, stream).await {
                    tracing::debug!(%error, "a command's answer was not taken");
                }
            });
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // Left behind, it would only be a dead file that the next hub removes.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(store: &Store, stream: UnixStream) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader.take(MAX_COMMAND)).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match serde_json::from_str::<Command>(&line) {
            Ok(command) => match perform(store, command).await {
                Ok(answer) => Reply::Done(answer),
                Err(error) => Reply::Refused(error.to_string()),
            },
            Err(error) => Reply::Refused(format!(
                "the running hub does not know this command ({error}): it is of another version, restart it"
            )),
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        lines.get_mut().get_mut().set_limit(MAX_COMMAND);
    }
    Ok(())
}

/// Asks the hub that serves this folder; `None` when none does.
pub(super) async fn ask(folder: &Path, command: &Command) -> Option<Result<Answer, CommandError>> {
    let stream = UnixStream::connect(folder.join(ADMIN_SOCKET)).await.ok()?;
    Some(exchange(stream, command).await)
}

async fn exchange(mut stream: UnixStream, command: &Command) -> Result<Answer, CommandError> {
    let mut line = serde_json::to_vec(command).map_err(|error| CommandError::Socket(error.into()))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(CommandError::Socket)?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply).await.map_err(CommandError::Socket)?;
    match serde_json::from_str(&reply).map_err(|error| CommandError::Socket(error.into()))? {
        Reply::Done(answer) => Ok(answer),
        Reply::Refused(why) => Err(CommandError::Refused(why)),
    }
}
