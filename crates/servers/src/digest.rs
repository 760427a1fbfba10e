//! Digests of weight files: read once, in the background, and kept by path, length and time of change.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use idlewatt_protocol::Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// How long a question waits for a digest. Larger files are read on in the background and known the next time.
const PATIENCE: Duration = Duration::from_secs(5);
const CHUNK: usize = 1024 * 1024;

/// One state of one file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileState {
    path: PathBuf,
    length: u64,
    changed: Option<SystemTime>,
}

type Progress = watch::Receiver<Option<Option<Digest>>>;

/// Every digest computed, or being computed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests {
    known: Arc<Mutex<HashMap<FileState, Progress>>>,
}

impl Digests {
    /// The file's digest; `None` when it cannot be read on this machine, or not within five seconds.
    pub(crate) async fn of_file(&self, path: &Path) -> Option<Digest> {
        let metadata = tokio::fs::metadata(path).await.ok().filter(std::fs::Metadata::is_file)?;
        let state =
            FileState { path: path.to_owned(), length: metadata.len(), changed: metadata.modified().ok() };
        let mut progress = self.start(state);
        let digest = tokio::time::timeout(PATIENCE, progress.wait_for(Option::is_some)).await.ok()?.ok()?;
        (*digest)?
    }

    fn start(&self, state: FileState) -> Progress {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = known.get(&state) {
            return progress.clone();
        }
        known.retain(|other, _| other.path != state.path);
        let (done, progress) = watch::channel(None);
        known.insert(state.clone(), progress.clone());
        tokio::task::spawn_blocking(move || {
            let digest = read(&state.path)
                .inspect_err(|error| tracing::debug!(kind = %error.kind(), "weights cannot be read"))
                .ok();
            done.send_replace(Some(digest));
        });
        progress
    }
}

fn read(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(hash.finalize().into())),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Some(part) = buffer.get(..length) {
            hash.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_an_unchanged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, b"one").unwrap();
        let digests = Digests::default();
        assert_eq!(digests.of_file(&path).await, Some(Digest::of(b"one")));
        assert_eq!(digests.of_file(&path).await, Some(Digest::of(b"one")));
        assert_eq!(digests.known.lock().unwrap().len(), 1);
        std::fs::write(&path, b"other").unwrap();
        assert_eq!(digests.of_file(&path).await, Some(Digest::of(b"other")));
        assert_eq!(digests.known.lock().unwrap().len(), 1, "the old state is forgotten");
    }

    #[tokio::test]
    async fn what_cannot_be_read_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Digests::default().of_file(&folder.path().join("none")).await, None);
        assert_eq!(Digests::default().of_file(folder.path()).await, None);
    }
}
