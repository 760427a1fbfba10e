//! Whether a person uses this machine, as a plain value. The sources are `idlewatt-presence`'.

use std::time::Instant;

/// What the presence source knows now. Sources tell of changes; between two changes this holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceReading {
    /// No graphical session: nobody can be disturbed.
    Headless,
    /// The last input was at `since` or after it: the person is here.
    Active {
        /// When this stretch of activity was last seen.
        since: Instant,
    },
    /// No input since `last_input`.
    Idle {
        /// The last input.
        last_input: Instant,
    },
    /// There is a graphical session and no source that tells of input.
    Blind,
}
