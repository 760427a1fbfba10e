//! One client's lines. A line that is no request is answered with what is wrong with it, and the next one is read.

use std::io;
use std::sync::Arc;

use idlewatt_devices::cap::CapError;
use idlewatt_devices::cap::wire::{Answer, Greeting, MAX_REQUEST, VERSION};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use crate::custody::{Client, Custody};

/// A client that does not read its answers is let go, and its cards with it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// Serves one client until it is gone, then gives back what it set.
pub(crate) async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: Client,
    custody: Arc<Custody>,
) {
    tracing::info!(client = client.name, "connected");
    if let Err(error) = converse(stream, &client, &custody).await {
        tracing::info!(client = client.name, %error, "the connection broke");
    }
    tracing::info!(client = client.name, "gone");
    drop(tokio::task::spawn_blocking(move || custody.leave(&client)).await);
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    client: &Client,
    custody: &Arc<Custody>,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let greeting = Greeting { helper: env!("CARGO_PKG_VERSION").into(), version: VERSION };
    write(&mut stream, &serde_json::to_vec(&greeting)?).await?;
    let mut line = Vec::new();
    while let Some(whole) = next_line(&mut stream, &mut line).await? {
        let request = if whole {
            serde_json::from_slice(&line).map_err(|error| error.to_string())
        } else {
            Err(format!("a line has at most {MAX_REQUEST} bytes"))
        };
        let answer = match request {
            Ok(request) => {
                let (custody, client) = (Arc::clone(custody), client.clone());
                tokio::task::spawn_blocking(move || custody.answer(&client, request)).await?
            }
            Err(problem) => Answer::Error(CapError::BadRequest { problem }),
        };
        write(&mut stream, &serde_json::to_vec(&answer)?).await?;
    }
    Ok(())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), line: &[u8]) -> io::Result<()> {
    let line = [line, b"\n"].concat();
    timeout(PATIENCE, async { stream.write_all(&line).await }).await?
}

/// The next line without its end, and whether it is whole: of a longer one than allowed, the rest is dropped. `None` at
/// the end; a last line without an end is none.
async fn next_line(stream: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let mut whole = true;
    loop {
        let ready = stream.fill_buf().await?;
        if ready.is_empty() {
            return Ok(None);
        }
        let end = ready.iter().position(|byte| *byte == b'\n');
        let (text, used) = end.map_or((ready, ready.len()), |end| (&ready[..end], end + 1));
        whole &= line.len() + text.len() < MAX_REQUEST;
        if whole {
            line.extend_from_slice(text);
        }
        stream.consume(used);
        if end.is_some() {
            return Ok(Some(whole));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(mut input: &[u8]) -> Vec<Option<String>> {
        let (mut found, mut line) = (Vec::new(), Vec::new());
        while let Some(whole) = next_line(&mut input, &mut line).await.unwrap() {
            found.push(whole.then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        found
    }

    #[tokio::test]
    async fn a_line_too_long_is_dropped_and_the_next_one_read() {
        let input = [b"a\n".as_slice(), &vec![b'x'; MAX_REQUEST * 3], b"\nb\nunfinished"].concat();
        assert_eq!(lines(&input).await, [Some("a".into()), None, Some("b".into())]);
    }

    #[tokio::test]
    async fn the_longest_line_allowed_is_read() {
        let longest = vec![b'x'; MAX_REQUEST - 1];
        assert_eq!(lines(&[&longest[..], b"\n"].concat()).await, [Some("x".repeat(MAX_REQUEST - 1))]);
        assert_eq!(lines(&[&longest[..], b"x\n"].concat()).await, [None]);
    }
}
