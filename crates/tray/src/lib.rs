//! The tray as pure data, and its Linux adapter.
//!
//! [`TrayView`] says what the tray shows for one [`Status`]: which glyph, which sentence, which menu. It is plain and
//! comparable, so that an adapter redraws on change only, and a test needs no panel. On Linux [`run`] shows it over
//! D-Bus; on Windows and macOS the desktop app draws the same view with its own toolkit. Nothing here talks to an
//! engine: a choice comes out as an [`Action`], and whoever holds the engine acts on it.

#[cfg(target_os = "linux")]
mod linux;
mod view;

#[cfg(target_os = "linux")]
pub use linux::{TrayError, run};
pub use view::{Action, Icon, Item, TrayView};
