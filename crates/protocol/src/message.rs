//! Control messages of a node session: JSON text frames, one object each, told apart by `type`.
//!
//! The node opens one WebSocket to `GET /node/v1`; bytes of bodies and answers travel in binary frames
//! ([`crate::frame`]). Unknown fields are ignored, so that either side may be newer. The order of a session:
//!
//! ```text
//! hub  → challenge                                 node → hello
//! hub  → welcome | refuse                          node → offer, state          (again on every change)
//! hub  → request + body frames                     node → head, data frames, end | refused
//! hub  → credit, cancel                            node → statements            (≤ 50 ms after an end, batched)
//! hub  → posted | void                             node → forgets the statement (it kept it in its outbox)
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::artefact::ServiceOffer;
use crate::continuation::Prefix;
use crate::id::{Digest, Nonce, PublicKey, RequestId, SignatureBytes};
use crate::pause::Class;
use crate::receipt::{Envelope, Receipt, Signed};
use crate::units::{MicroCredits, UnixMillis};
use crate::usage::Usage;

/// The endpoints that a node may be asked to call. Nothing else of a model server can be reached from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
}

impl Endpoint {
    /// The path below the server's root.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
        }
    }
}

/// Hub to node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HubMessage {
    /// The first frame of a session.
    Challenge(Challenge),
    /// The node is in.
    Welcome(Welcome),
    /// The node is not let in, or is cut off. The hub closes the socket after it.
    Refuse(Refuse),
    /// One request; its body follows in binary frames of the same stream.
    Request(Request),
    /// Bytes up to `offset` of this stream may be sent: absolute, never falls. The hub has delivered
    /// `offset − STREAM_WINDOW` bytes to its consumer.
    Credit {
        /// The stream.
        stream: u32,
        /// Absolute byte position.
        offset: u64,
    },
    /// Stop this stream. What was delivered is billed; the node answers with `end` for exactly that.
    Cancel {
        /// The stream.
        stream: u32,
        /// Bytes of the answer that reached the consumer.
        delivered: u64,
        /// Why.
        reason: CancelReason,
    },
    /// A request of this node's is settled, durably.
    Posted(Posted),
    /// The hub knows no such request, or it never delivered anything: the node drops its statement.
    Void {
        /// The request.
        request: RequestId,
    },
    /// The hub stops soon; finish what runs and reconnect elsewhere, or later.
    Drain {
        /// When it closes.
        by: UnixMillis,
    },
}

/// Node to hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeMessage {
    /// The node's half of the handshake.
    Hello(Box<Hello>),
    /// Everything this node offers now; replaces the last offer.
    Offer {
        /// At most [`crate::limits::MAX_SERVICES`].
        services: Vec<ServiceOffer>,
    },
    /// Whether it takes work now.
    State(State),
    /// An answer begins.
    Head {
        /// The stream.
        stream: u32,
        /// The model server's HTTP status.
        status: u16,
        /// Whether server-sent events follow, rather than one JSON body.
        streaming: bool,
    },
    /// An answer ended: its last byte is sent, or it was cancelled, or it failed.
    End(End),
    /// The request is not taken; nothing was or will be sent. Retried elsewhere without penalty.
    Refused {
        /// The stream.
        stream: u32,
        /// Why.
        code: RefusalCode,
    },
    /// Signed statements, batched; also those of earlier sessions that were never `posted`.
    Statements {
        /// At most [`crate::limits::MAX_BATCH`].
        statements: Vec<Envelope>,
    },
    /// The host takes the GPU back now; every running stream of this node has ended.
    Yield,
    /// Finish what runs, send nothing new.
    Drain {
        /// When it stops.
        by: UnixMillis,
    },
}

/// `challenge`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Fresh for every connection.
    pub nonce: Nonce,
    /// Protocol versions that the hub serves.
    pub versions: Vec<u16>,
    /// The hub's key, to be compared with the one that the invite pinned.
    pub hub_key: PublicKey,
}

/// `hello`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version the node chose of those offered.
    pub version: u16,
    /// The node's key.
    pub node_key: PublicKey,
    /// Fresh for every connection.
    pub node_nonce: Nonce,
    /// Name and version of the node's program.
    pub agent: String,
    /// The name its host gave the node, as the circle sees it; never taken from the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The node's signature over the transcript.
    pub signature: SignatureBytes,
    /// Present on a first join: which invite, and the proof of its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<InviteProof>,
    /// The last `posted` sequence number that the node keeps durably; the hub sends everything after it again.
    #[serde(default)]
    pub posted_through: u64,
    /// Present when the node lost its session and goes on with its streams. Without it they are over on both sides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

/// The streams of a lost session that its node still has: those that run, and those that ended within
/// [`RESUME_WINDOW`](crate::limits::RESUME_WINDOW) and were neither `posted` nor `void` yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The lost session's number. Another than the hub's last one of this node resumes nothing.
    pub epoch: u64,
    /// At most [`crate::limits::MAX_STREAMS`]. One that is not named is lost for the hub.
    pub streams: Vec<ResumeStream>,
}

/// A stream that its node still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeStream {
    /// The stream.
    pub stream: u32,
    /// Bytes of the request's body that the node has; the hub sends the rest.
    pub body: u64,
}

/// Proof that the node holds an invite's token, without the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteProof {
    /// Public id of the invite, see [`crate::invite::token_id`].
    pub id: String,
    /// HMAC-SHA-256 over the transcript with SHA-256(token) as key.
    pub hmac: Digest,
}

/// `welcome`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Session number of this node, rising; the newest wins.
    pub epoch: u64,
    /// The hub's signature over the transcript and the epoch.
    pub signature: SignatureBytes,
    /// Interval of the hub's pings, seconds.
    pub heartbeat_s: u32,
    /// The account that this node earns for.
    pub account: String,
    /// The hub's name, for people.
    pub hub_name: String,
    /// Addresses of this hub, best first; the node tries them in turn.
    #[serde(default)]
    pub urls: Vec<String>,
    /// The streams that go on; the node drops every other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<Resumed>,
}

/// A stream that goes on in a new session. The node sends its `head` where the hub has none, its answer from `offset`,
/// and its `end` again. A `cancel` that may have been lost follows the welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The stream.
    pub stream: u32,
    /// Whether the hub has its `head`.
    #[serde(default)]
    pub has_head: bool,
    /// Bytes of the answer that the hub has.
    pub offset: u64,
    /// Up to where bytes may be sent, as in `credit`.
    pub credit: u64,
}

/// `refuse`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// For programs.
    pub code: RefuseCode,
    /// For people: what happened and what to do.
    pub message: String,
}

/// Why a session is refused or ended by the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefuseCode {
    /// No common protocol version.
    Version,
    /// The signature, or the proof of the invite's token, is wrong.
    BadProof,
    /// The node is unknown and brought no invite.
    UnknownNode,
    /// The invite is unknown here: from another hub, or withdrawn.
    InviteUnknown,
    /// Another node used the invite.
    InviteUsed,
    /// The invite's 24 hours are over.
    InviteExpired,
    /// A newer session of the same node took over.
    Superseded,
    /// The node broke a limit or the order of messages.
    Protocol,
    /// The hub is full or draining; come back later.
    Busy,
}

impl RefuseCode {
    /// Whether trying again without a person's help may succeed.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(self, Self::Busy | Self::Superseded | Self::Protocol)
    }
}

/// `request`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The stream that its frames use.
    pub stream: u32,
    /// Its id everywhere.
    pub request: RequestId,
    /// Which of the node's services.
    pub service: String,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// Length of the body that follows, bytes.
    pub body_bytes: u64,
    /// Salt of both commitments; the consumer gets it with the receipt.
    pub salt: Nonce,
    /// Whether the requester is the node's own account.
    #[serde(default)]
    pub own: bool,
    /// Most completion tokens that may be billed.
    pub max_tokens: u32,
    /// The price agreed at admission, in micro-credits a million tokens.
    pub price: crate::units::Price,
    /// Time limits.
    pub deadlines: Deadlines,
    /// Whether each event is to carry the ids of its text, see [`crate::continuation::IDS_MEMBER`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ids: bool,
    /// Present when the answer was begun elsewhere: the body ends with it, and `max_tokens` is what remains. The
    /// statement's request commitment covers the body as it came, prefix included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
}

/// Time limits of one request, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// To the first piece of the answer; one that is not streamed has only one.
    pub first_token_ms: u32,
    /// Between two pieces.
    pub between_ms: u32,
}

impl Deadlines {
    /// To the first piece of the answer.
    #[must_use]
    pub fn first_token(self) -> Duration {
        Duration::from_millis(self.first_token_ms.into())
    }

    /// Between two pieces.
    #[must_use]
    pub fn between(self) -> Duration {
        Duration::from_millis(self.between_ms.into())
    }
}

/// Why a stream is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// The consumer went away.
    Consumer,
    /// A deadline passed.
    Timeout,
    /// The answer broke a limit, or was no answer.
    Malformed,
    /// The hub is stopping.
    Shutdown,
}

/// Why a node does not take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Every slot is taken.
    Busy,
    /// Not shared now.
    Paused,
    /// No such service, or not this endpoint.
    Service,
    /// The prompt and answer do not fit the context.
    Context,
    /// The model server does not answer.
    Server,
    /// The request breaks a limit.
    Limit,
    /// This partial answer cannot be gone on with here.
    Continuation,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// In full.
    Complete,
    /// Cancelled by the hub, at the offset it named.
    Cancelled,
    /// The host took the GPU back.
    Yielded,
    /// The model server failed or broke off.
    Failed,
}

/// `end`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The stream.
    pub stream: u32,
    /// How.
    pub outcome: Outcome,
    /// Bytes of the answer, as sent and as billed: for a cancelled one, what the hub said was delivered.
    pub length: u64,
    /// Tokens of these bytes.
    pub usage: Usage,
    /// For people, where it failed; never holds content, addresses or paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `state`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Whether requests are taken.
    pub accepting: bool,
    /// Where they are not: whether those of the node's own account are taken all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own: bool,
    /// A hint: with several networks the node arbitrates.
    pub free_slots: u32,
    /// Why not, when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Class>,
    /// Until when, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
}

/// `posted`: what a settled request came to for this node, with the receipt that bears it out. The salt of the receipt's
/// commitments is not in it: that is the consumer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    /// Rises by one for each posting of this node on this hub. The node keeps the last one durably.
    pub seq: u64,
    /// The request, whose receipt has the same id.
    pub request: RequestId,
    /// Tokens as billed for this node's segment.
    pub usage: Usage,
    /// What the node's account earned, after the hub's fee; 0 for the account's own requests.
    pub earned: MicroCredits,
    /// Whether the node's statement is in the receipt; otherwise it says `unsigned`.
    pub signed: bool,
    /// The hub's signed receipt.
    pub receipt: Envelope,
}

impl Posted {
    /// What `receipt` says of `node`; `None` when it does not name it. A node with several segments has their sum.
    #[must_use]
    pub fn of(seq: u64, node: &PublicKey, receipt: &Receipt, envelope: Envelope) -> Option<Self> {
        let mut parts = receipt.segments.iter().filter(|segment| segment.node == *node);
        let first = parts.next()?;
        let mut posted = Self {
            seq,
            request: receipt.id,
            usage: first.usage,
            earned: first.earned,
            signed: matches!(first.statement, Signed::Signed(_)),
            receipt: envelope,
        };
        for segment in parts {
            posted.usage.prompt = posted.usage.prompt.saturating_add(segment.usage.prompt);
            posted.usage.completion = posted.usage.completion.saturating_add(segment.usage.completion);
            posted.earned = posted.earned.saturating_add(segment.earned);
            posted.signed &= matches!(segment.statement, Signed::Signed(_));
        }
        Some(posted)
    }

    /// Node: whether the receipt is the hub's, verifies, and says of this node exactly what this message says.
    #[must_use]
    pub fn is_borne_out(&self, node: &PublicKey, hub: &PublicKey) -> bool {
        self.receipt.verify_receipt().is_ok_and(|verified| {
            verified.receipt.hub == *hub
                && Self::of(self.seq, node, &verified.receipt, self.receipt.clone()).as_ref() == Some(self)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden text: what a person sees with any WebSocket tool, and what an older peer must still read.
    #[test]
    fn messages_are_flat_tagged_objects() {
        let credit = HubMessage::Credit { stream: 3, offset: 262_144 };
        assert_eq!(
            serde_json::to_string(&credit).unwrap(),
            r#"{"type":"credit","stream":3,"offset":262144}"#
        );
        let state = NodeMessage::State(State {
            accepting: false,
            own: false,
            free_slots: 0,
            why: Some(Class::Schedule),
            until: None,
        });
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            r#"{"type":"state","accepting":false,"free_slots":0,"why":"schedule"}"#
        );
    }

    #[test]
    fn unknown_fields_are_ignored_and_unknown_types_are_not() {
        assert!(serde_json::from_str::<NodeMessage>(r#"{"type":"yield","newer":1}"#).is_ok());
        assert!(serde_json::from_str::<NodeMessage>(r#"{"type":"surprise"}"#).is_err());
    }

    #[test]
    fn a_resumed_stream_is_named_by_absolute_positions() {
        let resume = Resume { epoch: 4, streams: vec![ResumeStream { stream: 3, body: 70 }] };
        assert_eq!(
            serde_json::to_string(&resume).unwrap(),
            r#"{"epoch":4,"streams":[{"stream":3,"body":70}]}"#
        );
        let resumed = Resumed { stream: 3, has_head: true, offset: 9, credit: 262_153 };
        assert_eq!(
            serde_json::to_string(&resumed).unwrap(),
            r#"{"stream":3,"has_head":true,"offset":9,"credit":262153}"#
        );
    }
}
