//! Pure state machines of a node. No I/O, no clock, no threads, no async.
//!
//! A machine takes inputs and [`Now`], gives back effects, and names its next wake-up. The same machines run in the
//! daemon, in simulations and in unit tests with a manual clock.

pub mod answer;
pub mod device;
pub mod duration;
pub mod governor;
pub mod hours;
pub mod machine;
pub mod meter;
pub mod now;
pub mod own_use;
pub mod policy;
pub mod presence;
pub mod sentence;
pub mod session;
pub mod tariff;
pub mod windows;
pub mod work;
pub mod yielding;

pub use now::{Now, Wakeup};
