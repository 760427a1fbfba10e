//! The hub: an OpenAI-compatible gateway in front of nodes, with its ledger.
//!
//! The rules are pure and live in `idlewatt-hub-core`; here is the shell around them: HTTP, node sockets, storage and
//! the command line.

// `openapi.rs` is one `json!`.
#![recursion_limit = "256"]

pub mod admin;
mod doors;
mod gateway;
mod hub;
mod metrics;
mod node;
mod openapi;
mod pages;
pub mod qr;
mod routing;
pub mod serve;
pub mod store;
