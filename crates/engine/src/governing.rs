//! The governor at work: what the cards say and what runs goes to `core::governor`; what it says becomes limits in the
//! cards, slices of a server of the node's own, and what may start.
//!
//! A machine without a card has nothing to govern, and no thread that could.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use idlewatt_core::governor::{Card, Decision, Effect, Governor, Inputs, Refusal, Settings};
use idlewatt_core::policy::PowerStop;
use idlewatt_devices::cap::{CapError, CapPlaces, Caps, Way};
use idlewatt_protocol::message::RefusalCode;
use idlewatt_protocol::{Millijoules, Milliwatts};
use jiff::civil::Date;
use tokio::sync::{Notify, watch};

use crate::node::{Node, lock};
use crate::slots::{For, Slot};
use crate::{clock, config};

/// How often it is seen to that cards keep to what they were told: a driver or the helper may have started anew.
const KEPT: Duration = Duration::from_secs(1);

/// How often it is looked who may set limits now: the helper may have been installed.
const LOOKED: Duration = Duration::from_secs(60);

/// The governor and its hands.
pub(crate) struct Governing {
    governor: Mutex<Governor>,
    decided: watch::Sender<Decision>,
    limits: Mutex<Option<Limits>>,
    /// `None` until it was looked for the first time.
    ways: Arc<Mutex<Option<Ways>>>,
    /// Cards that sleep: nobody may set a limit of theirs until they wake.
    asleep: Mutex<BTreeSet<String>>,
    /// Cards that were claimed while the node shares.
    claimed: Mutex<BTreeSet<String>>,
    /// What sharing used on a local day.
    used: Mutex<(Date, Millijoules)>,
    /// Something changed that it should hear of.
    pub(crate) again: Arc<Notify>,
}

/// How each card's limit can be set now, or why not.
pub(crate) type Ways = BTreeMap<String, Result<Way, CapError>>;

/// The thread that talks to drivers and the helper: they may take their time.
struct Limits {
    orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    Set {
        card: String,
        limit: Option<Milliwatts>,
    },
    /// Nobody else on this machine is to govern it, until it is set to no limit.
    Claim {
        card: String,
    },
    Places(CapPlaces),
    /// Who may set limits is to be looked at now.
    Look,
}

impl Default for Governing {
    fn default() -> Self {
        let nothing = Decision { cards: Vec::new(), services: Vec::new(), effects: Vec::new(), wake: None };
        Self {
            governor: Mutex::default(),
            decided: watch::Sender::new(nothing),
            limits: Mutex::default(),
            ways: Arc::default(),
            asleep: Mutex::default(),
            claimed: Mutex::default(),
            used: Mutex::new((Date::ZERO, Millijoules::ZERO)),
            again: Arc::default(),
        }
    }
}

impl Governing {
    /// What holds now.
    pub(crate) fn decided(&self) -> watch::Ref<'_, Decision> {
        self.decided.borrow()
    }

    /// How each card's limit can be set now.
    pub(crate) fn ways(&self) -> Ways {
        lock(&self.ways).clone().unwrap_or_default()
    }

    /// Sharing used this much more on a day.
    pub(crate) fn add_used(&self, day: Date, energy: Millijoules) {
        let mut used = lock(&self.used);
        if used.0 != day {
            *used = (day, Millijoules::ZERO);
        }
        used.1 += energy;
    }

    /// Of a service's slots, how many its cap leaves.
    pub(crate) fn leaves(&self, service: &str, slots: u32) -> u32 {
        let decided = self.decided();
        if decided.cards.is_empty() {
            // Cards that nothing is decided about yet, or that do not answer; or none at all.
            return if lock(&self.limits).is_some() { 0 } else { slots };
        }
        let admission = decided.services.iter().find(|it| it.service == service);
        admission.map_or(0, |it| it.slots.min(slots))
    }

    /// Why nothing that is shared can be answered, where the reason does not pass within seconds.
    pub(crate) fn stops_sharing(&self) -> Option<PowerStop> {
        let decided = self.decided();
        let mut stops = decided.services.iter().map(|it| it.refusal.and_then(PowerStop::of));
        let first = stops.next()??;
        stops.all(|it| it.is_some()).then_some(first)
    }

    /// Looks for cards in other places from now on.
    pub(crate) fn look_in(&self, places: CapPlaces) {
        self.order(Order::Places(places));
    }

    fn order(&self, order: Order) {
        if let Some(limits) = &*lock(&self.limits) {
            drop(limits.orders.send(order));
        }
    }

    fn start(&self, places: CapPlaces) {
        let mut limits = lock(&self.limits);
        if limits.is_some() {
            return;
        }
        let (orders, received) = mpsc::channel();
        let (ways, again) = (Arc::clone(&self.ways), Arc::clone(&self.again));
        let thread = std::thread::Builder::new()
            .name("power limits".into())
            .spawn(move || keep_limits(places, &received, &ways, &again));
        match thread {
            Ok(thread) => *limits = Some(Limits { orders, thread }),
            Err(error) => {
                tracing::error!(%error, "no thread for power limits");
                // Caps are held without the cards' own limits then.
                lock(&self.ways).get_or_insert_default();
            }
        }
    }

    /// Every card gets its own limit back.
    pub(crate) async fn close(&self) {
        let limits = lock(&self.limits).take();
        if let Some(Limits { orders, thread }) = limits {
            drop(orders);
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }
}

impl Node {
    /// Governs whenever something changed, and when a moment comes. Ends when the node stops.
    pub(crate) async fn keep_governing(self: Arc<Self>) {
        let now = clock::now();
        let today = self.store.day(&now.day()).await.unwrap_or_default();
        self.governing.add_used(now.local().date(), today.energy_mj.unwrap_or_default());
        let mut running = self.slots.shared();
        let mut standing = self.standing.subscribe();
        let mut config = self.config.subscribe();
        loop {
            if self.cards.any() {
                self.governing.start(self.cap_places());
            }
            self.govern();
            let wake = self.governing.decided().wake;
            let later = async {
                match wake {
                    Some(wake) => tokio::time::sleep_until(wake.at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.governing.again.notified() => {}
                _ = running.changed() => {}
                _ = standing.changed() => {}
                _ = config.changed() => {}
                () = later => {}
            }
        }
    }

    /// Where limits are set from.
    pub(crate) fn cap_places(&self) -> CapPlaces {
        self.config().settings().cap_places(self.home.data.clone())
    }

    /// Takes a slot of a service for a network's request, where the cap leaves one.
    pub(crate) fn admit(
        self: &Arc<Self>,
        service: &str,
        slots: u32,
        whose: For,
    ) -> Result<Slot, RefusalCode> {
        // Held until it is charged, so that two requests are not let in on the same energy.
        let mut governor = lock(&self.governing.governor);
        if self.slots.busy(service) >= self.governing.leaves(service, slots) {
            return Err(RefusalCode::Busy);
        }
        let slot = self.slots.take(service, slots, whose).ok_or(RefusalCode::Busy)?;
        self.govern_with(&mut governor);
        Ok(slot)
    }

    /// Slots of a service that a network's request could have now.
    pub(crate) fn free_slots(&self, service: &str, slots: u32) -> u32 {
        let left = self.governing.leaves(service, slots).saturating_sub(self.slots.busy(service));
        self.slots.free(service, slots).min(left)
    }

    fn govern(&self) {
        self.govern_with(&mut lock(&self.governing.governor));
    }

    fn govern_with(&self, governor: &mut MutexGuard<'_, Governor>) {
        // Milliseconds after the start: what could hold a cap is not known, and nothing is let in yet.
        if self.cards.any() && lock(&self.governing.ways).is_none() {
            return;
        }
        let config = self.config();
        let settings = config.settings();
        let ways = self.governing.ways();
        let own_use = self.own_use_lasts();
        let lowered = self.standing.borrow().decision.lowered.is_some();
        let cards: Vec<Card> = self
            .cards
            .latest()
            .into_iter()
            .map(|reading| {
                // A card that does not share is left with its own limit, and counts for the machine's cap only.
                let on = settings.is_on(&reading.id);
                let cap = settings.cap.of(&reading.id, reading.default_limit).filter(|_| on);
                Card {
                    cap: cap.map(|cap| if lowered { part(cap, settings.active_cap) } else { cap }),
                    settable: on && ways.get(&reading.id).is_some_and(Result::is_ok),
                    own_use,
                    reading,
                }
            })
            .collect();
        let own = settings.managed.model.is_some().then_some(settings.managed.port);
        let services = self.services.governed(&self.slots, own, self.own_server.running().is_some());
        let inputs = Inputs {
            cards: &cards,
            services: &services,
            sharing: self.standing.borrow().accepts(),
            used: *lock(&self.governing.used),
        };
        let limits = Settings {
            machine_cap: settings.machine_cap,
            thermal: settings.policy.thermal.clone(),
            hot_spot_limit_c: settings.hot_spot_c,
            fan_limit: settings.fan_limit,
            quiet_hours: settings.quiet_hours.clone(),
            daily_energy: settings.daily_energy,
        };
        let mut decision = governor.decide(&limits, &inputs, &clock::now());
        self.close_off(settings, &inputs, &mut decision);
        for effect in &decision.effects {
            self.carry_out(effect.clone());
        }
        let on: Vec<Card> = cards.iter().filter(|it| settings.is_on(&it.reading.id)).cloned().collect();
        self.claim(&on, inputs.sharing);
        let asleep = cards.iter().filter(|it| it.reading.asleep).map(|it| it.reading.id.clone()).collect();
        let before = std::mem::replace(&mut *lock(&self.governing.asleep), asleep);
        if before != *lock(&self.governing.asleep) {
            self.governing.order(Order::Look);
        }
        let before = self.governing.decided.send_replace(decision);
        let now = self.governing.decided();
        let slots =
            |it: &Decision| it.services.iter().map(|it| (it.service.clone(), it.slots)).collect::<Vec<_>>();
        let kinds = |it: &Decision| {
            it.services
                .iter()
                .map(|it| it.refusal.and_then(PowerStop::of).map(|it| it.code()))
                .collect::<Vec<_>>()
        };
        if kinds(&before) != kinds(&now) {
            self.redecide.notify_one();
        }
        if slots(&before) != slots(&now) {
            drop(now);
            self.offer_changed();
        }
    }

    /// Nothing starts, and nothing goes on, on a card that does not share.
    fn close_off(&self, settings: &config::Settings, inputs: &Inputs<'_>, decision: &mut Decision) {
        let cards = || inputs.cards.iter().map(|it| it.reading.id.as_str());
        for (service, admission) in inputs.services.iter().zip(&mut decision.services) {
            if cards().any(|card| !settings.is_on(card) && service.place.covers(card)) {
                (admission.slots, admission.next) = (0, None);
                admission.refusal = Some(Refusal::Off);
                if service.running > 0 {
                    decision.effects.push(Effect::Cut { service: service.id.clone(), why: Refusal::Off });
                }
            }
        }
    }

    /// A card that takes no limit, or needs none, is governed all the same, by one engine only.
    fn claim(&self, cards: &[Card], sharing: bool) {
        let mut claimed = lock(&self.governing.claimed);
        for card in cards {
            let id = &card.reading.id;
            if sharing && claimed.insert(id.clone()) {
                self.governing.order(Order::Claim { card: id.clone() });
            } else if !sharing && claimed.remove(id) {
                self.governing.order(Order::Set { card: id.clone(), limit: None });
            }
        }
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::SetLimit { card, limit } => {
                if limit.is_none() {
                    // The claim goes with the limit.
                    lock(&self.governing.claimed).remove(&card);
                }
                self.governing.order(Order::Set { card, limit });
            }
            // Ten times a second: not worth a line in a log.
            Effect::Stop { .. } => {
                if let Some(managed) = self.own_server.running() {
                    managed.hold();
                }
            }
            Effect::Continue { .. } => {
                if let Some(managed) = self.own_server.running() {
                    managed.go_on();
                }
            }
            Effect::Cut { service, why } => {
                let ended = self.slots.take_back_from(&service);
                tracing::info!(%service, ?why, requests = ended, "the cap ends shared requests");
            }
        }
    }
}

/// So many percent of a power.
const fn part(power: Milliwatts, percent: u32) -> Milliwatts {
    Milliwatts(power.0 / 100 * percent as i64)
}

/// Talks to drivers and the helper until nobody gives orders any more; then every card gets its own limit back.
fn keep_limits(
    mut places: CapPlaces,
    orders: &mpsc::Receiver<Order>,
    ways: &Mutex<Option<Ways>>,
    again: &Notify,
) {
    let mut caps = Caps::new(&places);
    let (mut held, mut claims) = (BTreeSet::new(), BTreeSet::new());
    let refused = |card: String, error: CapError| {
        tracing::warn!(%card, %error, "the card's limit is not held");
        lock(ways).get_or_insert_default().insert(card, Err(error));
        again.notify_one();
    };
    let look = |caps: &mut Caps, claims: &BTreeSet<String>| {
        for card in claims {
            // Whoever had it may be gone. Who has it still is told as the way.
            drop(caps.claim(card));
        }
        let found: Ways = caps.cards().into_iter().map(|it| (it.card.id, it.way)).collect();
        let before = lock(ways).replace(found.clone());
        if before.as_ref() != Some(&found) {
            again.notify_one();
        }
        Instant::now() + LOOKED
    };
    let mut look_at = look(&mut caps, &claims);
    loop {
        let until_look = look_at.saturating_duration_since(Instant::now());
        // While nothing is held, nobody is asked for anything.
        let wait = if held.is_empty() { until_look } else { until_look.min(KEPT) };
        match orders.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                for (card, error) in caps.keep() {
                    refused(card, error);
                }
                if look_at <= Instant::now() {
                    look_at = look(&mut caps, &claims);
                }
            }
            Ok(Order::Set { card, limit: Some(limit) }) => match caps.set(&card, limit) {
                Ok(applied) => {
                    tracing::info!(%card, limit_mw = applied.0, "the card holds the cap");
                    held.insert(card);
                }
                Err(error) => refused(card, error),
            },
            Ok(Order::Set { card, limit: None }) => {
                held.remove(&card);
                claims.remove(&card);
                match caps.restore(&card) {
                    Ok(()) => tracing::info!(%card, "the card has its own limit"),
                    Err(error) => refused(card, error),
                }
            }
            Ok(Order::Claim { card }) => {
                claims.insert(card.clone());
                if let Err(error) = caps.claim(&card) {
                    refused(card, error);
                }
            }
            Ok(Order::Places(other)) if other != places => {
                places = other;
                held.clear();
                // The old ones give every card its limit back first.
                drop(caps);
                caps = Caps::new(&places);
                look_at = look(&mut caps, &claims);
            }
            Ok(Order::Places(_)) => {}
            Ok(Order::Look) => look_at = look(&mut caps, &claims),
        }
    }
}
