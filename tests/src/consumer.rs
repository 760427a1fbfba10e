//! One who asks over OpenAI's API, as any client would.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// A key and where to use it.
#[derive(Clone)]
pub struct Consumer {
    http: reqwest::Client,
    /// Without `/v1`.
    pub url: String,
    /// The key.
    pub key: String,
}

/// One answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The body as it came.
    pub raw: String,
    /// Each event's data, or the one body.
    pub parts: Vec<Value>,
    /// Whether `[DONE]` came.
    pub done: bool,
    /// Whether the connection broke.
    pub broken: bool,
}

/// An answer under way. Dropping it closes the connection.
pub struct Stream {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffer: Vec<u8>,
    /// What came so far.
    pub answer: Answer,
}

impl Consumer {
    /// With a key, at an address without `/v1`.
    #[must_use]
    pub fn new(url: &str, key: &str) -> Self {
        Self { http: crate::http(), url: url.to_owned(), key: key.to_owned() }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Answer {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(&self.key);
        Stream::of(request).await.expect("the hub answers").rest().await
    }

    /// `POST` with a JSON body, read to its end. A connection that broke is one of the ways to end.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, body.to_string().into_bytes()).await
    }

    /// `POST` of any bytes.
    pub async fn post_bytes(&self, path: &str, body: Vec<u8>) -> Answer {
        self.open_bytes(path, body).await.expect("the hub answers").rest().await
    }

    /// `POST` whose answer is read as it comes.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub async fn open(&self, path: &str, body: &Value) -> reqwest::Result<Stream> {
        self.open_bytes(path, body.to_string().into_bytes()).await
    }

    async fn open_bytes(&self, path: &str, body: Vec<u8>) -> reqwest::Result<Stream> {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.key);
        Stream::of(request.header("content-type", "application/json").body(body)).await
    }

    /// `POST /v1/chat/completions`
    pub async fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", body).await
    }

    /// Models as listed; `None` while the hub does not answer.
    pub async fn listed(&self) -> Option<Vec<Value>> {
        let request = self.http.get(format!("{}/v1/models", self.url)).bearer_auth(&self.key);
        let models: Value = request.timeout(Duration::from_secs(5)).send().await.ok()?.json().await.ok()?;
        models["data"].as_array().cloned()
    }

    /// A request's receipt file.
    pub async fn receipt(&self, id: &str) -> Answer {
        self.get(&format!("/v1/receipts/{id}")).await
    }
}

impl Stream {
    async fn of(request: reqwest::RequestBuilder) -> reqwest::Result<Self> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer {
            status,
            headers: headers.clone(),
            raw: String::new(),
            parts: Vec::new(),
            done: false,
            broken: false,
        };
        let bytes = response.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
        Ok(Self { status, headers, bytes, buffer: Vec::new(), answer })
    }

    fn is_events(&self) -> bool {
        self.headers.get("content-type").is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"))
    }

    /// Reads on until one more event is whole; `false` at the end.
    pub async fn more(&mut self) -> bool {
        loop {
            if self.is_events()
                && let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n")
            {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                self.take(&String::from_utf8_lossy(&event));
                return true;
            }
            match self.bytes.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(_)) => {
                    self.answer.broken = true;
                    return false;
                }
                None => return false,
            }
        }
    }

    /// Reads until so many pieces of content came.
    pub async fn pieces(&mut self, count: usize) {
        while text_parts(&self.answer.parts).count() < count {
            assert!(self.more().await, "the answer ended after {:?}", self.answer);
        }
    }

    /// Reads to the end.
    pub async fn rest(mut self) -> Answer {
        while self.more().await {}
        if !self.is_events() {
            let body = String::from_utf8_lossy(&self.buffer).into_owned();
            self.answer.parts.extend(serde_json::from_str(&body));
            self.answer.raw = body;
        }
        self.answer
    }

    fn take(&mut self, event: &str) {
        self.answer.raw.push_str(event);
        for data in event.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim) {
            if data == "[DONE]" {
                self.answer.done = true;
            } else {
                self.answer.parts.push(serde_json::from_str(data).expect("an event is JSON"));
            }
        }
    }
}

impl Answer {
    /// The concatenated content.
    #[must_use]
    pub fn text(&self) -> String {
        text_of(&self.parts)
    }

    /// The usage of the last part that has one.
    #[must_use]
    pub fn usage(&self) -> Option<&Value> {
        self.parts.iter().rev().map(|part| &part["usage"]).find(|usage| usage.is_object())
    }

    /// The error, in OpenAI's form: of a whole answer, or a chunk of a broken stream.
    #[must_use]
    pub fn error(&self) -> Option<&Value> {
        self.parts.iter().map(|part| &part["error"]).find(|error| error.is_object())
    }

    /// Why the model stopped.
    #[must_use]
    pub fn finish(&self) -> Option<&str> {
        self.parts.iter().find_map(|part| part["choices"][0]["finish_reason"].as_str())
    }

    /// The request's id.
    #[must_use]
    pub fn id(&self) -> String {
        header(&self.headers, "x-request-id")
    }
}

/// A header as text; empty when it is not there.
fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

fn text_parts(parts: &[Value]) -> impl Iterator<Item = &str> {
    parts.iter().filter_map(|part| {
        let choice = &part["choices"][0];
        let text = [&choice["delta"]["content"], &choice["message"]["content"], &choice["text"]];
        text.into_iter().find_map(Value::as_str).filter(|text| !text.is_empty())
    })
}

/// The concatenated content of an answer's parts.
#[must_use]
pub fn text_of(parts: &[Value]) -> String {
    text_parts(parts).collect()
}
