//! What is said to `idlewatt-helper`: one JSON object a line each way, answers in the order of requests.
//!
//! The helper speaks first ([`Greeting`]). The end of a connection gives back every limit that was set through it, so a
//! client keeps its connection for as long as it wants a limit held. A card has one owner: the connection that set it
//! first, until it restores it or ends.

use idlewatt_protocol::Milliwatts;
use serde::{Deserialize, Serialize};

use super::{CapError, CardLimit};

/// Version of these lines. A client of another version is told so and let go.
pub const VERSION: u32 = 1;

/// Longest request, bytes, its end of line included. The longest real one is below 200.
pub const MAX_REQUEST: usize = 1024;

/// Longest answer, bytes: 64 cards of 1 KiB.
pub const MAX_ANSWER: usize = 64 * 1024;

/// The helper's first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The helper's own version, for people.
    pub helper: String,
    /// [`VERSION`]
    pub version: u32,
}

/// The four verbs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Every card.
    List {},
    /// One card.
    Get {
        /// Its id.
        gpu: String,
    },
    /// Sets a limit within the card's own range.
    Set {
        /// The card's id.
        gpu: String,
        /// The limit.
        limit_mw: Milliwatts,
    },
    /// Gives a card its own limit back; with no card, every one that this connection set.
    Restore {
        /// The card's id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gpu: Option<String>,
    },
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::List`].
    Cards(Vec<Card>),
    /// To [`Request::Get`].
    Card(Card),
    /// To [`Request::Set`]: what the card keeps to now.
    Set(Milliwatts),
    /// To [`Request::Restore`]: the card has its own limit, or all that this connection set have.
    Restored,
    /// To any.
    Error(CapError),
}

/// A card as the helper sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The card's limit now.
    #[serde(flatten)]
    pub limit: CardLimit,
    /// The card's own limit while another is set; zero where it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_mw: Option<Milliwatts>,
    /// Who else set it, for people; `None` for nobody, or this very connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}
