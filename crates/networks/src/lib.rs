//! Clients of networks, one file each. A network brings requests; the [`Host`] (the engine) decides, answers and keeps
//! the books. No client knows about model servers, policy or the store.

pub mod host;
pub mod hub;
pub mod trust;

pub use host::{Answer, Host, NetworkReport};
