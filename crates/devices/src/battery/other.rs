//! Windows and macOS, by `starship-battery`.

use starship_battery::units::power::milliwatt;
use starship_battery::{Manager, State as Flow};

use super::State;
use crate::Places;

pub(super) struct Cells {
    manager: Option<Manager>,
    cells: Vec<starship_battery::Battery>,
}

impl Cells {
    pub(super) fn find(_: &Places) -> Self {
        let mut this = Self { manager: Manager::new().ok(), cells: Vec::new() };
        this.look_again();
        this
    }

    pub(super) fn look_again(&mut self) {
        let found = self.manager.as_ref().and_then(|manager| manager.batteries().ok());
        self.cells = found.into_iter().flatten().flatten().collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(super) fn states(&mut self) -> Vec<State> {
        let manager = self.manager.as_ref();
        let state = |cell: &mut starship_battery::Battery| match manager.map(|manager| manager.refresh(cell))
        {
            Some(Ok(())) if cell.state() == Flow::Discharging => {
                State::Discharging(whole(cell.energy_rate().get::<milliwatt>()))
            }
            _ => State::Other,
        };
        self.cells.iter_mut().map(state).collect()
    }
}

/// A gauge may say NaN.
fn whole(value: f32) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "finite, and bounded by the range before it")]
    let whole = (1.0..1e9).contains(&value).then_some(value as i64);
    whole
}
