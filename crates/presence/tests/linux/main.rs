//! Presence against real X servers, sound servers and GameMode, a compositor of the test's own, and GNOME and logind as they
//! look on a bus.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail at once")]

mod games;
mod hotkey;
mod logind;
mod microphone;
mod mutter;
mod pads;
mod programs;
mod rest;
mod rig;
mod wayland;
mod x11;
