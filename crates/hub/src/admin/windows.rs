//! Windows: the door is a named pipe of a random name, which the file `admin.pipe` in the data folder tells.
//!
//! A pipe made without a security descriptor gives full control to its creator, administrators and the system, and to
//! everyone else reading only ("Named Pipe Security and Access Rights", learn.microsoft.com): nobody else can send it a
//! command. Other machines are turned away, and nobody can have made a pipe of this name before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions};

use super::{OUT_OF_FILES, answer};
use crate::store::Store;

const FILE: &str = "admin.pipe";
/// Every end of the pipe is taken: between two commands a hub makes the next.
const ERROR_PIPE_BUSY: i32 = 231;
/// How often, and how long in between, a busy pipe is tried.
const TRIES: (u32, Duration) = (100, Duration::from_millis(20));

/// The listening pipe. Its file goes when it is dropped.
#[derive(Debug)]
pub struct AdminDoor {
    next: NamedPipeServer,
    name: String,
    path: PathBuf,
    store: Store,
}

impl AdminDoor {
    /// Makes a pipe and tells its name in the store's folder. The store has the folder's lock, so a name that is there is
    /// a dead hub's.
    ///
    /// # Errors
    /// When the pipe or the file cannot be made.
    pub fn bind(store: Store) -> io::Result<Self> {
        let name = format!(r"\\.\pipe\idlewatt-hub-{}", HEXLOWER.encode(&rand::random::<[u8; 16]>()));
        let next = ServerOptions::new().first_pipe_instance(true).create(&name)?;
        let path = store.folder().join(FILE);
        fs::write(&path, &name)?;
        Ok(Self { next, name, path, store })
    }

    /// Answers commands until dropped.
    pub async fn serve(mut self) {
        loop {
            if let Err(error) = self.turn().await {
                tracing::warn!(%error, "a command did not reach the hub");
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }

    async fn turn(&mut self) -> io::Result<()> {
        self.next.connect().await?;
        // The next end first: without one the pipe would be gone for a moment.
        let next = ServerOptions::new().create(&self.name)?;
        let caller = std::mem::replace(&mut self.next, next);
        tokio::spawn(answer(self.store.clone(), "command line".to_owned(), caller));
        Ok(())
    }
}

impl Drop for AdminDoor {
    fn drop(&mut self) {
        // Left behind, it would only name a pipe that is gone.
        let _ = fs::remove_file(&self.path);
    }
}

/// A way to the hub that serves this folder; `None` when none does.
pub(super) async fn knock(folder: &Path) -> Option<NamedPipeClient> {
    let name = fs::read_to_string(folder.join(FILE)).ok()?;
    let (tries, pause) = TRIES;
    for _ in 0..tries {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(ERROR_PIPE_BUSY) => tokio::time::sleep(pause).await,
            opened => return opened.ok(),
        }
    }
    None
}
