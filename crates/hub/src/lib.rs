//! The hub: an OpenAI-compatible gateway in front of nodes, with its ledger.
//!
//! The rules are pure and live in `idlewatt-hub-core`; here is the shell around them: HTTP, node sockets, storage and
//! the command line.

pub mod admin;
pub mod serve;
pub mod store;
