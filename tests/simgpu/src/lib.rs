//! Simulated GPUs in virtual time: the ground truth that the meter and the governor are held against.
//!
//! It knows nothing of Idlewatt, so that no mistake can be on both sides. [`card`] is the physics of a card and of its
//! sensors; [`server`] is what a model server with continuous batching costs on it; [`random`] makes both repeatable from
//! a seed. Seconds, watts and joules in double precision; nothing here has a clock.

pub mod card;
pub mod random;
pub mod server;

pub use card::{Card, Physics, Sensing};
pub use random::Random;
pub use server::{LlmServer, Model, Progress, Step};
