//! The cards in real time, as the control file steers them; their physics is `idlewatt-simgpu`'s.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idlewatt_simgpu::card::Moment;
use idlewatt_simgpu::{self as simgpu, Physics, Sensing};

use crate::control::{self, CardControl, Control, Fault};
use crate::rig::RIGHT;
use crate::state::{CardState, Keeper, State};

/// Resolution of the record of the truth, s.
const STEP: f64 = 0.01;

pub(crate) struct Sim {
    pub(crate) control: Control,
    pub(crate) cards: Vec<Card>,
    pub(crate) users: u32,
    /// Which loading of the driver this process uses.
    pub(crate) loaded: u64,
    path: Option<PathBuf>,
    /// The control file as last read.
    seen: Option<Vec<u8>>,
    keeper: Keeper,
    state: State,
    truth: Option<File>,
}

pub(crate) struct Card {
    pub(crate) control: CardControl,
    physics: simgpu::Card,
    counted_from_j: f64,
}

impl Sim {
    pub(crate) fn start() -> Self {
        let path = control::path();
        Self {
            control: Control::default(),
            cards: Vec::new(),
            users: 0,
            loaded: 0,
            truth: path.as_ref().and_then(|path| record(path.with_extension("csv"))),
            keeper: Keeper::beside(path.as_deref()),
            path,
            seen: None,
            state: State::default(),
        }
    }

    /// Brings every card up to now. A new control file holds from the moment at which it was written.
    pub(crate) fn advance(&mut self) {
        if let Some(state) = self.keeper.changed() {
            self.adopt(state);
        }
        let text = self.path.as_ref().and_then(|path| fs::read(path).ok()).unwrap_or_default();
        if self.seen.as_ref() != Some(&text) {
            let written = self.path.as_ref().and_then(|path| fs::metadata(path).ok()?.modified().ok());
            self.take_control(&text, written.map_or_else(now, seconds));
            self.seen = Some(text);
        }
        self.run_to(now());
    }

    /// Whether this process uses the driver that is loaded now.
    pub(crate) fn is_loaded(&self) -> bool {
        self.users > 0 && self.loaded == self.control.driver_loads
    }

    /// Sets a card's limit, for every process that looks.
    pub(crate) fn set_limit(&mut self, index: usize, limit_mw: u32) -> Result<(), u32> {
        const INVALID_ARGUMENT: u32 = 2;
        let control = &self.cards[index].control;
        let [min, max] = control.limit_range_w;
        if self.control.needs_right && std::env::var_os(RIGHT).is_none() {
            return Err(Fault::NoPermission.code());
        }
        if !(min * 1000..=max * 1000).contains(&limit_mw) {
            return Err(INVALID_ARGUMENT);
        }
        let uuid = control.uuid.clone();
        let _turn = self.keeper.turn();
        if let Some(state) = self.keeper.changed() {
            self.adopt(state);
        }
        self.run_to(now());
        let card = &mut self.cards[index];
        card.physics.set_limit(f64::from(limit_mw) / 1e3);
        if let Some(state) = self.state.cards.get_mut(&uuid) {
            state.limit_mw = limit_mw;
            state.note(card.physics.truth());
        }
        self.keeper.keep(&self.state);
        Ok(())
    }

    /// What another process did to the cards.
    fn adopt(&mut self, state: State) {
        for card in &mut self.cards {
            if let Some(state) = state.cards.get(&card.control.uuid) {
                card.run_to(state.at, |_| {});
                card.take(state);
            }
        }
        self.state = state;
    }

    fn take_control(&mut self, text: &[u8], written: f64) {
        let _turn = self.keeper.turn();
        if let Some(state) = self.keeper.changed() {
            self.adopt(state);
        }
        self.run_to(written);
        match serde_json::from_slice(text) {
            Ok(control) => self.control = control,
            // No file: the default card.
            Err(_) if text.is_empty() => {}
            Err(error) => eprintln!("simnvml: the control file is not used: {error}"),
        }
        let is_news = written > self.state.control;
        let reloaded = self.control.driver_loads > self.state.driver_loads;
        self.cards.truncate(self.control.cards.len());
        for (index, control) in self.control.cards.iter().enumerate() {
            let known = self.state.cards.get(&control.uuid).cloned();
            let mut state = known.clone().unwrap_or_else(|| CardState::of(control));
            if is_news && state.steered_w != control.limit_w {
                (state.steered_w, state.limit_mw) = (control.limit_w, control.limit_w * 1000);
            }
            match self.cards.get_mut(index) {
                Some(card) if card.control.uuid == control.uuid => card.steer(control),
                Some(card) => *card = Card::new(control, &state),
                None => self.cards.push(Card::new(control, &state)),
            }
            let card = &mut self.cards[index];
            if is_news || known.is_none() {
                card.run_to(written, |_| {});
                state.note(card.physics.truth());
                if reloaded {
                    state.limit_mw = control.default_limit_w * 1000;
                    state.counted_from_j = state.energy_j;
                }
            }
            card.take(&state);
            self.state.cards.insert(control.uuid.clone(), state);
        }
        if is_news {
            (self.state.control, self.state.driver_loads) = (written, self.control.driver_loads);
            self.keeper.keep(&self.state);
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

/// The record of the truth, where this process writes it: the first without a right does, so that a helper, which looks
/// seldom, does not.
fn record(path: PathBuf) -> Option<File> {
    let file = OpenOptions::new().create(true).append(true).open(path).ok()?;
    (std::env::var_os(RIGHT).is_none() && file.try_lock().is_ok()).then_some(file)
}

impl CardState {
    /// A card that has had its load for long.
    fn of(control: &CardControl) -> Self {
        let (load, limit) = (control.load_w, control.limit_w.into());
        let card = simgpu::Card::new(now(), load, limit, control.physics(), control.sensing());
        let Moment { at, power_w, energy_j, temperature_c } = card.truth();
        Self {
            limit_mw: control.limit_w * 1000,
            steered_w: control.limit_w,
            at,
            power_w,
            energy_j,
            temperature_c,
            counted_from_j: 0.0,
        }
    }
}

impl Card {
    fn new(control: &CardControl, state: &CardState) -> Self {
        let (physics, sensing) = (control.physics(), control.sensing());
        let limit_w = f64::from(state.limit_mw) / 1e3;
        let physics = simgpu::Card::resume(state.moment(), control.load_w, limit_w, physics, sensing);
        Self { control: control.clone(), physics, counted_from_j: state.counted_from_j }
    }

    fn steer(&mut self, control: &CardControl) {
        self.physics.set_load(control.load_w);
        self.physics.physics = control.physics();
        self.physics.sensing = control.sensing();
        self.control = control.clone();
    }

    fn take(&mut self, state: &CardState) {
        self.physics.set_limit(f64::from(state.limit_mw) / 1e3);
        self.counted_from_j = state.counted_from_j;
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

    /// mW
    pub(crate) fn limit(&self) -> u32 {
        (self.physics.limit() * 1e3).round() as u32
    }

    /// mW, as field 186 tells it.
    pub(crate) fn instant_power(&self) -> u32 {
        (self.physics.instant_power_w() * 1e3).round() as u32
    }

    /// mW, as `nvmlDeviceGetPowerUsage` tells it on Ampere and newer.
    pub(crate) fn averaged_power(&self) -> u32 {
        (self.physics.averaged_power_w() * 1e3).max(0.0).round() as u32
    }

    /// mJ since the driver was loaded.
    pub(crate) fn counter(&self) -> u64 {
        let counted_from = self.counted_from_j * self.control.counter_gain;
        ((self.physics.counter_j() - counted_from).max(0.0) * 1e3) as u64
    }

    /// °C
    pub(crate) fn temperature(&self) -> u32 {
        self.physics.truth().temperature_c.max(0.0).round() as u32
    }

    /// °C
    pub(crate) fn memory_temperature(&self) -> u32 {
        self.physics.hot_spot_c().max(0.0).round() as u32
    }

    /// Percent
    pub(crate) fn fan(&self) -> u32 {
        self.physics.fan_percent().round() as u32
    }

    /// Percent
    pub(crate) fn utilisation(&self) -> u32 {
        let by_load = self.control.load_w / self.physics.limit().max(1.0);
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
