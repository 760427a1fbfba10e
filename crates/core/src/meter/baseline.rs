//! What a card draws when it does nothing: learned where nobody asks anything of it, and anew when that is long ago.

use std::time::{Duration, Instant};

use idlewatt_protocol::Milliwatts;

/// A card clocks down for a while after work: it teaches its idle power only once it was idle for this long.
const COOL_DOWN: Duration = Duration::from_secs(5);
/// A card counts as idle up to this utilisation, percent.
pub(super) const IDLE_UTILISATION: u32 = 3;
/// A baseline older than this is learned from nothing: rooms warm up, drivers and settings change.
const STALE: Duration = Duration::from_secs(3600);
/// Readings in a running mean.
const WINDOW: i64 = 32;
/// After so many readings,
const SURE: i64 = 8;
/// idleness differs from the mean by no more than this part of it, and its noise: more is somebody's work, and if it is
/// less, what was learned was no idleness.
const DIFFERS: i64 = 4;

/// What a card draws, learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Baselines {
    /// No model loaded, no work.
    pub idle: Option<Milliwatts>,
    /// A model loaded, no work.
    pub loaded: Option<Milliwatts>,
    /// At work for shared requests.
    pub active: Option<Milliwatts>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Learning {
    idle: Mean,
    loaded: Mean,
    active: Mean,
    idle_since: Option<Instant>,
    was_loaded: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    /// Power, and its mean distance from that.
    value: Option<(i64, i64)>,
    count: i64,
    at: Option<Instant>,
}

impl Learning {
    /// Power was `power` at this moment.
    pub(super) fn learn(
        &mut self,
        at: Instant,
        power: Milliwatts,
        utilisation: Option<u32>,
        busy: bool,
        loaded: bool,
    ) {
        if loaded && !self.was_loaded {
            // Another model, perhaps, or another card beside it: the old figure serves until the first new one.
            self.loaded.count = 0;
        }
        self.was_loaded = loaded;
        if busy {
            self.idle_since = None;
            return self.active.add(at, power);
        }
        // Somebody else's work teaches nothing of idleness.
        if utilisation.is_some_and(|percent| percent > IDLE_UTILISATION) {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert(at);
        if at.saturating_duration_since(since) >= COOL_DOWN {
            let baseline = if loaded { &mut self.loaded } else { &mut self.idle };
            baseline.add_idle(at, power);
        }
    }

    pub(super) fn shown(&self) -> Baselines {
        let power = |mean: &Mean| mean.value.map(|(power, _)| Milliwatts(power));
        Baselines { idle: power(&self.idle), loaded: power(&self.loaded), active: power(&self.active) }
    }

    /// How far the loaded card's baseline may be off.
    pub(super) fn loaded_spread(&self) -> Milliwatts {
        Milliwatts(self.loaded.value.map_or(0, |(_, spread)| spread))
    }
}

impl Mean {
    fn add_idle(&mut self, at: Instant, power: Milliwatts) {
        let fresh = self.at.is_some_and(|before| at.saturating_duration_since(before) <= STALE);
        if let Some((mean, spread)) = self.value.filter(|_| fresh && self.count >= SURE) {
            let differs = mean / DIFFERS + 4 * spread;
            if power.0 > mean + differs {
                return;
            }
            if power.0 < mean - differs {
                self.count = 0;
            }
        }
        self.add(at, power);
    }

    fn add(&mut self, at: Instant, power: Milliwatts) {
        if self.at.is_some_and(|before| at.saturating_duration_since(before) > STALE) {
            self.count = 0;
        }
        self.at = Some(at);
        self.count = (self.count + 1).min(WINDOW);
        self.value = Some(match self.value {
            Some((mean, spread)) if self.count > 1 => {
                let apart = power.0 - mean;
                (mean + apart / self.count, spread + (apart.abs() - spread) / self.count)
            }
            _ => (power.0, 0),
        });
    }
}
