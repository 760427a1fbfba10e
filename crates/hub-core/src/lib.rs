//! The hub's rules as pure machines: requests, routing, session and ledger. No I/O, no clock, no threads.

pub mod allowance;
pub mod chatter;
pub mod circles;
pub mod continuing;
pub mod ledger;
pub mod openai;
pub mod routing;
pub mod session;
pub mod settle;
