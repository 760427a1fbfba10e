//! The cards while the node runs: how often they are read, what is kept of it, and the meter that it feeds.
//!
//! Observing must not cost: a machine without a card is asked for one once a minute, a paused one is read every five
//! seconds, an answering one ten times a second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatt_control::{EnergySplit, Event, Gpu, Sample};
use idlewatt_core::device::{GpuReading, Temperature};
use idlewatt_core::meter::{Baselines, Meter, Place, Purpose, Split, Task, Tokens};
use idlewatt_core::policy::{Cause, Reason, THERMAL_HYSTERESIS_C};
use idlewatt_devices::{Finding, Places, Sensors, may_serve, serving};
use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Label, Milliwatts, RequestId, Usage};
use idlewatt_store::{EnergyInterval, SessionId};

use crate::clock;
use crate::config::Settings;
use crate::node::{Node, lock};

const NO_CARD: Duration = Duration::from_secs(60);
const PAUSED: Duration = Duration::from_secs(5);
const READY: Duration = Duration::from_secs(1);
const ANSWERING: Duration = Duration::from_millis(100);

/// Readings are kept and shown at most this often.
const KEPT: Duration = Duration::from_secs(1);

/// Two changes closer together than this share one reading.
const FRESH: Duration = Duration::from_millis(20);

/// The stretch over which a peak is told.
const PEAK: Duration = Duration::from_secs(10);

/// A card holds less than this for itself, bytes: with more in use, somebody uses it.
pub(crate) const UNCLAIMED: u64 = 1 << 30;

/// What is known of the cards.
pub(crate) struct Cards {
    sensors: Arc<Mutex<Sensors>>,
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    latest: Vec<GpuReading>,
    read_at: Option<Instant>,
    kept_at: Option<Instant>,
    meter: Meter,
    powers: VecDeque<(Instant, i64)>,
    peak: Option<Milliwatts>,
    /// The day on which old readings were thinned last.
    thinned: String,
    /// How often each sensor's figure was seen to change; `None` before anybody wanted to know.
    periods: Option<BTreeMap<String, Duration>>,
}

impl Cards {
    pub(crate) fn new(places: &Places) -> Self {
        Self { sensors: Arc::new(Mutex::new(Sensors::new(places))), state: Mutex::default() }
    }

    /// Looks with another library or root from now on.
    pub(crate) fn look_in(&self, places: &Places) {
        *lock(&self.sensors) = Sensors::new(places);
        let mut seen = lock(&self.state);
        seen.latest.clear();
        // What was read a moment ago was read elsewhere.
        seen.read_at = None;
    }

    /// Of the cards that share.
    pub(crate) fn temperatures(&self, settings: &Settings) -> Vec<Temperature> {
        let state = lock(&self.state);
        let on = state.latest.iter().filter(|it| settings.is_on(&it.id));
        on.filter_map(|it| Some(Temperature { card: it.id.clone(), celsius: it.temperature_c? })).collect()
    }

    /// Power of all cards now, where any tells.
    pub(crate) fn power(&self) -> Option<Milliwatts> {
        power(&lock(&self.state).latest)
    }

    pub(crate) fn views(&self) -> Vec<Gpu> {
        lock(&self.state).latest.iter().map(view).collect()
    }

    /// Each card as read last.
    pub(crate) fn latest(&self) -> Vec<GpuReading> {
        lock(&self.state).latest.clone()
    }

    /// Every power sensor.
    pub(crate) fn sensors(&self) -> Arc<Mutex<Sensors>> {
        Arc::clone(&self.sensors)
    }

    /// What is known of each card's power, by its id.
    pub(crate) fn baselines(&self) -> BTreeMap<String, Baselines> {
        lock(&self.state).meter.baselines()
    }

    /// Whether it is still to be watched how often sensors change. Once a run: the first who asks is to do it.
    pub(crate) fn wants_refresh(&self) -> bool {
        let mut state = lock(&self.state);
        let wanted = state.periods.is_none();
        state.periods.get_or_insert_default();
        wanted
    }

    /// How often sensors were seen to change.
    pub(crate) fn refreshes(&self, periods: BTreeMap<String, Duration>) {
        lock(&self.state).periods = Some(periods);
    }

    /// How often sensors were seen to change.
    pub(crate) fn periods(&self) -> BTreeMap<String, Duration> {
        lock(&self.state).periods.clone().unwrap_or_default()
    }

    /// For `doctor`; blocks for milliseconds.
    pub(crate) async fn findings(&self) -> Vec<Finding> {
        let sensors = Arc::clone(&self.sensors);
        tokio::task::spawn_blocking(move || lock(&sensors).gpus().findings()).await.unwrap_or_default()
    }

    /// Reads every card, unless that was done a moment ago.
    pub(crate) async fn read(&self) {
        let recent = |it: Instant| it.elapsed() < FRESH;
        if lock(&self.state).read_at.is_some_and(recent) {
            return;
        }
        let sensors = Arc::clone(&self.sensors);
        let Ok(readings) = tokio::task::spawn_blocking(move || lock(&sensors).gpus().read()).await else {
            return;
        };
        let mut seen = lock(&self.state);
        let mut latest = Vec::with_capacity(readings.len());
        for reading in readings {
            match reading {
                Ok(reading) => {
                    seen.meter.read(&reading);
                    latest.push(reading);
                }
                Err(error) => {
                    tracing::warn!(card = %error.id, lost = error.lost, %error, "a card was not read")
                }
            }
        }
        let now = Instant::now();
        seen.latest = latest;
        seen.read_at = Some(now);
        seen.note_peak(now);
    }

    /// Reads before something begins or ends, where there is a card to read.
    pub(crate) async fn read_for_meter(&self) {
        if !lock(&self.state).latest.is_empty() {
            self.read().await;
        }
    }

    pub(crate) fn request_began(&self, id: RequestId, task: Task, at: Instant) {
        lock(&self.state).meter.begin(id, task, at);
    }

    /// `cached` prompt tokens were known from before and cost nothing.
    pub(crate) fn request_went_on(&self, id: RequestId, usage: Usage, cached: u32) {
        let tokens =
            Tokens { prompt: usage.prompt.saturating_sub(cached), cached, completion: usage.completion };
        lock(&self.state).meter.progress(id, tokens);
    }

    pub(crate) fn request_ended(&self, id: RequestId, at: Instant) -> Energy {
        lock(&self.state).meter.end(id, at)
    }

    /// A plug says what the whole machine draws, at the moment at which the cards were read last.
    pub(crate) fn calibrate(&self, wall: Milliwatts) {
        lock(&self.state).meter.calibrate(wall);
    }

    /// On which cards the server that listens on this port of this machine computes.
    pub(crate) async fn under(&self, port: u16) -> Place {
        let sensors = Arc::clone(&self.sensors);
        let look = move || Some((serving(port)?, lock(&sensors).gpus().processes()));
        let Ok(Some((server, users))) = tokio::task::spawn_blocking(look).await else {
            return Place::Anywhere;
        };
        let mut cards: Vec<String> =
            users.iter().filter(|it| server.contains(&it.pid)).map(|it| it.gpu.clone()).collect();
        cards.sort();
        cards.dedup();
        let used = lock(&self.state).latest.iter().filter_map(|it| it.vram_used).max();
        match cards.is_empty() {
            false => Place::Cards(cards),
            // In a container, and on some systems, a driver names nobody.
            true if users.is_empty() && used > Some(UNCLAIMED) => Place::Anywhere,
            true => Place::Elsewhere,
        }
    }

    /// The processes of the server that listens on this port of this machine; none where that cannot be seen.
    pub(crate) async fn processes_of(&self, port: u16) -> BTreeSet<u32> {
        tokio::task::spawn_blocking(move || may_serve(port)).await.unwrap_or_default()
    }

    /// VRAM that these processes hold of all cards, bytes; `None` where no driver tells.
    pub(crate) async fn held_by(&self, processes: &BTreeSet<u32>) -> Option<u64> {
        if !self.any() {
            return None;
        }
        let (sensors, processes) = (Arc::clone(&self.sensors), processes.clone());
        let look = move || {
            let users = lock(&sensors).gpus().processes();
            users.iter().filter(|it| processes.contains(&it.pid)).map(|it| it.vram).sum::<Option<u64>>()
        };
        tokio::task::spawn_blocking(look).await.ok()?
    }

    pub(crate) fn start_session(&self) {
        lock(&self.state).peak = None;
    }

    /// The session's peak over ten seconds.
    pub(crate) fn end_session(&self) -> Option<Milliwatts> {
        lock(&self.state).peak.take()
    }

    pub(crate) fn any(&self) -> bool {
        !lock(&self.state).latest.is_empty()
    }

    /// Whether it is time to keep a reading.
    fn is_due(&self) -> bool {
        let mut seen = lock(&self.state);
        let due = seen.kept_at.is_none_or(|at| at.elapsed() >= KEPT);
        if due {
            seen.kept_at = Some(Instant::now());
        }
        due
    }

    fn take_split(&self) -> Split {
        lock(&self.state).meter.take()
    }
}

impl Seen {
    fn note_peak(&mut self, now: Instant) {
        let Some(power) = power(&self.latest) else { return };
        self.powers.push_back((now, power.0));
        let mut whole = false;
        while self.powers.front().is_some_and(|(at, _)| now.duration_since(*at) > PEAK) {
            self.powers.pop_front();
            whole = true;
        }
        let count = i64::try_from(self.powers.len()).unwrap_or(i64::MAX);
        if whole && count > 0 {
            let mean = self.powers.iter().map(|(_, power)| power).sum::<i64>() / count;
            self.peak = self.peak.max(Some(Milliwatts(mean)));
        }
    }
}

impl Node {
    /// Reads the cards as often as what happens asks for. Ends when the node stops.
    pub(crate) async fn keep_reading(self: Arc<Self>) {
        let mut running = self.slots.shared();
        let mut standing = self.standing.subscribe();
        loop {
            self.cards.read().await;
            self.governing.again.notify_one();
            self.look_at_others().await;
            self.note_readings();
            let pause = self.pace();
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.reread.notified() => {}
                // A machine without cards has nothing to read faster.
                _ = running.changed(), if self.cards.any() => {}
                _ = standing.changed(), if self.cards.any() => {}
            }
        }
    }

    fn pace(&self) -> Duration {
        if !self.cards.any() {
            NO_CARD
        } else if *self.slots.shared().borrow() > 0 {
            // In step with a server's own rhythm, readings would see the same part of it again and again.
            ANSWERING.mul_f64(rand::random_range(0.6..1.4))
        } else if self.standing.borrow().accepts() {
            READY
        } else {
            PAUSED
        }
    }

    /// What was read goes to the policy, the disk and the screens.
    fn note_readings(self: &Arc<Self>) {
        let accepts = self.standing.borrow().accepts();
        let warm = self.services.warm_on();
        let loaded = warm != Place::Elsewhere;
        let purpose = if accepts && loaded { Purpose::Waiting(warm) } else { Purpose::Host };
        lock(&self.cards.state).meter.set_purpose(purpose, loaded);
        if !self.cards.any() || !self.cards.is_due() {
            return;
        }
        let config = self.config();
        let limits = &config.settings().policy.thermal;
        let hot = |it: &Temperature| it.celsius + THERMAL_HYSTERESIS_C >= limits.of(&it.card);
        let is_said = |it: &Reason| matches!(it.cause, Cause::TooHot { .. });
        let said = self.standing.borrow().decision.reasons.iter().any(is_said);
        if said || self.cards.temperatures(config.settings()).iter().any(hot) {
            self.decide();
        }
        let now = clock::now();
        let (at, running) = (now.unix(), *self.slots.shared().borrow());
        let sample = |it: Gpu| Sample {
            at,
            gpu: it.id,
            power_mw: it.power_mw,
            cap_mw: it.cap_mw,
            temperature_c: it.temperature_c,
            running,
        };
        let samples: Vec<Sample> = self.gpu_views().into_iter().map(sample).collect();
        if self.events.receiver_count() > 0 {
            samples.iter().for_each(|it| self.tell(Event::Sample(it.clone())));
        }
        drop(self.store.add_samples(samples));
        let (day, session) = (now.day(), self.standing.borrow().session);
        let thinned = std::mem::replace(&mut lock(&self.cards.state).thinned, day.clone());
        if thinned != day {
            drop(self.store.thin_samples(now.unix()));
        }
        self.keep_energy(session, day);
        self.shown.notify_one();
    }

    /// Adds what the meter found to the day.
    pub(crate) fn keep_energy(&self, session: Option<SessionId>, day: String) {
        let split = self.cards.take_split();
        if split.shared().0 == 0 {
            return;
        }
        let at = clock::now().unix();
        self.governing.add_used(clock::now().local().date(), split.shared());
        let cost = self.cost_of(split.shared(), at, at);
        drop(self.store.add_energy(EnergyInterval {
            day,
            session,
            split: EnergySplit { answering: split.answering, waiting: split.waiting, awake: split.awake },
            label: split.label,
            cost,
        }));
    }
}

fn power(readings: &[GpuReading]) -> Option<Milliwatts> {
    let powers = readings.iter().filter_map(|it| it.power.map(|it| it.value));
    powers.reduce(|sum, power| sum + power)
}

fn view(reading: &GpuReading) -> Gpu {
    Gpu {
        id: reading.id.clone(),
        name: reading.name.clone(),
        power_mw: reading.power.map(|it| it.value),
        // What the card itself keeps to; what else holds it is the governor's to say.
        cap_mw: reading.limit,
        vram_used: reading.vram_used,
        vram_total: reading.vram_total,
        temperature_c: reading.temperature_c,
        label: if reading.power.is_some() { Label::Measured } else { Label::Unknown },
    }
}

#[cfg(test)]
mod tests;
