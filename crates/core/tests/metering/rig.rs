//! A simulated card, a meter that reads it ten times a second, and the moments at which it does.

use std::time::{Duration, Instant};

use idlewatt_core::device::{GpuReading, Power};
use idlewatt_core::meter::{Meter, Place, Purpose, Task, Tokens};
use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Millijoules, Milliwatts, RequestId};
use idlewatt_simgpu::{Card, Physics, Random, Sensing};

pub(crate) const CARD: &str = "GPU-a";

/// Two changes closer together than this share one reading, as in the engine, s.
const FRESH: f64 = 0.02;

/// Mean time between readings while a card answers, s, and by how large a part of it each may be early or late: as in
/// the engine.
const PACE: f64 = 0.1;
const SPREAD: f64 = 0.4;

/// What the card tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    Both,
    Counter,
    Power,
    /// Power, averaged over a second.
    Averaged,
}

pub(crate) struct Rig {
    pub(crate) card: Card,
    pub(crate) meter: Meter,
    sees: Sees,
    start: Instant,
    read_at: f64,
    read_last: f64,
    jitter: Random,
}

/// Sensors as cards have them: 20 to 100 ms apart, some noise.
pub(crate) fn sensing(random: &mut Random) -> Sensing {
    Sensing {
        refresh_s: random.within(0.02, 0.1),
        counter_refresh_s: random.within(0.02, 0.1),
        phase: random.unit(),
        lag_s: random.within(0.0, 0.01),
        noise_w: random.within(0.5, 8.0),
        seed: random.bits(),
        ..Sensing::default()
    }
}

pub(crate) fn physics(random: &mut Random) -> Physics {
    Physics { tau_s: random.within(0.005, 0.04), ..Physics::default() }
}

impl Rig {
    /// A card with a model loaded, observed for 20 s while it did nothing.
    pub(crate) fn new(random: &mut Random, idle_w: f64, limit_w: f64, sees: Sees) -> Self {
        let card = Card::new(0.0, idle_w, limit_w, physics(random), sensing(random));
        let mut meter = Meter::default();
        meter.set_purpose(Purpose::Waiting(place()), true);
        let jitter = Random::new(random.bits());
        let mut rig =
            Self { card, meter, sees, start: Instant::now(), read_at: 0.0, read_last: f64::MIN, jitter };
        rig.run_to(20.0);
        rig.meter.take();
        rig
    }

    pub(crate) fn now(&self) -> f64 {
        self.card.truth().at
    }

    pub(crate) fn instant(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.now())
    }

    /// Lets time pass and reads ten times a second, now and then late.
    pub(crate) fn run_to(&mut self, at: f64) {
        while self.read_at <= at {
            self.card.run_to(self.read_at);
            self.read();
            let late = if self.jitter.chance(0.01) { self.jitter.within(0.0, 0.05) } else { 0.0 };
            let pace = PACE * self.jitter.within(1.0 - SPREAD, 1.0 + SPREAD);
            self.read_at += pace + self.jitter.within(0.0, 0.004) + late;
        }
        self.card.run_to(at);
    }

    pub(crate) fn reading(&self) -> GpuReading {
        let milli = |it: f64| (it * 1e3).round() as i64;
        let power = |value: f64, averaged| Some(Power { value: Milliwatts(milli(value)), averaged });
        GpuReading {
            power: match self.sees {
                Sees::Both | Sees::Power => power(self.card.instant_power_w(), false),
                Sees::Averaged => power(self.card.averaged_power_w(), true),
                Sees::Counter => None,
            },
            energy: matches!(self.sees, Sees::Both | Sees::Counter)
                .then(|| Millijoules(milli(self.card.counter_j()))),
            limit: Some(Milliwatts(milli(self.card.limit()))),
            ..GpuReading::silent(CARD, "simulated", self.instant())
        }
    }

    pub(crate) fn read(&mut self) {
        self.read_last = self.now();
        self.meter.read(&self.reading());
    }

    /// Reads before something begins or ends, unless that was done a moment ago.
    fn read_at_edge(&mut self) {
        if self.now() - self.read_last >= FRESH {
            self.read();
        }
    }

    /// Reads and begins, as the engine does.
    pub(crate) fn begin(&mut self, id: u64) {
        self.read_at_edge();
        let at = self.instant();
        self.meter.begin(request(id), Task { service: "a model".into(), place: place(), own: false }, at);
    }

    pub(crate) fn progress(&mut self, id: u64, prompt: u32, cached: u32, completion: u32) {
        self.meter.progress(request(id), Tokens { prompt, cached, completion });
    }

    pub(crate) fn end(&mut self, id: u64) -> Energy {
        self.read_at_edge();
        let at = self.instant();
        self.meter.end(request(id), at)
    }
}

pub(crate) fn request(id: u64) -> RequestId {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    RequestId(bytes)
}

pub(crate) fn place() -> Place {
    Place::Cards(vec![CARD.into()])
}
