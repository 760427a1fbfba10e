//! The tokio shell of a node: wires the rooms and serves the control door on loopback.
//!
//! [`Engine::start`] takes a [`Home`](home::Home) and runs everything in it; screens, the tray and the command line speak
//! to it through [`door::Resident`], in the same process or over HTTP. The rules are elsewhere (`idlewatt-core`); here
//! are the tasks, files, clocks and sockets that they need.

pub mod config;
pub mod door;
pub mod home;
mod hours;
pub mod identity;

mod answering;
mod bench;
mod cards;
mod circle;
mod clock;
mod deciding;
mod desk;
mod doctor;
mod engine;
mod found;
mod governing;
mod holders;
mod hotkey;
mod looking;
mod machine;
mod managed;
mod metered;
mod model_files;
mod money;
mod networks;
mod node;
mod others;
mod own;
mod own_use;
mod plugs;
mod power;
mod problem;
mod receipts;
mod schedule;
mod server_keys;
mod services;
mod serving;
mod signing;
mod slots;
mod status;
mod yielding;

pub use engine::{Engine, ask};
