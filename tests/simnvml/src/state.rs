//! What the cards themselves keep while processes come and go: their limits, and where their physics stood when something
//! last changed. It lies beside the control file, in `simnvml.state`, and every process that loads this library sees it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use idlewatt_simgpu::card::Moment;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// When the control file was written whose changes are in here, s since 1970.
    pub(crate) control: f64,
    pub(crate) driver_loads: u64,
    /// By UUID.
    pub(crate) cards: BTreeMap<String, CardState>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CardState {
    pub(crate) limit_mw: u32,
    /// What the control file said of the limit: a change there sets it.
    pub(crate) steered_w: u32,
    /// Truth when something changed last: s since 1970, W, J, °C.
    pub(crate) at: f64,
    pub(crate) power_w: f64,
    pub(crate) energy_j: f64,
    pub(crate) temperature_c: f64,
    /// The energy at which the driver was loaded, J.
    pub(crate) counted_from_j: f64,
}

impl CardState {
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            at: self.at,
            power_w: self.power_w,
            energy_j: self.energy_j,
            temperature_c: self.temperature_c,
        }
    }

    pub(crate) fn note(&mut self, moment: Moment) {
        let Moment { at, power_w, energy_j, temperature_c } = moment;
        (self.at, self.power_w, self.energy_j, self.temperature_c) = (at, power_w, energy_j, temperature_c);
    }
}

/// Where the state is kept. Without a control file it is this process's own.
pub(crate) struct Keeper {
    path: Option<PathBuf>,
    /// As last read or written.
    seen: Vec<u8>,
}

impl Keeper {
    pub(crate) fn beside(control: Option<&Path>) -> Self {
        Self { path: control.map(|path| path.with_extension("state")), seen: Vec::new() }
    }

    /// Keeps other processes from changing the state until it is dropped.
    pub(crate) fn turn(&self) -> Option<File> {
        let path = self.path.as_ref()?.with_extension("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).ok()?;
        file.lock().ok()?;
        Some(file)
    }

    /// The state, where another process changed it.
    pub(crate) fn changed(&mut self) -> Option<State> {
        let text = fs::read(self.path.as_ref()?).ok()?;
        if text == self.seen {
            return None;
        }
        let state = serde_json::from_slice(&text).ok()?;
        self.seen = text;
        Some(state)
    }

    pub(crate) fn keep(&mut self, state: &State) {
        let (Some(path), Ok(text)) = (&self.path, serde_json::to_vec(state)) else { return };
        let new = path.with_extension("state-new");
        if let Err(error) = fs::write(&new, &text).and_then(|()| fs::rename(&new, path)) {
            eprintln!("simnvml: the cards forget: {error}");
        }
        self.seen = text;
    }
}
