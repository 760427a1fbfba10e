//! What a node keeps: requests, the statement outbox, samples and sessions, in SQLite.
