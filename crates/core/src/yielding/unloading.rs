//! Freeing one server's memory, and seeing that it is really free: ask, look, wait for a request of the host's own, ask
//! again. A server of the node's own is ended instead. What a server says counts for nothing; what its processes hold does.

use std::time::{Duration, Instant};

/// A server frees within this time, or keeps what it holds: ten times what an 8 GB model took.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// A request of the host's own may keep a server from freeing for this long before it is given up.
pub const HOST_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// How often a server is asked.
const ASKED: u32 = 5;

/// Less than this is no model, bytes: what a driver's context needs may come and go.
const SLACK: u64 = 64 << 20;

/// Whose process the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The node started it and may end it.
    Own,
    /// Somebody else's: it may be asked, and is never killed.
    Others,
}

/// What is seen of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// VRAM that its processes hold, bytes; `None` where nothing tells.
    pub vram: Option<u64>,
    /// Requests of the host's own that it works on.
    pub busy: bool,
    /// Whether its process has ended.
    pub gone: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask it to unload.
    Ask,
    /// End its process.
    End,
    /// Look again.
    Look,
    /// Look again once it is not busy any more, or a little later.
    LookLater,
    /// It is over.
    Done(Verdict),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its memory is free, and that was seen. Bytes, where they are told.
    Freed(Option<u64>),
    /// It agreed, and nothing tells what it holds.
    Unseen,
    /// It agreed and holds this many bytes all the same.
    Kept(u64),
    /// It can free nothing while it runs, or refused.
    Refused,
}

/// What it answered when it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It agreed.
    Agreed,
    /// It would, and is at work: it is to be asked again.
    AtWork,
    /// It did not, and asking again is of no use.
    Refused,
    /// It was not reached.
    Away,
}

/// One server whose memory is being freed.
#[derive(Clone, Debug)]
pub struct Unloading {
    whose: Whose,
    /// Models that it had loaded; one of them goes.
    models: u64,
    before: Option<u64>,
    begun: Instant,
    asked: u32,
    /// Since when its answer is waited for to come true.
    since: Instant,
    agreed: bool,
    at_work: bool,
}

impl Unloading {
    /// Begins. `models`: how many it has loaded, of which one is to go; what it holds is in `sight`.
    #[must_use]
    pub fn begin(whose: Whose, models: u32, sight: Sight, now: Instant) -> (Self, Order) {
        let it = Self {
            whose,
            models: u64::from(models.max(1)),
            // Of a model that no card holds there is nothing to see.
            before: sight.vram.filter(|it| *it > 0),
            begun: now,
            asked: 1,
            since: now,
            agreed: whose == Whose::Own,
            at_work: false,
        };
        (it, if whose == Whose::Own { Order::End } else { Order::Ask })
    }

    /// It answered.
    pub fn answered(&mut self, answer: Answer, now: Instant) -> Order {
        self.since = now;
        match answer {
            Answer::Agreed => {
                self.agreed = true;
                Order::Look
            }
            Answer::AtWork => {
                self.at_work = true;
                Order::LookLater
            }
            Answer::Refused => Order::Done(Verdict::Refused),
            // Who cannot be reached may be gone, which is as good.
            Answer::Away => Order::Look,
        }
    }

    /// It was looked at.
    pub fn saw(&mut self, sight: Sight, now: Instant) -> Order {
        let freed = |vram: Option<u64>| Order::Done(Verdict::Freed(vram));
        if sight.gone {
            return freed(self.before);
        }
        if self.whose == Whose::Own {
            return if now < self.since + PATIENCE { Order::Look } else { self.given_up(sight) };
        }
        if let (Some(before), Some(held)) = (self.before, sight.vram)
            && self.has_fallen(before, held)
        {
            return freed(Some(before.saturating_sub(held)));
        }
        if std::mem::take(&mut self.at_work) {
            let waits = sight.busy && now < self.begun + HOST_PATIENCE;
            self.at_work = waits;
            // What it works on may be a shared request whose connection was closed a moment ago.
            return if waits { Order::LookLater } else { self.ask_again(sight, now) };
        }
        if now < self.since + PATIENCE && (self.before.is_some() || !self.agreed) {
            return Order::Look;
        }
        if sight.busy && now < self.begun + HOST_PATIENCE {
            // It frees once that request has ended, or has to be asked again then.
            return Order::LookLater;
        }
        if self.before.is_some() || !self.agreed { self.ask_again(sight, now) } else { self.given_up(sight) }
    }

    fn ask_again(&mut self, sight: Sight, now: Instant) -> Order {
        if self.asked == ASKED {
            return self.given_up(sight);
        }
        self.asked += 1;
        self.since = now;
        Order::Ask
    }

    /// A model among several goes: at least half of its equal share must be free.
    fn has_fallen(&self, before: u64, held: u64) -> bool {
        let least = (before / (2 * self.models)).max(SLACK.min(before));
        before.saturating_sub(held) >= least
    }

    fn given_up(&self, sight: Sight) -> Order {
        Order::Done(match (self.agreed, sight.vram) {
            (false, _) => Verdict::Refused,
            (true, Some(held)) if held > 0 => Verdict::Kept(held),
            (true, _) => Verdict::Unseen,
        })
    }
}
