//! Why a limit is not set: for people, and for programs across the helper's socket.

use std::fmt;

use idlewatt_protocol::Milliwatts;
use serde::{Deserialize, Serialize};

/// Why a card's limit cannot be set or given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum CapError {
    /// No such card.
    #[error("no card here is named {gpu}")]
    UnknownCard {
        /// What was asked for.
        gpu: String,
    },
    /// Outside the card's own range.
    #[error(
        "{} is not a limit that this card takes: {} to {}",
        Watts(asked_mw),
        Watts(min_mw),
        Watts(max_mw)
    )]
    OutOfRange {
        /// What was asked for.
        asked_mw: Milliwatts,
        /// The card's lowest.
        min_mw: Milliwatts,
        /// The card's highest.
        max_mw: Milliwatts,
    },
    /// Nobody here may set it.
    #[error("setting a card's limit needs administrator rights, and Idlewatt runs without")]
    NoPermission,
    /// The card has no limit to set, as most laptops' have none.
    #[error("this card or its driver takes no power limit")]
    NotSupported,
    /// Somebody else governs the card.
    #[error("{by} governs this card already")]
    Taken {
        /// Who, for people.
        by: String,
    },
    /// Powered down by the system: nothing to limit.
    #[error("the card is powered down")]
    Asleep,
    /// The card or its driver is gone.
    #[error("the card does not answer: {problem}")]
    Lost {
        /// The driver's words.
        problem: String,
    },
    /// The driver said something else.
    #[error("the driver refuses the limit: {problem}")]
    Driver {
        /// Its words.
        problem: String,
    },
    /// The card's own limit could not be kept for later, so it was not changed.
    #[error("the card's own limit could not be saved, so it was not changed: {problem}")]
    NotSaved {
        /// What was in the way.
        problem: String,
    },
    /// This user is not let in by the helper.
    #[error("idlewatt-helper is installed, and this user may not use it")]
    HelperDenied,
    /// The helper is installed and does not answer as it should.
    #[error("idlewatt-helper does not answer: {problem}")]
    HelperSilent {
        /// What was in the way.
        problem: String,
    },
    /// Not a request that the helper knows.
    #[error("not a request: {problem}")]
    BadRequest {
        /// What is wrong with it.
        problem: String,
    },
}

impl CapError {
    /// What a person can do about it; `None` where there is nothing to do.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NoPermission => Some(
                "Install idlewatt-helper: it sets limits within the card's own range, gives them back, and does nothing \
                 else (docs/helper.md).",
            ),
            Self::HelperDenied => Some(
                "Add this user to the group idlewatt (`sudo usermod -aG idlewatt $USER`), then log in again.",
            ),
            Self::HelperSilent { .. } => {
                Some("See `systemctl status idlewatt-helper`; it is asked again by itself.")
            }
            Self::OutOfRange { .. } => Some("Choose a cap within the card's range."),
            Self::Taken { .. } => Some("End sharing there, or share from there."),
            Self::NotSaved { .. } => {
                Some("Free some space or fix the folder; nothing else is wrong with the card.")
            }
            Self::Lost { .. } => Some("It is looked for again by itself; `idlewatt doctor` says more."),
            Self::UnknownCard { .. }
            | Self::NotSupported
            | Self::Asleep
            | Self::Driver { .. }
            | Self::BadRequest { .. } => None,
        }
    }
}

/// `280 W`, `7.5 W`.
struct Watts<'a>(&'a Milliwatts);

impl fmt::Display for Watts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} W", self.0.to_main_unit())
    }
}
