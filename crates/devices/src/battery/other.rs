//! Windows and macOS, by `starship-battery`. Its handles may not leave their thread on macOS, so none is kept.

use starship_battery::units::power::milliwatt;
use starship_battery::units::ratio::percent;
use starship_battery::{Battery, Manager, State as Flow};

use super::State;
use crate::Places;

pub(super) struct Cells {
    any: bool,
}

impl Cells {
    pub(super) fn find(_: &Places) -> Self {
        Self { any: batteries().next().is_some() }
    }

    pub(super) fn look_again(&mut self) {
        self.any = batteries().next().is_some();
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    pub(super) fn states(&self) -> Vec<State> {
        batteries().map(|battery| state(&battery)).collect()
    }

    /// Not told; the system calls a battery with a charger discharging only where that is too weak.
    #[expect(clippy::unused_self, reason = "the same on every platform")]
    pub(super) fn charger_is_in(&self) -> bool {
        false
    }

    /// How full all batteries are, 0 to 100, each counted the same.
    #[expect(clippy::unused_self, reason = "the same on every platform")]
    pub(super) fn percent(&self) -> Option<u8> {
        let full: Vec<f32> = batteries().map(|it| it.state_of_charge().get::<percent>()).collect();
        #[expect(clippy::cast_precision_loss, reason = "a handful")]
        let mean = full.iter().sum::<f32>() / full.len() as f32;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 100")]
        let whole = (0.0..=100.0).contains(&mean).then_some(mean.round() as u8);
        whole
    }
}

fn batteries() -> impl Iterator<Item = Battery> {
    let found = Manager::new().and_then(|manager| manager.batteries()).ok();
    found.into_iter().flatten().flatten()
}

fn state(battery: &Battery) -> State {
    match battery.state() {
        Flow::Discharging => State::Discharging(whole(battery.energy_rate().get::<milliwatt>())),
        _ => State::Other,
    }
}

/// A gauge may say NaN.
fn whole(value: f32) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "finite, and bounded by the range before it")]
    let whole = (1.0..1e9).contains(&value).then_some(value as i64);
    whole
}
