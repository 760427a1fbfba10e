//! One key combination of the host's choosing, heard wherever the keyboard points. The system is asked for this one alone
//! and tells of no other: nothing here sees what is typed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::Options;

/// A key with what is held down beside it: `Ctrl+Alt+G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hotkey {
    pub(crate) held: Held,
    pub(crate) key: Key,
}

/// What is held down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ctrl: bool,
    /// Option on a Mac.
    pub(crate) alt: bool,
    pub(crate) shift: bool,
    /// The Windows key, Command on a Mac.
    pub(crate) logo: bool,
}

/// Keys that every platform can be asked for, or says that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// `b'A'` to `b'Z'`, `b'0'` to `b'9'`.
    Sign(u8),
    /// F1 to F24.
    F(u8),
    Pause,
    Insert,
    Home,
    End,
    PageUp,
    PageDown,
}

/// Keys with names of their own.
const NAMED: [(&str, Key); 6] = [
    ("Pause", Key::Pause),
    ("Insert", Key::Insert),
    ("Home", Key::Home),
    ("End", Key::End),
    ("PageUp", Key::PageUp),
    ("PageDown", Key::PageDown),
];

/// Why a text is no hotkey; follows "it".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHotkey {
    /// A part that is no key.
    #[error(
        "has {0:?}, which is neither Ctrl, Alt, Shift nor Super, nor one key of A to Z, 0 to 9, F1 to F24, Pause, Insert, \
         Home, End, PageUp, PageDown"
    )]
    Unknown(String),
    /// Two keys, or none.
    #[error("must end with exactly one key, such as Ctrl+Alt+G")]
    NotOneKey,
    /// A key that people type with.
    #[error(
        "would take a key that programs need: hold Ctrl, Alt or Super beside it (Pause and F13 to F24 may stand alone)"
    )]
    TypedWith,
}

impl FromStr for Hotkey {
    type Err = NoHotkey;

    /// From `Ctrl+Alt+G`, in any case. Control, Option, Win, Cmd, Command and Meta are understood, too.
    fn from_str(text: &str) -> Result<Self, NoHotkey> {
        let mut held = Held::default();
        let mut key = None;
        for part in text.split('+').map(str::trim) {
            if key.is_some() {
                return Err(NoHotkey::NotOneKey);
            }
            match part.to_ascii_lowercase().as_str() {
                "" => return Err(NoHotkey::NotOneKey),
                "ctrl" | "control" => held.ctrl = true,
                "alt" | "option" => held.alt = true,
                "shift" => held.shift = true,
                "super" | "win" | "cmd" | "command" | "meta" => held.logo = true,
                _ => key = Some(Key::named(part).ok_or_else(|| NoHotkey::Unknown(part.to_owned()))?),
            }
        }
        let key = key.ok_or(NoHotkey::NotOneKey)?;
        let stands_alone = matches!(key, Key::Pause | Key::F(13..));
        if stands_alone || held.ctrl || held.alt || held.logo {
            Ok(Self { held, key })
        } else {
            Err(NoHotkey::TypedWith)
        }
    }
}

impl Key {
    fn named(text: &str) -> Option<Self> {
        if let [sign] = text.as_bytes() {
            return sign.is_ascii_alphanumeric().then(|| Self::Sign(sign.to_ascii_uppercase()));
        }
        if let Some(number) = text.strip_prefix(['F', 'f']).and_then(|it| it.parse().ok()) {
            return (1..=24).contains(&number).then_some(Self::F(number));
        }
        NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, key)| *key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sign(sign) => write!(f, "{}", char::from(*sign)),
            Self::F(number) => write!(f, "F{number}"),
            named => f.write_str(NAMED.iter().find(|(_, key)| key == named).map_or("", |(name, _)| name)),
        }
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { ctrl, alt, shift, logo } = self.held;
        for (held, name) in [(ctrl, "Ctrl+"), (alt, "Alt+"), (shift, "Shift+"), (logo, "Super+")] {
            if held {
                f.write_str(name)?;
            }
        }
        write!(f, "{}", self.key)
    }
}

/// Whether a hotkey is heard, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether a press would be heard.
    pub heard: bool,
    /// Who hears it, or why nobody does: one sentence.
    pub says: String,
    /// What the person can do about it, where there is something.
    pub action: Option<String>,
}

/// A hotkey that is listened for. Dropping it leaves the key to others again.
#[derive(Debug)]
pub struct Listening {
    bell: Bell,
    task: JoinHandle<()>,
}

/// Asks the system for `hotkey`. Must be called within a tokio runtime.
#[must_use]
pub fn listen(hotkey: Hotkey, options: Options) -> Listening {
    let bell = Bell::default();
    let task = tokio::spawn(crate::platform::hotkey(hotkey, options, bell.clone()));
    Listening { bell, task }
}

impl Listening {
    /// Waits for the next press. Several that nobody waited for are one.
    pub async fn pressed(&self) {
        self.bell.0.pressed.notified().await;
    }

    /// Whether it is heard now, and every change of that.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.bell.0.standing.subscribe()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a platform rings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bell(Arc<Rung>);

#[derive(Debug)]
struct Rung {
    pressed: Notify,
    standing: watch::Sender<Standing>,
}

impl Default for Rung {
    fn default() -> Self {
        let asked = Standing { heard: false, says: "the system is being asked".to_owned(), action: None };
        Self { pressed: Notify::new(), standing: watch::Sender::new(asked) }
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        tracing::info!("the hotkey was pressed");
        self.0.pressed.notify_one();
    }

    /// It is heard, by whom.
    pub(crate) fn heard(&self, says: impl Into<String>) {
        self.stands(Standing { heard: true, says: says.into(), action: None });
    }

    /// It is not heard.
    pub(crate) fn unheard(&self, says: impl Into<String>, action: Option<&str>) {
        self.stands(Standing { heard: false, says: says.into(), action: action.map(str::to_owned) });
    }

    fn stands(&self, standing: Standing) {
        tracing::info!(heard = standing.heard, says = %standing.says, "hotkey");
        self.0.standing.send_replace(standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hotkey_reads_as_people_write_it_and_is_written_one_way() {
        for (text, written) in [
            ("Ctrl+Alt+G", "Ctrl+Alt+G"),
            ("alt + CONTROL + g", "Ctrl+Alt+G"),
            ("cmd+shift+pagedown", "Shift+Super+PageDown"),
            ("Pause", "Pause"),
            ("f24", "F24"),
            ("Win+1", "Super+1"),
        ] {
            let hotkey: Hotkey = text.parse().unwrap();
            assert_eq!(hotkey.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(hotkey), "{written}");
        }
    }

    #[test]
    fn what_is_no_hotkey_is_said_to_be_none_and_why() {
        let wrong = |text: &str| text.parse::<Hotkey>().unwrap_err();
        for text in ["", "Ctrl+", "Ctrl", "Ctrl+A+B", "A+Ctrl"] {
            assert_eq!(wrong(text), NoHotkey::NotOneKey, "{text}");
        }
        for text in ["A", "Shift+A", "F12", "Home"] {
            assert_eq!(wrong(text), NoHotkey::TypedWith, "{text}");
        }
        for text in ["Ctrl+F25", "Ctrl+Delete", "Hyper+A", "Ctrl+Ä"] {
            assert!(matches!(wrong(text), NoHotkey::Unknown(_)), "{text}");
        }
    }
}
