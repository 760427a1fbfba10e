//! The cards in real time, as the control file steers them; their physics is `idlewatt-simgpu`'s.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idlewatt_simgpu::card::Moment;
use idlewatt_simgpu::{self as simgpu, Physics, Sensing};

use crate::control::{self, CardControl, Control, Fault};

/// Resolution of the record of the truth, s.
const STEP: f64 = 0.01;

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
    physics: simgpu::Card,
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
                Some(card) => card.steer(control.clone()),
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
                    moment.power_w * 1e3,
                    moment.energy_j * 1e3,
                    moment.temperature_c * 1e3
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
        let (load, limit) = (control.load_w, control.limit_w.into());
        let physics = simgpu::Card::new(now(), load, limit, control.physics(), control.sensing());
        Self { control, physics }
    }

    fn steer(&mut self, control: CardControl) {
        self.physics.set_load(control.load_w);
        self.physics.set_limit(control.limit_w.into());
        self.physics.physics = control.physics();
        self.physics.sensing = control.sensing();
        self.control = control;
    }

    fn run_to(&mut self, until: f64, mut tell: impl FnMut(Moment)) {
        // A long time unasked is told coarsely.
        let step = STEP.max((until - self.physics.truth().at) / 10_000.0);
        while self.physics.truth().at + step <= until {
            self.physics.run_to(self.physics.truth().at + step);
            tell(self.physics.truth());
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
        (self.physics.instant_power_w() * 1e3).round() as u32
    }

    /// mW, as `nvmlDeviceGetPowerUsage` tells it on Ampere and newer.
    pub(crate) fn averaged_power(&self) -> u32 {
        (self.physics.averaged_power_w() * 1e3).max(0.0).round() as u32
    }

    /// mJ
    pub(crate) fn counter(&self) -> u64 {
        (self.physics.counter_j() * 1e3) as u64
    }

    /// °C
    pub(crate) fn temperature(&self) -> u32 {
        self.physics.truth().temperature_c.max(0.0).round() as u32
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
}

fn now() -> f64 {
    seconds(SystemTime::now())
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs_f64()
}

impl CardControl {
    fn physics(&self) -> Physics {
        Physics {
            tau_s: self.tau_ms / 1e3,
            ambient_c: self.ambient_c,
            c_per_w: self.c_per_w,
            heat_s: self.heat_s,
            ..Physics::default()
        }
    }

    fn sensing(&self) -> Sensing {
        let refresh_s = self.refresh_ms.max(1) as f64 / 1e3;
        Sensing {
            refresh_s,
            counter_refresh_s: refresh_s,
            lag_s: self.lag_ms as f64 / 1e3,
            noise_w: self.noise_mw / 1e3,
            seed: self.seed,
            counter_gain: self.counter_gain,
            ..Sensing::default()
        }
    }
}
