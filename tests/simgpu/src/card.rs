//! One card: power that follows its load with a lag, heat that follows the power, and sensors that look late, seldom,
//! and not quite.
//!
//! Between two changes of the load everything has a closed form, so any step of time is exact, and a sensor that looks
//! back sees exactly what was.

use std::collections::VecDeque;

use crate::random::mix;

/// How far sensors can look back, s.
const MEMORY: f64 = 5.0;

/// What a card is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Physics {
    /// Time constant of the power behind the load, s.
    pub tau_s: f64,
    /// Around the card, °C.
    pub ambient_c: f64,
    /// Heating in the long run, °C/W.
    pub c_per_w: f64,
    /// Time constant of the heating, s.
    pub heat_s: f64,
    /// The hottest spot above the card's temperature, °C/W.
    pub hot_spot_c_per_w: f64,
    /// The fan's curve: °C and percent where it starts to rise, °C and percent where it ends. Below it stands at its
    /// least.
    pub fan: [(f64, f64); 2],
}

/// How the card's sensors see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sensing {
    /// How often power is looked at, s.
    pub refresh_s: f64,
    /// How often the energy counter is written, s.
    pub counter_refresh_s: f64,
    /// When in a period that happens, as a part of it.
    pub phase: f64,
    /// How old what the sensors see is, s.
    pub lag_s: f64,
    /// What averaged power looks back over, s.
    pub averaged_s: f64,
    /// Half width of the noise of the instantaneous power, W.
    pub noise_w: f64,
    /// Of the noise.
    pub seed: u64,
    /// What the energy counter makes of a true joule.
    pub counter_gain: f64,
}

impl Default for Physics {
    /// In the order of a large consumer card; not fitted to any.
    fn default() -> Self {
        Self {
            tau_s: 0.04,
            ambient_c: 25.0,
            c_per_w: 0.11,
            heat_s: 30.0,
            hot_spot_c_per_w: 0.03,
            fan: [(40.0, 30.0), (85.0, 100.0)],
        }
    }
}

impl Default for Sensing {
    fn default() -> Self {
        Self {
            refresh_s: 0.05,
            counter_refresh_s: 0.05,
            phase: 0.0,
            lag_s: 0.0,
            averaged_s: 1.0,
            noise_w: 0.0,
            seed: 1,
            counter_gain: 1.0,
        }
    }
}

/// What truly is, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// s
    pub at: f64,
    /// W
    pub power_w: f64,
    /// J since the start.
    pub energy_j: f64,
    /// °C
    pub temperature_c: f64,
}

/// A simulated card.
#[derive(Clone, Debug)]
pub struct Card {
    /// May be changed at any time; holds from now on.
    pub physics: Physics,
    /// May be changed at any time; holds for all that is asked from now on.
    pub sensing: Sensing,
    load_w: f64,
    limit_w: f64,
    now: Moment,
    past: VecDeque<Stretch>,
}

/// A time in which nothing outside the card changed.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    from: Moment,
    /// Where power goes.
    target_w: f64,
    tau_s: f64,
    /// Where heat goes in the long run, the part of it that decays with the power's lag, and its own time constant.
    warm_c: f64,
    lagging_c: f64,
    heat_s: f64,
}

impl Stretch {
    fn at(&self, at: f64) -> Moment {
        let from = self.from;
        let time = at - from.at;
        let gap = from.power_w - self.target_w;
        let left = (-time / self.tau_s).exp();
        let rest_c = from.temperature_c - self.warm_c - self.lagging_c;
        Moment {
            at,
            power_w: self.target_w + gap * left,
            energy_j: from.energy_j + self.target_w * time + gap * self.tau_s * (1.0 - left),
            temperature_c: self.warm_c + self.lagging_c * left + rest_c * (-time / self.heat_s).exp(),
        }
    }
}

impl Card {
    /// A card that has had this load for long.
    #[must_use]
    pub fn new(at: f64, load_w: f64, limit_w: f64, physics: Physics, sensing: Sensing) -> Self {
        let power_w = load_w.min(limit_w);
        let temperature_c = physics.ambient_c + power_w * physics.c_per_w;
        let now = Moment { at, power_w, energy_j: 0.0, temperature_c };
        Self { physics, sensing, load_w, limit_w, now, past: VecDeque::new() }
    }

    /// A card that goes on from a moment of another's, whose past its sensors do not see.
    #[must_use]
    pub fn resume(from: Moment, load_w: f64, limit_w: f64, physics: Physics, sensing: Sensing) -> Self {
        Self { physics, sensing, load_w, limit_w, now: from, past: VecDeque::new() }
    }

    /// What is asked of the card from now on, W.
    pub fn set_load(&mut self, watts: f64) {
        self.load_w = watts;
    }

    /// What the card holds its power to from now on, W.
    pub fn set_limit(&mut self, watts: f64) {
        self.limit_w = watts;
    }

    /// What is asked of the card, W.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.load_w
    }

    /// What the card holds its power to, W.
    #[must_use]
    pub fn limit(&self) -> f64 {
        self.limit_w
    }

    /// Lets time pass. A moment that is past already changes nothing.
    pub fn run_to(&mut self, at: f64) {
        if at <= self.now.at {
            return;
        }
        let target_w = self.load_w.min(self.limit_w);
        let (tau_s, heat_s) = (self.physics.tau_s.max(1e-6), self.physics.heat_s.max(1e-3));
        // The closed form has no value where both time constants are the same to the last digit.
        let apart = 1.0 - heat_s / tau_s;
        let apart = if apart.abs() < 1e-9 { 1e-9 } else { apart };
        let stretch = Stretch {
            from: self.now,
            target_w,
            tau_s,
            warm_c: self.physics.ambient_c + target_w * self.physics.c_per_w,
            lagging_c: (self.now.power_w - target_w) * self.physics.c_per_w / apart,
            heat_s,
        };
        self.now = stretch.at(at);
        self.past.push_back(stretch);
        while self.past.get(1).is_some_and(|second| second.from.at < at - MEMORY) {
            self.past.pop_front();
        }
    }

    /// What truly is now.
    #[must_use]
    pub fn truth(&self) -> Moment {
        self.now
    }

    /// What truly was, as far back as sensors see; before its start the card had the power that it started with.
    #[must_use]
    pub fn truth_at(&self, at: f64) -> Moment {
        if at >= self.now.at {
            return self.now;
        }
        let after = self.past.partition_point(|stretch| stretch.from.at <= at);
        if let Some(stretch) = after.checked_sub(1).and_then(|index| self.past.get(index)) {
            return stretch.at(at);
        }
        let first = self.past.front().map_or(self.now, |stretch| stretch.from);
        Moment { at, energy_j: first.energy_j - first.power_w * (first.at - at), ..first }
    }

    /// W, of the last refresh.
    #[must_use]
    pub fn instant_power_w(&self) -> f64 {
        let at = self.looked_at(self.sensing.refresh_s);
        (self.truth_at(at).power_w + noise(self.sensing.seed, at) * self.sensing.noise_w).max(0.0)
    }

    /// W, averaged up to the last refresh.
    #[must_use]
    pub fn averaged_power_w(&self) -> f64 {
        let (at, over) = (self.looked_at(self.sensing.refresh_s), self.sensing.averaged_s.max(1e-6));
        (self.truth_at(at).energy_j - self.truth_at(at - over).energy_j) / over
    }

    /// J, as last written.
    #[must_use]
    pub fn counter_j(&self) -> f64 {
        let at = self.looked_at(self.sensing.counter_refresh_s);
        (self.truth_at(at).energy_j * self.sensing.counter_gain).max(0.0)
    }

    /// °C
    #[must_use]
    pub fn hot_spot_c(&self) -> f64 {
        self.now.temperature_c + self.now.power_w * self.physics.hot_spot_c_per_w
    }

    /// Percent of the greatest speed.
    #[must_use]
    pub fn fan_percent(&self) -> f64 {
        let [(cool, least), (hot, most)] = self.physics.fan;
        let part = (self.now.temperature_c - cool) / (hot - cool).max(1e-6);
        least + (most - least) * part.clamp(0.0, 1.0)
    }

    /// The moment that a sensor shows now: its last refresh, less its lag.
    fn looked_at(&self, refresh_s: f64) -> f64 {
        let (refresh, phase) = (refresh_s.max(1e-6), self.sensing.phase * refresh_s);
        // A refresh at this very moment has happened, whatever the last digit says.
        (((self.now.at - phase) / refresh + 1e-6).floor() * refresh + phase).min(self.now.at)
            - self.sensing.lag_s
    }
}

/// −1 to 1, the same for the same seed and moment.
fn noise(seed: u64, at: f64) -> f64 {
    (mix(seed ^ mix((at * 1e3).round().to_bits())) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}
