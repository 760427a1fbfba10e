//! The helper as its client sees it. The connection is kept: its end gives back what was set through it.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use idlewatt_protocol::Milliwatts;
use serde::de::DeserializeOwned;

use super::CapError;
use super::wire::{Answer, Card, Greeting, MAX_ANSWER, Request, VERSION};

pub(super) struct Client {
    path: PathBuf,
    stream: Option<BufReader<system::Stream>>,
}

impl Client {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), stream: None }
    }

    /// Whether there is a helper to ask. Its socket outlives a killed helper until that is started again.
    pub(super) fn is_installed(&self) -> bool {
        // A folder that this user may not look into is a helper that this user may not use.
        self.stream.is_some() || self.path.try_exists().unwrap_or(true)
    }

    pub(super) fn list(&mut self) -> Result<Vec<Card>, CapError> {
        match self.ask(&Request::List {})? {
            Answer::Cards(cards) => Ok(cards),
            other => Err(unexpected(other)),
        }
    }

    pub(super) fn set(&mut self, gpu: &str, limit_mw: Milliwatts) -> Result<Milliwatts, CapError> {
        match self.ask(&Request::Set { gpu: gpu.into(), limit_mw })? {
            Answer::Set(applied) => Ok(applied),
            other => Err(unexpected(other)),
        }
    }

    /// A helper that is gone has given it back, or does so when it starts.
    pub(super) fn restore(&mut self, gpu: &str) -> Result<(), CapError> {
        if self.stream.is_none() {
            return Ok(());
        }
        match self.ask(&Request::Restore { gpu: Some(gpu.into()) })? {
            Answer::Restored => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Asks once more on a new connection where a kept one turns out to be closed. One that is silent is not asked again.
    fn ask(&mut self, request: &Request) -> Result<Answer, CapError> {
        let kept = self.stream.is_some();
        let is_slow = |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let answer = match self.exchange(request) {
            Err(error) if kept && !is_slow(&error) => self.exchange(request),
            answer => answer,
        };
        match answer.map_err(|error| silent(&error))? {
            Answer::Error(error) => Err(error),
            answer => Ok(answer),
        }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => greeted(&self.path)?,
        };
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.get_mut().write_all(&line)?;
        let answer = read_line(&mut stream)?;
        self.stream = Some(stream);
        Ok(answer)
    }
}

fn greeted(path: &Path) -> io::Result<BufReader<system::Stream>> {
    let mut stream = BufReader::new(system::connect(path)?);
    let Greeting { helper, version } = read_line(&mut stream)?;
    if version == VERSION {
        return Ok(stream);
    }
    Err(io::Error::other(format!(
        "it is version {helper}, which speaks another language; install this version's"
    )))
}

fn read_line<T: DeserializeOwned>(stream: &mut BufReader<system::Stream>) -> io::Result<T> {
    let mut line = Vec::new();
    let longest = u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX);
    stream.by_ref().take(longest).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "its answer was cut off"));
    }
    Ok(serde_json::from_slice(&line)?)
}

fn silent(error: &io::Error) -> CapError {
    match error.kind() {
        ErrorKind::PermissionDenied => CapError::HelperDenied,
        _ => CapError::HelperSilent { problem: error.to_string() },
    }
}

fn unexpected(answer: Answer) -> CapError {
    CapError::HelperSilent { problem: format!("its answer fits no question: {answer:?}") }
}

#[cfg(unix)]
mod system {
    use std::io;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::time::Duration;

    pub(super) type Stream = UnixStream;

    /// A helper answers in milliseconds; one that is stuck in a driver must not hold an engine up.
    const PATIENCE: Duration = Duration::from_secs(1);

    pub(super) fn connect(path: &Path) -> io::Result<Stream> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::{File, OpenOptions};
    use std::io;
    use std::path::Path;

    /// A named pipe is opened as a file is.
    pub(super) type Stream = File;

    pub(super) fn connect(path: &Path) -> io::Result<Stream> {
        OpenOptions::new().read(true).write(true).open(path)
    }
}
