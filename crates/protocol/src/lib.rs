//! The shared vocabulary of Idlewatt: units, names, frames, messages, handshake, receipts and limits.
//!
//! Everything that crosses the wire between a hub and a node is defined here and nowhere else, together with the
//! limits both sides enforce. The crate is pure: bytes in, values out, no I/O, no clock and no randomness of its own.
//!
//! Not here: what the user interface speaks (`idlewatt-control`), and the rules that act on these values
//! (`idlewatt-core` for a node, `idlewatt-hub-core` for a hub).

pub mod artefact;
pub mod bench;
pub mod continuation;
pub mod frame;
pub mod handshake;
pub mod id;
pub mod invite;
pub mod limits;
pub mod message;
pub mod node_key;
pub mod pause;
pub mod receipt;
pub mod scope;
pub mod sse;
pub mod units;
pub mod usage;

pub use artefact::{Artefact, Capabilities, ServiceOffer};
pub use continuation::{Continuation, Joined};
pub use id::{Digest, Nonce, PublicKey, RequestId};
pub use pause::{Class, PauseCode};
pub use scope::{Region, Scope};
pub use units::{Label, MicroCredits, Millijoules, Milliwatts, Price, UnixMillis};
pub use usage::{Usage, UsageSource};
