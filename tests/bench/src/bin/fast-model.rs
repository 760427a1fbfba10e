//! A model server that answers at once: what llama.cpp's HTTP server says, without a model. One thread.
//!
//! `fast-model [--port P] [--pace-us N] [--pace-over TOKENS]` prints its address. An answer has as many tokens as `max_tokens`
//! says; a streamed one sends each in a write of its own, and one of more than so many tokens `pace-us` apart.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use idlewatt_measuring::{Buffer, number};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

const PROPS: &str = r#"{"build_info":"b9999-bench","model_path":"/models/fast.gguf","model_alias":"fast","total_slots":128,"default_generation_settings":{"n_ctx":8192}}"#;
const MODELS: &str = r#"{"object":"list","data":[{"id":"fast","object":"model","owned_by":"bench"}]}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", u16::try_from(number("port", 0)).unwrap_or(0))).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let pace = (Duration::from_micros(number("pace-us", 0)), number("pace-over", 0));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            // A client that goes away ends its connection and nothing else.
            let _ = serve(stream, pace).await;
        });
    }
}

async fn serve(mut stream: TcpStream, pace: (Duration, u64)) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Buffer::default();
    loop {
        let head = buffer.head(&mut stream).await?;
        let mut body = Vec::new();
        buffer.body(&mut stream, &head, |piece| body.extend_from_slice(piece)).await?;
        let path = head.line.split(' ').nth(1).unwrap_or_default();
        match path.split('?').next().unwrap_or_default() {
            "/v1/chat/completions" | "/chat/completions" => answer(&mut stream, &body, pace).await?,
            "/props" => whole(&mut stream, 200, PROPS).await?,
            "/v1/models" | "/models" => whole(&mut stream, 200, MODELS).await?,
            "/health" => whole(&mut stream, 200, r#"{"status":"ok"}"#).await?,
            "/slots" => whole(&mut stream, 200, r#"[{"id":0,"is_processing":false}]"#).await?,
            _ => whole(&mut stream, 404, r#"{"error":{"message":"not here","code":404}}"#).await?,
        }
        if head.closes {
            return Ok(());
        }
    }
}

async fn whole(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} OK\r\nserver: llama.cpp\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(answer.as_bytes()).await
}

fn has(body: &[u8], flag: &str) -> bool {
    let spaced = flag.replace(':', ": ");
    [flag, &spaced].iter().any(|it| body.windows(it.len()).any(|window| window == it.as_bytes()))
}

fn max_tokens(body: &[u8]) -> u32 {
    let text = String::from_utf8_lossy(body);
    let after = text.split("\"max_tokens\":").nth(1).unwrap_or_default().trim_start();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().unwrap_or(16).min(4096)
}

async fn answer(stream: &mut TcpStream, body: &[u8], (pace, over): (Duration, u64)) -> io::Result<()> {
    let tokens = max_tokens(body);
    let is_paced = !pace.is_zero() && u64::from(tokens) > over;
    let usage = format!(
        r#""usage":{{"prompt_tokens":8,"completion_tokens":{tokens},"total_tokens":{}}}"#,
        8 + tokens
    );
    if !has(body, "\"stream\":true") {
        let text = " word".repeat(tokens as usize);
        let answer = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"fast","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],{usage}}}"#
        );
        return whole(stream, 200, &answer).await;
    }
    let chunk = |choices: &str, more: &str| {
        let event = format!(
            "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"fast\",\"choices\":{choices}{more}}}\n\n"
        );
        format!("{:x}\r\n{event}\r\n", event.len())
    };
    let mut out = String::from(
        "HTTP/1.1 200 OK\r\nserver: llama.cpp\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    );
    out.push_str(&chunk(
        r#"[{"index":0,"delta":{"role":"assistant","content":null},"finish_reason":null}]"#,
        "",
    ));
    let token = chunk(r#"[{"index":0,"delta":{"content":" word"},"finish_reason":null}]"#, "");
    let mut next = Instant::now();
    for _ in 0..tokens {
        out.push_str(&token);
        stream.write_all(out.as_bytes()).await?;
        out.clear();
        if is_paced {
            next += pace;
            sleep_until(next).await;
        }
    }
    out.push_str(&chunk(r#"[{"index":0,"delta":{},"finish_reason":"stop"}]"#, ""));
    if has(body, "\"include_usage\":true") {
        out.push_str(&chunk("[]", &format!(",{usage}")));
    }
    let _ = write!(out, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    stream.write_all(out.as_bytes()).await
}
