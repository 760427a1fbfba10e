//! The slots of all services: one pool, however many networks ask, with the host's own requests first.
//!
//! A slot is held from admission until the answer has ended; dropping it gives it back. Whoever holds one for a network
//! listens to [`Slot::taken_back`]: that is how a pause, and the host's own request, end it at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// For whom a slot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// A request that a network brought.
    Network,
    /// One that a network brought from a device of the host's own.
    OwnDevice,
    /// The host's own, through the endpoint on this machine.
    Host,
}

impl For {
    /// Whether it is shared work: it came by a network.
    const fn is_shared(self) -> bool {
        matches!(self, Self::Network | Self::OwnDevice)
    }
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Slots {
    held: Mutex<Held>,
    shared: watch::Sender<u32>,
    own: watch::Sender<u32>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    services: BTreeMap<String, Vec<Holder>>,
}

#[derive(Debug)]
struct Holder {
    number: u64,
    whose: For,
    taken_back: CancellationToken,
}

/// One slot of one service; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    pool: Arc<Slots>,
    service: String,
    number: u64,
    taken_back: CancellationToken,
}

impl Default for Slots {
    fn default() -> Self {
        Self { held: Mutex::default(), shared: watch::Sender::new(0), own: watch::Sender::new(0) }
    }
}

impl Slots {
    /// Takes one of a service's `total` slots. A network's request gets `None` when all are taken. The host's own always
    /// gets one: where all are taken, the newest shared request is taken back.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, service: &str, total: u32, whose: For) -> Option<Slot> {
        let mut held = self.locked();
        held.next += 1;
        let number = held.next;
        let holders = held.services.entry(service.to_owned()).or_default();
        if holders.len() >= total as usize {
            match whose {
                For::Network | For::OwnDevice => return None,
                For::Host => {
                    let running = |it: &&Holder| it.whose.is_shared() && !it.taken_back.is_cancelled();
                    if let Some(newest) = holders.iter().rfind(running) {
                        newest.taken_back.cancel();
                    }
                }
            }
        }
        let taken_back = CancellationToken::new();
        holders.push(Holder { number, whose, taken_back: taken_back.clone() });
        self.tell(&held);
        Some(Slot { pool: Arc::clone(self), service: service.to_owned(), number, taken_back })
    }

    /// Takes the slots of shared requests back, but those of the host's own devices where they may `pass`; gives how many
    /// there were. They are given up a moment later: see [`shared`](Self::shared).
    pub(crate) fn take_back(&self, pass: bool) -> usize {
        let held = self.locked();
        let unwanted = held.services.values().flatten().filter(|it| is_unwanted(it, pass));
        unwanted.map(|it| it.taken_back.cancel()).count()
    }

    /// Shared requests that run, but those of the host's own devices where they may `pass`.
    #[must_use]
    pub(crate) fn unwanted(&self, pass: bool) -> u32 {
        count(self.locked().services.values().flatten().filter(|it| is_unwanted(it, pass)))
    }

    /// The same for one service.
    pub(crate) fn take_back_from(&self, service: &str) -> usize {
        let held = self.locked();
        let holders = held.services.get(service).map_or(&[][..], Vec::as_slice);
        holders.iter().filter(|it| it.whose.is_shared()).map(|it| it.taken_back.cancel()).count()
    }

    /// Slots of a service in use by networks' requests.
    #[must_use]
    pub(crate) fn busy(&self, service: &str) -> u32 {
        let held = self.locked();
        let holders = held.services.get(service).map_or(&[][..], Vec::as_slice);
        count(holders.iter().filter(|it| it.whose.is_shared()))
    }

    /// Slots of a service that are free, of `total`.
    #[must_use]
    pub(crate) fn free(&self, service: &str, total: u32) -> u32 {
        let held = self.locked();
        let taken = held.services.get(service).map_or(0, |holders| count(holders.iter()));
        total.saturating_sub(taken)
    }

    /// How many shared requests run, and every change of it.
    #[must_use]
    pub(crate) fn shared(&self) -> watch::Receiver<u32> {
        self.shared.subscribe()
    }

    /// How many of the host's own requests run, and every change of it.
    #[must_use]
    pub(crate) fn own(&self) -> watch::Receiver<u32> {
        self.own.subscribe()
    }

    fn give_back(&self, service: &str, number: u64) {
        let mut held = self.locked();
        if let Some(holders) = held.services.get_mut(service) {
            holders.retain(|it| it.number != number);
        }
        self.tell(&held);
    }

    fn tell(&self, held: &Held) {
        for (shared, sender) in [(true, &self.shared), (false, &self.own)] {
            let now = count(held.services.values().flatten().filter(|it| it.whose.is_shared() == shared));
            sender.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
    }

    fn locked(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Cancelled when the host takes the slot back.
    #[must_use]
    pub(crate) fn taken_back(&self) -> &CancellationToken {
        &self.taken_back
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.pool.give_back(&self.service, self.number);
    }
}

fn is_unwanted(holder: &Holder, pass: bool) -> bool {
    holder.whose == For::Network || holder.whose == For::OwnDevice && !pass
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_share_one_pool_and_never_get_more_than_there_are() {
        let slots = Arc::new(Slots::default());
        let first = slots.take("a", 2, For::Network).unwrap();
        let _second = slots.take("a", 2, For::Network).unwrap();
        assert!(slots.take("a", 2, For::Network).is_none());
        assert!(slots.take("b", 1, For::Network).is_some(), "another service has its own");
        drop(first);
        assert_eq!((slots.free("a", 2), slots.busy("a")), (1, 1));
        assert!(slots.take("a", 2, For::Network).is_some());
    }

    #[test]
    fn the_host_pre_empts_the_newest_shared_request_only_when_all_slots_are_taken() {
        let slots = Arc::new(Slots::default());
        let old = slots.take("a", 2, For::Network).unwrap();
        let own = slots.take("a", 2, For::Host).unwrap();
        assert!(!old.taken_back().is_cancelled());
        drop(own);
        let new = slots.take("a", 2, For::Network).unwrap();
        let own = slots.take("a", 2, For::Host).unwrap();
        assert!(new.taken_back().is_cancelled() && !old.taken_back().is_cancelled());
        let _more = slots.take("a", 2, For::Host).unwrap();
        assert!(old.taken_back().is_cancelled(), "each of the host's takes one back, not the same one twice");
        assert!(!own.taken_back().is_cancelled());
    }

    #[test]
    fn taking_back_ends_shared_requests_and_leaves_the_hosts_own() {
        let slots = Arc::new(Slots::default());
        let shared = slots.take("a", 4, For::Network).unwrap();
        let device = slots.take("a", 4, For::OwnDevice).unwrap();
        let own = slots.take("a", 4, For::Host).unwrap();
        assert_eq!((slots.unwanted(true), slots.unwanted(false)), (1, 2));
        assert_eq!(slots.take_back(true), 1);
        assert!(shared.taken_back().is_cancelled() && !device.taken_back().is_cancelled());
        assert_eq!(slots.take_back(false), 2);
        assert!(device.taken_back().is_cancelled() && !own.taken_back().is_cancelled());
        let running = slots.shared();
        drop(device);
        assert_eq!(*running.borrow(), 1, "it counts until it has really ended");
        drop(shared);
        assert_eq!(*running.borrow(), 0);
    }
}
