//! What a model can do, seen in live requests: a name or a version proves nothing.

mod continuing;

use std::time::{Duration, Instant};

use idlewatt_protocol::Capabilities;
use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::sse::Splitter;
use idlewatt_protocol::usage::Reading;
use serde_json::{Value, json};

use crate::{Call, Model, ModelServer, ServerAnswer, ServerError};

/// A cold model is loaded by the first request.
const LOADING: Duration = Duration::from_secs(120);
/// Each later request.
const REQUEST: Duration = Duration::from_secs(30);
/// A server that has not stopped this long after a disconnect does not stop.
const STOPPING: Duration = Duration::from_secs(5);
/// How often a server is asked whether it still works.
const LOOK: Duration = Duration::from_millis(20);
/// How long a second request must wait behind a first to show that the server takes one at a time.
const QUEUED: Duration = Duration::from_secs(1);
/// Largest whole answer that is read.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// What was seen. Anything not seen is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeReport {
    /// What it did.
    pub capabilities: Capabilities,
    /// Generation speed, tokens a second, of one request alone.
    pub tokens_per_second: Option<f64>,
    /// From request to first piece; of a cold model this holds its loading.
    pub first_token: Option<Duration>,
    /// From the connection's close to a server that no longer works; `None` when not seen.
    pub cancelled_after: Option<Duration>,
    /// What did not work, for people: no address, path or content.
    pub notes: Vec<String>,
}

/// Measures a model with some short live requests. Seconds for a warm model; a cold one is loaded first, which may take
/// two minutes. Every request has its own limit, so the whole ends within ten.
pub async fn probe(server: &dyn ModelServer, model: &Model) -> ProbeReport {
    let probing = Probing { server, model };
    let mut report = ProbeReport::default();
    if let Err(error) = probing.stream(&mut report).await {
        report.notes.push(format!("chat does not stream: {error}"));
        if matches!(error, ServerError::Unreachable | ServerError::KeyNeeded) {
            return report;
        }
    }
    let seen = &mut report.capabilities;
    seen.completions = probing.completes().await;
    seen.embeddings = probing.embeds().await;
    if seen.chat {
        seen.logprobs = probing.tells_logprobs().await;
        seen.tools = probing.calls_tools().await;
        seen.json_schema = probing.keeps_a_schema().await;
    }
    if seen.chat && seen.streaming {
        seen.continuation = probing.goes_on(&mut report.notes).await;
    }
    if seen.streaming {
        match probing.stops_on_disconnect().await {
            Stops::Seen(after) => {
                report.capabilities.cancels = true;
                report.cancelled_after = Some(after);
            }
            Stops::Not => report.notes.push("a dropped request goes on for more than 5 s".to_owned()),
            Stops::Unseen => report.notes.push("whether a dropped request stops cannot be seen".to_owned()),
        }
    }
    report
}

enum Stops {
    Seen(Duration),
    Not,
    Unseen,
}

struct Probing<'a> {
    server: &'a dyn ModelServer,
    model: &'a Model,
}

impl Probing<'_> {
    /// Chat, streaming, usage on the stream, and speed.
    async fn stream(&self, report: &mut ProbeReport) -> Result<(), ServerError> {
        let limit = if self.model.warm { REQUEST } else { LOADING };
        let body = chat("Count from one to fifty in words.", json!({"stream": true}));
        let started = Instant::now();
        let answer = within(limit, self.call(Endpoint::ChatCompletions, &body, 32)).await?;
        if answer.status != 200 {
            return Err(ServerError::Nonsense("an error status"));
        }
        if !answer.streaming {
            let whole = within(limit, whole(answer)).await?;
            report.capabilities.chat =
                Reading::of(whole.to_string().as_bytes()).is_some_and(|it| it.generated);
            return Err(ServerError::Nonsense("a whole body where a stream was asked for"));
        }
        let mut events = Events::of(answer);
        let (mut first, mut last, mut pieces, mut usage) = (None, started, 0_u32, None);
        while let Some(reading) = within(limit, events.next()).await? {
            if reading.error {
                return Err(ServerError::Nonsense("an error in the stream"));
            }
            if reading.generated {
                last = Instant::now();
                first.get_or_insert(last);
                pieces += 1;
            }
            usage = reading.usage.or(usage);
        }
        let Some(first) = first else { return Err(ServerError::Nonsense("an empty answer")) };
        report.first_token = Some(first.duration_since(started));
        let tokens = usage.map_or(pieces, |usage| usage.completion_tokens);
        let seconds = last.duration_since(first).as_secs_f64();
        if tokens > 1 && seconds > 0.0 {
            report.tokens_per_second = Some(f64::from(tokens - 1) / seconds);
        }
        let seen = &mut report.capabilities;
        (seen.chat, seen.streaming, seen.usage) = (true, events.done, usage.is_some());
        if events.done { Ok(()) } else { Err(ServerError::Nonsense("a stream without its end")) }
    }

    async fn completes(&self) -> bool {
        let answer = self
            .ask(Endpoint::Completions, &json!({"prompt": "One, two, three,", "temperature": 0}), 4)
            .await;
        answer.is_some_and(|it| {
            it.pointer("/choices/0/text").and_then(Value::as_str).is_some_and(|t| !t.is_empty())
        })
    }

    async fn embeds(&self) -> bool {
        let answer = self.ask(Endpoint::Embeddings, &json!({"input": "one"}), 0).await;
        answer.is_some_and(|it| {
            it.pointer("/data/0/embedding").and_then(Value::as_array).is_some_and(|vector| !vector.is_empty())
        })
    }

    async fn tells_logprobs(&self) -> bool {
        let body = chat("Say hi.", json!({"logprobs": true, "top_logprobs": 1}));
        let answer = self.ask(Endpoint::ChatCompletions, &body, 2).await;
        answer.is_some_and(|it| {
            it.pointer("/choices/0/logprobs/content/0/logprob").is_some_and(Value::is_number)
        })
    }

    async fn calls_tools(&self) -> bool {
        let tool = json!({"type": "function", "function": {"name": "add", "description": "Adds two numbers.",
            "parameters": {"type": "object", "required": ["a", "b"],
                "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}}});
        let body = chat("Add 2 and 3 with the tool.", json!({"tools": [tool], "tool_choice": "required"}));
        let answer = self.ask(Endpoint::ChatCompletions, &body, 128).await;
        answer.is_some_and(|it| {
            let arguments = it.pointer("/choices/0/message/tool_calls/0/function/arguments");
            arguments.and_then(Value::as_str).is_some_and(|text| serde_json::from_str::<Value>(text).is_ok())
        })
    }

    async fn keeps_a_schema(&self) -> bool {
        let schema = json!({"type": "object", "properties": {"even": {"type": "boolean"}}, "required": ["even"],
            "additionalProperties": false});
        let format = json!({"type": "json_schema", "json_schema": {"name": "parity", "strict": true, "schema": schema}});
        // A question that invites prose, so that only a schema in force gives an object.
        let body = chat("Tell me a short story about a cat.", json!({"response_format": format}));
        let answer = self.ask(Endpoint::ChatCompletions, &body, 64).await;
        let text =
            answer.and_then(|it| it.pointer("/choices/0/message/content")?.as_str().map(str::to_owned));
        text.and_then(|text| serde_json::from_str::<Value>(&text).ok())
            .is_some_and(|it| it.get("even").is_some_and(Value::is_boolean))
    }

    /// Drops a long answer and looks whether the server goes on with it.
    async fn stops_on_disconnect(&self) -> Stops {
        let before = self.server.busy().await;
        let Some(mut long) = self.long_answer().await else { return Stops::Unseen };
        if let Some(before) = before {
            if self.server.busy().await.is_none_or(|busy| busy <= before) {
                return Stops::Unseen;
            }
            drop(long);
            let dropped = Instant::now();
            while dropped.elapsed() < STOPPING {
                if self.server.busy().await.is_some_and(|busy| busy <= before) {
                    return Stops::Seen(dropped.elapsed());
                }
                tokio::time::sleep(LOOK).await;
            }
            return Stops::Not;
        }
        // The server does not tell. If it takes one request at a time, a second one shows when the first has stopped.
        let body = chat("Say hi.", json!({}));
        let second = self.ask(Endpoint::ChatCompletions, &body, 1);
        tokio::pin!(second);
        let waiting = Instant::now();
        while waiting.elapsed() < QUEUED {
            tokio::select! {
                _ = &mut second => return Stops::Unseen,
                next = long.next() => if !matches!(next, Ok(Some(_))) { return Stops::Unseen },
            }
        }
        drop(long);
        let dropped = Instant::now();
        match tokio::time::timeout(STOPPING, second).await {
            Ok(Some(_)) => Stops::Seen(dropped.elapsed()),
            Ok(None) => Stops::Unseen,
            Err(_) => Stops::Not,
        }
    }

    /// An answer that has begun and would go on for long.
    async fn long_answer(&self) -> Option<Events> {
        let body = chat("Write the numbers from one to five thousand in words.", json!({"stream": true}));
        let answer = within(REQUEST, self.call(Endpoint::ChatCompletions, &body, 4096)).await.ok()?;
        let mut events = Events::of(answer);
        loop {
            if within(REQUEST, events.next()).await.ok()??.generated {
                return Some(events);
            }
        }
    }

    async fn ask(&self, endpoint: Endpoint, body: &Value, max_tokens: u32) -> Option<Value> {
        let asked = async {
            let answer = self.call(endpoint, body, max_tokens).await?;
            if answer.status == 200 {
                whole(answer).await
            } else {
                Err(ServerError::Nonsense("an error status"))
            }
        };
        within(REQUEST, asked).await.ok()
    }

    async fn call(
        &self,
        endpoint: Endpoint,
        body: &Value,
        max_tokens: u32,
    ) -> Result<ServerAnswer, ServerError> {
        self.server.call(self.model, Call::new(endpoint, body.to_string().as_bytes(), max_tokens)).await
    }
}

fn chat(question: &str, with: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": question}], "temperature": 0});
    if let (Some(body), Value::Object(with)) = (body.as_object_mut(), with) {
        body.extend(with);
    }
    body
}

/// The readings of a streamed answer.
struct Events {
    answer: ServerAnswer,
    splitter: Splitter,
    done: bool,
}

impl Events {
    fn of(answer: ServerAnswer) -> Self {
        Self { answer, splitter: Splitter::default(), done: false }
    }

    async fn next(&mut self) -> Result<Option<Reading>, ServerError> {
        loop {
            while let Some(event) = self.splitter.next_event() {
                self.done |= event.is_done();
                if let Some(reading) = event.data.and_then(|data| Reading::of(&data)) {
                    return Ok(Some(reading));
                }
            }
            match self.answer.chunk().await? {
                Some(bytes) if !self.done => self
                    .splitter
                    .push(&bytes)
                    .map_err(|_| ServerError::Nonsense("an event longer than 1 MiB"))?,
                _ => return Ok(None),
            }
        }
    }
}

async fn whole(mut answer: ServerAnswer) -> Result<Value, ServerError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES {
            return Err(ServerError::Nonsense("longer than 4 MiB"));
        }
    }
    serde_json::from_slice(&bytes).map_err(|_| ServerError::Nonsense("not JSON"))
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ServerError>>,
) -> Result<T, ServerError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(ServerError::Unreachable))
}
