//! Every adapter against a fake that knows what really goes on in it, and against the real llama.cpp where it is installed.
#![expect(clippy::unwrap_used, reason = "a test")]

mod contract;
mod fakes;
mod quirks;
mod real;
