//! One request of the workload, and what could be seen of its answer.

use std::time::{Duration, Instant};

use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::sse::Splitter;
use idlewatt_protocol::usage::Reading;
use idlewatt_servers::{Call, Model, ModelServer, ServerError};
use serde_json::Value;
use tokio::time::timeout;

/// Until the first piece: a cold model is loaded first.
const LOADING: Duration = Duration::from_secs(300);
/// Between two pieces.
const BETWEEN: Duration = Duration::from_secs(60);

/// An answer, counted and timed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Prompt tokens that the server computed; those from its cache are not among them.
    pub(super) prompt: u32,
    /// Tokens of the answer.
    pub(super) answer: u32,
    /// From the request to the first piece.
    pub(super) first: Duration,
    /// From the first piece to the last.
    pub(super) rest: Duration,
}

/// Asks once and reads to the end.
///
/// # Errors
/// When the server does not answer, or does not count its tokens.
pub(super) async fn ask(
    server: &dyn ModelServer,
    model: &Model,
    body: &str,
    most: u32,
) -> Result<Asked, ServerError> {
    let begun = Instant::now();
    let call = server.call(model, Call::new(Endpoint::ChatCompletions, body.as_bytes(), most));
    let mut answer = timeout(LOADING, call).await.unwrap_or(Err(ServerError::Unreachable))?;
    if answer.status != 200 || !answer.streaming {
        return Err(ServerError::Nonsense("no stream for a short chat"));
    }
    let (mut splitter, mut asked) = (Splitter::default(), Asked::default());
    let (mut first, mut last, mut counted) = (None, begun, false);
    loop {
        let wait = if first.is_some() { BETWEEN } else { LOADING };
        let chunk = timeout(wait, answer.chunk()).await.unwrap_or(Err(ServerError::Unreachable))?;
        let Some(bytes) = chunk else { break };
        splitter.push(&bytes).map_err(|_| ServerError::Nonsense("an event longer than 1 MiB"))?;
        while let Some(event) = splitter.next_event() {
            let Some(data) = event.data else { continue };
            let Some(reading) = Reading::of(&data) else { continue };
            if reading.error {
                return Err(ServerError::Nonsense("an error in the stream"));
            }
            if reading.generated {
                last = Instant::now();
                first.get_or_insert(last);
            }
            if let Some(usage) = reading.usage {
                counted = true;
                asked.answer = usage.completion_tokens;
                asked.prompt = usage.prompt_tokens.saturating_sub(cached(&data));
            }
        }
    }
    if !counted {
        return Err(ServerError::Nonsense("no count of its tokens"));
    }
    // One token may carry no text yet; its end is then when it came.
    let first = first.unwrap_or_else(Instant::now);
    Ok(Asked { first: first - begun, rest: last.saturating_duration_since(first), ..asked })
}

/// Prompt tokens that came from the server's cache: llama.cpp's count, or OpenAI's.
fn cached(data: &[u8]) -> u32 {
    let Ok(piece) = serde_json::from_slice::<Value>(data) else { return 0 };
    let counts = ["/timings/cache_n", "/usage/prompt_tokens_details/cached_tokens"];
    let count = counts.iter().find_map(|at| piece.pointer(at)?.as_u64());
    count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}
