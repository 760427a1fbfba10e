//! Limits of the protocol. Both sides enforce them; a peer that breaks one is told which and disconnected.

use std::time::Duration;

/// The protocol version that this build speaks. A hub serves this one and the one before.
pub const PROTOCOL_VERSION: u16 = 1;

/// The WebSocket subprotocol of a node session.
pub const SUBPROTOCOL: &str = "idlewatt.node.v1";

/// Largest payload of one binary frame, bytes.
pub const MAX_FRAME_PAYLOAD: usize = 64 * 1024;

/// Largest text frame (one JSON control message), bytes.
pub const MAX_CONTROL_BYTES: usize = 256 * 1024;

/// Largest body of one request, bytes.
pub const MAX_REQUEST_BODY: usize = 4 * 1024 * 1024;

/// Largest answer to one request, bytes. A stream that grows past it is cancelled.
pub const MAX_RESPONSE_BODY: u64 = 64 * 1024 * 1024;

/// Bytes of one stream that may be under way towards the hub without a further `credit`.
pub const STREAM_WINDOW: u64 = 256 * 1024;

/// A stream that gets no credit for this long while it waits for some is cancelled.
pub const CREDIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Interval between pings from the hub; a session is dead after [`MISSED_HEARTBEATS`] without an answer.
pub const HEARTBEAT: Duration = Duration::from_secs(20);

/// Pings that may go unanswered before the session is dead.
pub const MISSED_HEARTBEATS: u32 = 2;

/// The whole handshake must end within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Frames written before a flush is forced; an empty queue flushes at once.
pub const FRAMES_PER_FLUSH: usize = 32;

/// Read buffer of a WebSocket, bytes. tungstenite's own default (128 KiB) would be most of an idle node's memory.
pub const WEBSOCKET_READ_BUFFER: usize = 4 * 1024;

/// Services in one `offer`.
pub const MAX_SERVICES: usize = 64;

/// Length of a model, service or agent name, bytes.
pub const MAX_NAME: usize = 256;

/// Bytes of an answer that a hub keeps to have it continued elsewhere, text alone; a longer answer is not continued. More
/// than any `max_tokens` of everyday use makes.
pub const MAX_PREFIX_BYTES: usize = 256 * 1024;

/// A lost session's streams are kept this long for its node to come back, on both sides.
pub const RESUME_WINDOW: Duration = Duration::from_secs(60);

/// Bytes of one stream's answer that a node keeps to send them again: four times what a hub may not have taken yet.
pub const REPLAY_BYTES: usize = 1024 * 1024;

/// Concurrent streams on one node session.
pub const MAX_STREAMS: usize = 1024;

/// Longest context a service may offer, tokens.
pub const MAX_CONTEXT: u32 = 16 * 1024 * 1024;

/// Most slots a service may offer.
pub const MAX_SLOTS: u32 = 1024;

/// Messages that no answer needs (states, offers, statements, pings, frames without bytes) which a node may send at once:
/// as many as the statements of 4,096 answers that it sends again after a long absence, twice.
pub const CHATTER_AT_ONCE: u32 = 8 * 1024;

/// How many more of them each second allows, and each answer that ends.
pub const CHATTER_A_SECOND: u32 = 500;
/// See [`CHATTER_A_SECOND`].
pub const CHATTER_AN_ANSWER: u32 = 8;

/// Statements under one Merkle root.
pub const MAX_BATCH: usize = 256;

/// A statement waits at most this long for its batch to be signed.
pub const BATCH_DELAY: Duration = Duration::from_millis(50);

/// Tokens a chat template may add to a prompt, on top of one a body byte: the hub's bound on a prompt count.
pub const TEMPLATE_ALLOWANCE: u32 = 512;

/// Completion tokens granted when a request sets no `max_tokens`.
pub const DEFAULT_MAX_TOKENS: u32 = 4096;

/// Time from `request` to the first byte of a streamed answer.
pub const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(120);

/// Time from `request` to the end of an answer that is not streamed: nothing of it comes before all of it. As long as
/// OpenAI's own SDKs wait.
pub const WHOLE_ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Time between two pieces of a streamed answer.
pub const BETWEEN_TOKENS_TIMEOUT: Duration = Duration::from_secs(60);

/// A hub waits this long for a node's signed statement after the last byte before it settles without one.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest signed bench report, as JSON, bytes.
pub const MAX_BENCH_BYTES: usize = 128 * 1024;

/// Power limits in one bench report, and cards.
pub const MAX_BENCH_POINTS: usize = 64;

/// Life of an invite.
pub const INVITE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
