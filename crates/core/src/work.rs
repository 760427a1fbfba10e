//! One request on its way through a node, as plain values: what a network asks, and what came of it.

use idlewatt_protocol::continuation::Prefix;
use idlewatt_protocol::message::{Deadlines, Endpoint, Outcome};
use idlewatt_protocol::receipt::{Energy, Timings};
use idlewatt_protocol::{Artefact, Price, RequestId, UnixMillis, Usage};

/// A request that a network hands to this node.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Its id; the receipt's too.
    pub request: RequestId,
    /// The network it came from, by its id on this node.
    pub network: String,
    /// Which of the node's services, by the id in its offer.
    pub service: String,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// The JSON body, already checked by the hub and checked again here.
    pub body: bytes::Bytes,
    /// Most completion tokens.
    pub max_tokens: u32,
    /// Whether each event is to carry the ids of its text.
    pub ids: bool,
    /// What of the answer was delivered already; the body ends with it.
    pub prefix: Option<Prefix>,
    /// Whether the host's own account asks.
    pub own: bool,
    /// The agreed price.
    pub price: Price,
    /// Time limits.
    pub deadlines: Deadlines,
}

/// How an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// HTTP status; other than 200 the body is an error object in OpenAI's form, rewritten.
    pub status: u16,
    /// Whether server-sent events follow.
    pub streaming: bool,
}

/// Whole bytes of an answer, ready to send: one or more whole events, or a piece of a whole body. Nothing in it names
/// the host's files, addresses or server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes.
    pub bytes: bytes::Bytes,
    /// The content it adds, as the commitment covers it.
    pub text: String,
    /// Tokens of the answer up to and with this piece.
    pub usage: Usage,
    /// Prompt tokens among them that the server knew from before: it computed nothing for them.
    pub cached: u32,
}

/// What came of a request, once it has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// What answered.
    pub artefact: Artefact,
    /// Tokens of the bytes that count.
    pub usage: Usage,
    /// When it came.
    pub started: UnixMillis,
    /// How long it took.
    pub timings: Timings,
    /// Joules.
    pub energy: Energy,
    /// For people, where it failed; no content, address or path.
    pub message: Option<String>,
}
