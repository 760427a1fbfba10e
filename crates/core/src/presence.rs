//! Whether a person uses this machine, as plain values. The sources are `idlewatt-presence`'.

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

/// What goes on at this machine beside input that a person wants undisturbed. Between two changes it holds; what no source
/// tells of is as if it were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Games that run, as a game service or the system says.
    pub games: Vec<App>,
    /// The program whose window covers a whole screen.
    pub full_screen: Option<App>,
    /// Programs of the host's list that run, each by the entry that it matched.
    pub listed: Vec<App>,
    /// The program that listens through a microphone: a call.
    pub call: Option<App>,
    /// Whether the screen is locked; `None` where nothing tells.
    pub locked: Option<bool>,
    /// Whether every display is off; `None` where nothing tells.
    pub displays_off: Option<bool>,
    /// People who are logged in over the network.
    pub remote_logins: u32,
}

impl Activity {
    /// Whether something says that nobody looks at a screen here: it is locked, or every display is off.
    #[must_use]
    pub fn says_away(&self) -> bool {
        self.locked == Some(true) || self.displays_off == Some(true)
    }
}

/// A program that a person uses. Its name is for the host's eyes only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct App {
    /// What the person calls it, as far as the system tells: `Baldur's Gate 3`, `blender`.
    pub name: String,
}
