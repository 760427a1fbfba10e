//! Errors of the rooms in the words of the control door: what happened, what it means, what to do.

use idlewatt_control::{Code, ControlError};
use idlewatt_store::StoreError;

/// Of the database.
#[must_use]
pub(crate) fn of_store(error: &StoreError) -> ControlError {
    let (code, why, action) = match error {
        StoreError::Newer { .. } => (
            Code::DatabaseNewer,
            "This version does not know what the newer one keeps there. The file was not touched.",
            "Install the newer version again, or put back a copy from before it.",
        ),
        StoreError::ReadOnly => (
            Code::HomeReadOnly,
            "Requests and statements are kept there; Idlewatt does not serve what it cannot account for.",
            "Make the data folder writable for this user, or set IDLEWATT_HOME to one that is.",
        ),
        StoreError::Full => (
            Code::DiskFull,
            "Nothing that was kept before is lost, and nothing new is taken.",
            "Free some space.",
        ),
        StoreError::Damaged(_) => (
            Code::Internal,
            "Requests and statements cannot be read. The file was not touched.",
            "Put back a copy, or move the file away to begin with an empty one.",
        ),
        StoreError::Closed => (Code::Stopping, "The engine is stopping.", "Start it again."),
        StoreError::Sqlite(_) => (
            Code::Internal,
            "This is a defect, or the disk fails.",
            "Look at the log; report it with that line.",
        ),
    };
    ControlError::new(code, sentence(&error.to_string()), why, action)
}

/// Starts with a capital, ends with a full stop.
#[must_use]
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}
