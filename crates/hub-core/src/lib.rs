//! The hub's rules as pure machines: requests, routing, session and ledger. No I/O, no clock, no threads.
