//! What a plug at the wall says of the machine while its cards work: how much the wall's power rises when theirs does.
//!
//! The factor holds the loss of the power supply and what processor, memory and fans do along. What the machine draws
//! whatever the cards do is left out: nothing here can say for whom it is on.

use idlewatt_protocol::{Millijoules, Milliwatts};

/// The cards' power must have varied by this much: a factor from noise is none.
const VARIED: f64 = 20_000.0;
/// Pairs of readings before a factor is told.
const PAIRS: f64 = 20.0;
/// What each pair leaves of those before it.
const FADING: f64 = 0.999;
/// A factor outside this is not a machine: another device is on the plug, or the cards are not behind it.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 1.0..=2.0;

/// Running means, variance and covariance of the cards' and the wall's power, mW.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wall {
    weight: f64,
    cards: f64,
    wall: f64,
    variance: f64,
    covariance: f64,
}

impl Wall {
    #[expect(clippy::cast_precision_loss, reason = "a fit")]
    pub(super) fn learn(&mut self, cards: Milliwatts, wall: Milliwatts) {
        let (cards, wall) = (cards.0 as f64, wall.0 as f64);
        self.weight = self.weight * FADING + 1.0;
        let (cards_apart, wall_apart) = (cards - self.cards, wall - self.wall);
        self.cards += cards_apart / self.weight;
        self.wall += wall_apart / self.weight;
        self.variance = self.variance * FADING + cards_apart * (cards - self.cards);
        self.covariance = self.covariance * FADING + cards_apart * (wall - self.wall);
    }

    /// At the wall; `None` until a plug has seen the cards work and rest.
    pub(super) fn of(&self, cards: Millijoules) -> Option<Millijoules> {
        let varied = (self.variance / self.weight.max(1.0)).sqrt() >= VARIED;
        let factor = self.covariance / self.variance;
        (self.weight >= PAIRS && varied && PLAUSIBLE.contains(&factor)).then(|| times(cards, factor))
    }
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate")]
fn times(cards: Millijoules, factor: f64) -> Millijoules {
    Millijoules((cards.0 as f64 * factor).round() as i64)
}
