//! One decision: who may go on, who stops, who may start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use idlewatt_protocol::{Millijoules, Milliwatts};

use super::account::{Doing, Micros, Power, SECOND, Together, WINDOW, Window, energy};
use super::card::{Governed, TARGET};
use super::{Actuator, Admission, Limit, Refusal, Service, Unenforceable};
use crate::meter::Place;

/// Work is stopped and continued for this long at least.
pub(super) const SLICE: Micros = 100_000;
/// When to ask again should no reading come: a slice that ends with a reading is measured best.
pub(super) const OVERDUE: Micros = SLICE + 25_000;
/// A slice, and what the next question may be late by.
pub(super) const AHEAD: Micros = SLICE + 50_000;
/// Requests are ended this long before the energy is used: a server needs a moment to see that nobody listens.
pub(super) const CUT_AHEAD: Micros = 300_000;
/// A request that could run for less than this is not begun: reading its prompt would be all that it does.
const SEGMENT: Micros = 2 * SECOND;
/// Answers that are slower than a tenth of their speed are none.
const LEAST_DUTY: i64 = 10;

/// What the services are decided on.
pub(super) struct Scene<'a> {
    instant: Instant,
    pub(super) now: Micros,
    cards: &'a BTreeMap<String, Governed>,
    windows: BTreeMap<&'a str, Window>,
    machine: Option<(Power, Window)>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(
        instant: Instant,
        now: Micros,
        cards: &'a BTreeMap<String, Governed>,
        together: &Together,
        machine_cap: Option<Power>,
    ) -> Self {
        let windows = cards.iter().filter_map(|(id, card)| Some((id.as_str(), card.window(now)?))).collect();
        let machine = machine_cap.map(|cap| {
            let resting = cards.values().map(Governed::resting).sum();
            (cap, together.window(cards.values().map(|it| &it.account), now, cap, TARGET, resting))
        });
        Self { instant, now, cards, windows, machine }
    }

    /// The cards that a service computes on. One that names a card nobody knows may be on any.
    pub(super) fn under(&self, service: &Service) -> Vec<&'a str> {
        let known = |ids: &Vec<String>| ids.iter().all(|id| self.cards.contains_key(id));
        let anywhere = matches!(&service.place, Place::Cards(ids) if !known(ids));
        let covers = |id: &str| anywhere || service.place.covers(id);
        self.cards.keys().map(String::as_str).filter(|id| covers(id)).collect()
    }

    fn card(&self, id: &str) -> Option<&'a Governed> {
        self.cards.get(id)
    }

    /// Whether the cards hold themselves, or have just been told to.
    pub(super) fn is_held(&self, cards: &[&str], starting: bool) -> bool {
        cards.iter().filter_map(|id| self.card(id)).all(|card| {
            let resting = card.doing == Doing::Rest;
            card.held || card.pending && !(starting && resting)
        })
    }

    /// How long these cards can work from now on; `None`: for ever.
    pub(super) fn lasts(&self, cards: &[&str], wait: Micros) -> Option<Micros> {
        let open = || cards.iter().filter(|id| self.card(id).is_some_and(|card| !card.held));
        let own = open().filter_map(|id| {
            let card = self.card(id)?;
            self.windows.get(*id)?.lasts(card.worst?, card.resting(), wait)
        });
        let machine = self.machine.as_ref().filter(|_| open().next().is_some());
        let together = machine.and_then(|(_, window)| {
            let (works, rests) = (self.draw(cards, |it| it.worst, Governed::resting), self.resting());
            window.lasts(works, rests, wait)
        });
        own.chain(together).min()
    }

    /// Whether they can for this long.
    pub(super) fn fits(&self, cards: &[&str], time: Micros) -> bool {
        self.lasts(cards, 0).is_none_or(|lasts| lasts >= time)
    }

    /// Power of all cards with these at work.
    fn draw(
        &self,
        working: &[&str],
        worst: impl Fn(&Governed) -> Option<Power>,
        rest: impl Fn(&Governed) -> Power,
    ) -> Power {
        let draws = |(id, card): (&String, &Governed)| match worst(card) {
            Some(worst) if working.contains(&id.as_str()) => worst,
            _ => rest(card),
        };
        self.cards.iter().map(draws).sum()
    }

    fn resting(&self) -> Power {
        self.cards.values().map(Governed::resting).sum()
    }

    /// Why nothing of a service may run under the limits as they are; `None`: it may, now or in a moment. A card that
    /// takes a limit has it only while the node shares, so it is judged by what it will do then: judged by what it does
    /// now, a cap that only the card itself can hold would keep the node from ever sharing.
    pub(super) fn refusal(&self, service: &Service, cards: &[&str]) -> Option<Refusal> {
        let open = || cards.iter().filter_map(|id| self.card(id)).filter(|card| !card.held);
        let blind = |card: &Governed| card.worst.is_none() && card.lowest().is_some();
        if open().any(blind) {
            return Some(Refusal::CapUnenforceable(Unenforceable::NothingMeasures));
        }
        let own = open().filter_map(|card| {
            let (cap, limit) = card.cap?;
            refuses(service, limit, cap, card.worst_within()?, card.idle(), card.resting())
        });
        let machine = self.machine.as_ref().filter(|_| open().next().is_some()).and_then(|(cap, _)| {
            let limit = Limit::MachineCap { cap: Milliwatts(*cap) };
            let works = self.draw(cards, Governed::worst_within, Governed::idle);
            refuses(
                service,
                limit,
                *cap,
                works,
                self.cards.values().map(Governed::idle).sum(),
                self.resting(),
            )
        });
        // One that nothing but the host can change comes first.
        own.chain(machine).max_by_key(|it| match it {
            Refusal::Off => 4,
            Refusal::CapUnenforceable(_) => 3,
            Refusal::Limited(_) => 2,
            Refusal::HostLoad { .. } => 1,
            Refusal::Used => 0,
        })
    }

    /// What a service may start, with the cards that others work on now.
    pub(super) fn admission(&self, service: &Service, cards: &[&str], working: &[&str]) -> Admission {
        let mut admission =
            Admission { service: service.id.clone(), slots: service.slots, next: None, refusal: None };
        if self.is_held(cards, true) {
            return admission;
        }
        let open =
            || cards.iter().filter_map(|id| self.card(id)).filter(|card| !card.held && !service.stoppable);
        let few = open().filter_map(Governed::lasting).min().and_then(|few| u32::try_from(few).ok());
        if let Some(few) = few {
            admission.slots = admission.slots.min(few);
        }
        let closed = |refusal, wait: Option<Micros>| Admission {
            slots: 0,
            next: wait.map(|wait| self.instant + duration(wait)),
            refusal: Some(refusal),
            ..admission.clone()
        };
        if let Some(refusal) = self.refusal(service, cards) {
            return closed(refusal, None);
        }
        if self.is_held(cards, false) {
            return closed(Refusal::Used, Some(SLICE));
        }
        let all: Vec<&str> = cards.iter().chain(working).copied().collect();
        let lasts = self.lasts(&all, 0);
        let sliced = service.stoppable;
        let least = match few {
            _ if sliced => AHEAD,
            // They go on below the cap, so that there is little room left and none is needed.
            Some(_) if service.running > 0 => CUT_AHEAD + AHEAD,
            _ => SEGMENT,
        };
        if lasts.is_some_and(|lasts| lasts < least) {
            if service.running > 0 && sliced {
                return admission;
            }
            let waits = (0..=WINDOW / SLICE).map(|slices| slices * SLICE);
            let wait = waits.into_iter().find(|it| self.lasts(&all, *it).is_none_or(|lasts| lasts >= least));
            return closed(Refusal::Used, wait);
        }
        admission
    }

    /// Who holds a card.
    pub(super) fn actuator(&self, card: &Governed, services: &[(&Service, bool)]) -> Actuator {
        let mut on = services.iter().filter(|(it, _)| it.place.covers(&card.told.reading.id)).peekable();
        if card.lowest().is_none() {
            Actuator::Nobody
        } else if card.held || card.pending {
            Actuator::Hardware
        } else if card.worst.is_none() || on.peek().is_some() && on.clone().all(|(_, open)| !open) {
            Actuator::Nobody
        } else if on.peek().is_some() && on.all(|(it, _)| it.stoppable) {
            Actuator::DutyCycle
        } else {
            Actuator::Admission
        }
    }
}

/// Whether the smallest slice of a service's work is too much for a limit.
fn refuses(
    service: &Service,
    limit: Limit,
    cap: Power,
    worst: Power,
    idle: Power,
    resting: Power,
) -> Option<Refusal> {
    let (by, slice, works) = if service.stoppable {
        (Actuator::DutyCycle, SLICE, WINDOW / LEAST_DUTY)
    } else {
        (Actuator::Admission, SEGMENT, SEGMENT + CUT_AHEAD)
    };
    let needs = |rest: Power| energy(worst, works) + energy(rest, WINDOW - works);
    let leaves = energy(cap, WINDOW) * TARGET / 100;
    if needs(idle) > leaves {
        let (needs, leaves) = (Millijoules(needs(idle) / 1_000), Millijoules(leaves / 1_000));
        let slice = duration(slice);
        Some(match limit {
            limit if limit.passes() => Refusal::Limited(limit),
            _ => Refusal::CapUnenforceable(Unenforceable::SmallestSlice { by, slice, needs, leaves }),
        })
    } else {
        let host = Refusal::HostLoad { draws: Milliwatts(resting), cap: Milliwatts(cap) };
        (needs(resting) > leaves).then_some(host)
    }
}

pub(super) fn duration(time: Micros) -> Duration {
    Duration::from_micros(u64::try_from(time).unwrap_or(0))
}
