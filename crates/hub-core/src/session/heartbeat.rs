//! Whether a node is still there: pings, what is due when they stay unanswered, and when to look next.

use std::time::{Duration, Instant};

use idlewatt_protocol::limits::{HEARTBEAT, MISSED_HEARTBEATS};

/// Interval of pings while streams run, and how long one may stay unanswered before the node is taken for away: somebody
/// waits for its next token. A node that only computes answers pings at once.
pub const WATCH: Duration = Duration::from_secs(5);

/// What is due at a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// A ping; and streams run while the last one stays unanswered. Said once until something is heard again.
    Silent,
    /// The node is gone: it left [`MISSED_HEARTBEATS`] heartbeats unanswered.
    Dead,
}

/// The pings of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    next: Instant,
    /// Since when a ping is unanswered.
    unanswered: Option<Instant>,
    is_silent: bool,
}

impl Heartbeat {
    /// Of a session that begins.
    pub(super) fn new(now: Instant, is_busy: bool) -> Self {
        Self { next: now + interval(is_busy), unanswered: None, is_silent: false }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Something was heard; whether the node had been taken for away.
    pub(super) fn heard(&mut self) -> bool {
        self.unanswered = None;
        std::mem::take(&mut self.is_silent)
    }

    /// A stream began: the next tick is due soon.
    pub(super) fn watch(&mut self, now: Instant) {
        self.next = self.next.min(now + WATCH);
    }

    pub(super) fn tick(&mut self, now: Instant, is_busy: bool) -> Due {
        if now < self.next {
            return Due::Nothing;
        }
        let since = *self.unanswered.get_or_insert(now);
        let unanswered = now.saturating_duration_since(since);
        if unanswered >= HEARTBEAT * MISSED_HEARTBEATS {
            return Due::Dead;
        }
        self.next = now + interval(is_busy);
        if is_busy && !self.is_silent && unanswered >= WATCH {
            self.is_silent = true;
            return Due::Silent;
        }
        Due::Ping
    }
}

fn interval(is_busy: bool) -> Duration {
    if is_busy { WATCH } else { HEARTBEAT }
}
