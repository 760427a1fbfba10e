//! Clients that ask again and again over connections that stay open, and what they saw, as JSON. One thread.
//!
//! `load --url http://HOST:PORT [--path P] [--key K] [--model M] [--header 'N: V'] [--clients N] [--seconds S] [--tokens T]
//! [--stream 1]`. An answer that is not 200, or a stream without its `[DONE]` or with another number of tokens than was asked
//! for, is an error.

use std::io;
use std::time::{Duration, Instant};

use idlewatt_measuring::{Buffer, number, option};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[derive(Default)]
struct Seen {
    took: Vec<u32>,
    first: Vec<u32>,
    errors: u64,
    tokens: u64,
    fault: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = option("url", "");
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (clients, tokens, stream) = (number("clients", 1), number("tokens", 16), number("stream", 0) == 1);
    let limit = Duration::from_millis(number("ms", 3000));
    let body = json!({
        "model": option("model", "fast"),
        "messages": [{ "role": "user", "content": "How much does a watt weigh?" }],
        "max_tokens": tokens,
        "stream": stream,
    });
    let body = body.to_string();
    let more = option("header", "");
    let more = if more.is_empty() { more } else { format!("{more}\r\n") };
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{more}\
         content-length: {}\r\n\r\n{body}",
        option("path", "/v1/chat/completions"),
        option("key", "none"),
        body.len()
    );
    let began = Instant::now();
    let (until, request) = (began + limit, request.into_bytes());
    let asking: Vec<_> = (0..clients)
        .map(|_| tokio::spawn(ask(address.clone(), request.clone(), until, stream.then_some(tokens))))
        .collect();
    let mut all = Seen::default();
    for one in asking {
        if let Ok(seen) = one.await {
            all.took.extend(seen.took);
            all.first.extend(seen.first);
            all.errors += seen.errors;
            all.tokens += seen.tokens;
            all.fault = all.fault.or(seen.fault);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let requests = all.took.len();
    let at = |of: &mut Vec<u32>, hundredths: usize| {
        of.sort_unstable();
        of.get(of.len() * hundredths / 100).copied()
    };
    let seen = json!({
        "requests": requests,
        "errors": all.errors,
        "fault": all.fault,
        "seconds": seconds,
        "tokens": all.tokens,
        "p50_us": at(&mut all.took, 50),
        "p99_us": at(&mut all.took, 99),
        "first_p50_us": at(&mut all.first, 50),
        "first_p99_us": at(&mut all.first, 99),
    });
    println!("{seen}");
}

async fn ask(address: String, request: Vec<u8>, until: Instant, streamed: Option<u64>) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until {
        if let Err(error) = connection(&address, &request, until, streamed, &mut seen).await {
            seen.errors += 1;
            seen.fault.get_or_insert(error.to_string());
            if seen.errors > 100 {
                break;
            }
        }
    }
    seen
}

async fn connection(
    address: &str,
    request: &[u8],
    until: Instant,
    streamed: Option<u64>,
    seen: &mut Seen,
) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Buffer::default();
    while Instant::now() < until {
        let began = Instant::now();
        stream.write_all(request).await?;
        let head = buffer.head(&mut stream).await?;
        let (mut events, mut is_done, mut first, mut said) = (0, false, None, Vec::new());
        let is_right = head.line.contains(" 200 ");
        // Chunks may end within an event.
        let mut tail = Vec::new();
        buffer
            .body(&mut stream, &head, |piece| {
                if streamed.is_none() || !is_right {
                    said.extend_from_slice(&piece[..piece.len().min(400)]);
                    return;
                }
                tail.extend_from_slice(piece);
                while let Some(at) = tail.windows(2).position(|window| window == b"\n\n") {
                    let event: Vec<u8> = tail.drain(..at + 2).collect();
                    if event.windows(5).any(|window| window == b" word") {
                        first.get_or_insert_with(|| began.elapsed());
                        events += 1;
                    }
                    is_done |= event.windows(6).any(|window| window == b"[DONE]");
                }
            })
            .await?;
        let micros = |took: Duration| u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        if is_right && streamed.is_none_or(|tokens| is_done && events == tokens) {
            seen.took.push(micros(began.elapsed()));
            seen.first.extend(first.map(micros));
            seen.tokens += streamed.unwrap_or(0);
        } else {
            let said = String::from_utf8_lossy(&said);
            return Err(io::Error::other(format!(
                "{} · {events} events, done {is_done} · {said}",
                head.line
            )));
        }
        if head.closes {
            return Ok(());
        }
    }
    Ok(())
}
