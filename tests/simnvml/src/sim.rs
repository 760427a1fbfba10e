//! The cards' physics, in double precision and real time.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::control::{self, CardControl, Control, Fault};

/// Resolution of the truth, s.
const STEP: f64 = 0.01;
/// How far sensors can look back, s.
const HISTORY: f64 = 3.0;
/// What `nvmlDeviceGetPowerUsage` averages over, s.
const AVERAGED: f64 = 1.0;

pub(crate) struct Sim {
    pub(crate) control: Control,
    pub(crate) cards: Vec<Card>,
    pub(crate) users: u32,
    path: Option<PathBuf>,
    /// The control file as last read.
    seen: Option<Vec<u8>>,
    truth: Option<File>,
}

pub(crate) struct Card {
    pub(crate) control: CardControl,
    /// s since 1970.
    at: f64,
    /// W
    power: f64,
    /// J
    energy: f64,
    /// °C
    temperature: f64,
    history: VecDeque<Moment>,
}

#[derive(Clone, Copy)]
struct Moment {
    at: f64,
    power: f64,
    energy: f64,
    temperature: f64,
}

impl Sim {
    pub(crate) fn start() -> Self {
        let path = control::path();
        let truth = path.as_ref().map(|path| path.with_extension("csv"));
        let truth = truth.and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
        Self { control: Control::default(), cards: Vec::new(), users: 0, path, seen: None, truth }
    }

    /// Brings every card up to now. A new control file holds from the moment at which it was written.
    pub(crate) fn advance(&mut self) {
        let text = self.path.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default();
        if self.seen.as_ref() != Some(&text) {
            let written = self.path.as_ref().and_then(|path| fs::metadata(path).ok()?.modified().ok());
            self.run_to(written.map_or_else(now, seconds));
            self.take_control(&text);
            self.seen = Some(text);
        }
        self.run_to(now());
    }

    fn take_control(&mut self, text: &[u8]) {
        match serde_json::from_slice(text) {
            Ok(control) => self.control = control,
            // No file: the default card.
            Err(_) if text.is_empty() => {}
            Err(error) => eprintln!("simnvml: the control file is not used: {error}"),
        }
        self.cards.truncate(self.control.cards.len());
        for (index, control) in self.control.cards.iter().enumerate() {
            match self.cards.get_mut(index) {
                Some(card) => card.control = control.clone(),
                None => self.cards.push(Card::new(control.clone())),
            }
        }
    }

    fn run_to(&mut self, until: f64) {
        let mut lines = String::new();
        for (index, card) in self.cards.iter_mut().enumerate() {
            card.run_to(until, |moment| {
                lines.push_str(&format!(
                    "{:.0},{index},{:.0},{:.0},{:.0}\n",
                    moment.at * 1e6,
                    moment.power * 1e3,
                    moment.energy * 1e3,
                    moment.temperature * 1e3
                ));
            });
        }
        if let Some(file) = &mut self.truth
            && let Err(error) = file.write_all(lines.as_bytes())
        {
            eprintln!("simnvml: the truth is not written: {error}");
            self.truth = None;
        }
    }
}

impl Card {
    fn new(control: CardControl) -> Self {
        let power = control.load_w.min(control.limit_w.into());
        let temperature = control.ambient_c + power * control.c_per_w;
        let moment = Moment { at: now(), power, energy: 0.0, temperature };
        Self { control, at: moment.at, power, energy: 0.0, temperature, history: VecDeque::from([moment]) }
    }

    /// First-order lags, solved exactly over each step: power behind the load, heat behind the power.
    fn run_to(&mut self, until: f64, mut tell: impl FnMut(Moment)) {
        // A long time unasked is told coarsely.
        let step = STEP.max((until - self.at) / 10_000.0);
        while self.at + step <= until {
            let load = self.control.load_w.min(self.control.limit_w.into());
            let tau = (self.control.tau_ms / 1e3).max(1e-6);
            let left = (-step / tau).exp();
            self.energy += load * step + (self.power - load) * tau * (1.0 - left);
            self.power = load + (self.power - load) * left;
            let warm = self.control.ambient_c + self.power * self.control.c_per_w;
            self.temperature = warm + (self.temperature - warm) * (-step / self.control.heat_s).exp();
            self.at += step;
            let moment =
                Moment { at: self.at, power: self.power, energy: self.energy, temperature: self.temperature };
            tell(moment);
            self.history.push_back(moment);
            while self.history.front().is_some_and(|oldest| oldest.at < self.at - HISTORY) {
                self.history.pop_front();
            }
        }
    }

    pub(crate) fn fault(&self, what: &str) -> Result<(), Fault> {
        if self.control.lost {
            return Err(Fault::GpuLost);
        }
        self.control.faults.get(what).map_or(Ok(()), |fault| Err(*fault))
    }

    /// mW, as field 186 tells it.
    pub(crate) fn instant_power(&self) -> u32 {
        let at = self.looked_at();
        let noise = noise(self.control.seed, at) * self.control.noise_mw;
        (self.moment(at).power * 1e3 + noise).max(0.0).round() as u32
    }

    /// mW, as `nvmlDeviceGetPowerUsage` tells it on Ampere and newer.
    pub(crate) fn averaged_power(&self) -> u32 {
        let at = self.looked_at();
        let (now, before) = (self.moment(at), self.moment(at - AVERAGED));
        let time = now.at - before.at;
        let mean = if time > 0.0 { (now.energy - before.energy) / time } else { now.power };
        (mean * 1e3).max(0.0).round() as u32
    }

    /// mJ
    pub(crate) fn counter(&self) -> u64 {
        (self.moment(self.looked_at()).energy * 1e3 * self.control.counter_gain).max(0.0) as u64
    }

    /// °C
    pub(crate) fn temperature(&self) -> u32 {
        self.temperature.max(0.0).round() as u32
    }

    /// Percent
    pub(crate) fn utilisation(&self) -> u32 {
        let by_load = self.control.load_w / f64::from(self.control.limit_w.max(1));
        self.control.utilisation.unwrap_or(if by_load < 0.2 {
            0
        } else {
            (by_load * 100.0).min(100.0) as u32
        })
    }

    /// The moment that the sensors show now: the last refresh, less their lag.
    fn looked_at(&self) -> f64 {
        let refresh = self.control.refresh_ms.max(1) as f64 / 1e3;
        (self.at / refresh).floor() * refresh - self.control.lag_ms as f64 / 1e3
    }

    fn moment(&self, at: f64) -> Moment {
        let oldest = Moment { at, power: self.power, energy: self.energy, temperature: self.temperature };
        let after = self.history.partition_point(|moment| moment.at <= at);
        self.history.get(after.saturating_sub(1)).copied().unwrap_or(oldest)
    }
}

fn now() -> f64 {
    seconds(SystemTime::now())
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

/// −1 to 1, the same for the same seed and moment.
fn noise(seed: u64, at: f64) -> f64 {
    let mut bits = seed ^ (at * 1e3).round().to_bits();
    for factor in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        bits = (bits ^ (bits >> 30)).wrapping_mul(factor);
    }
    ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}
