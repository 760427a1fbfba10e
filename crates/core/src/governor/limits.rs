//! The limits of one card as one power: the lowest of them, and which that is.

use idlewatt_protocol::{Millijoules, Milliwatts};

use super::account::{GREATEST, Power};
use super::{Inputs, Limit, Settings, WINDOW};
use crate::Now;
use crate::device::GpuReading;

/// Power is lowered over the last degrees below a limit, a fifth of the card's greatest with each: the card settles where
/// it stays below, instead of working in bursts.
const DEGREES: i64 = 5;
/// The same for the fan, percent of its greatest speed.
const FAN_PERCENT: i64 = 10;
/// Heat must fall by this much before it counts as fallen: sensors tell whole degrees, and a limit must not flicker.
const SLACK_C: i64 = 2;
const SLACK_FAN: i64 = 3;

/// A reading that follows at once upwards, and downwards only once it fell by some slack. It knows no limit, so that a
/// lower limit always means a lower power, whatever happened before.
#[derive(Clone, Copy, Debug, Default)]
struct Backlash(Option<i64>);

impl Backlash {
    fn follow(&mut self, reading: Option<i64>, slack: i64) -> Option<i64> {
        self.0 = reading.map(|reading| match self.0 {
            Some(held) => held.clamp(reading, reading + slack),
            None => reading,
        });
        self.0
    }
}

/// What a card's heat did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heat {
    core: Backlash,
    hot_spot: Backlash,
    fan: Backlash,
}

/// What is the same for all cards at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Today {
    /// While the fan is limited: when that ends.
    quiet: Option<Option<jiff::Timestamp>>,
    daily: Option<(Millijoules, Limit)>,
    pub(super) midnight: Option<jiff::Timestamp>,
    pub(super) quiet_changes: Option<jiff::Timestamp>,
}

impl Today {
    pub(super) fn new(settings: &Settings, inputs: &Inputs<'_>, now: &Now) -> Self {
        let quiet_changes = settings.fan_limit.and_then(|_| settings.quiet_hours.next_change(now));
        let quiet = settings.fan_limit.filter(|_| settings.quiet_hours.is_open(now)).map(|_| quiet_changes);
        let date = now.local().date();
        let midnight = settings.daily_energy.and_then(|_| {
            let tomorrow = date.tomorrow().ok()?.to_zoned(now.zone.clone()).ok()?;
            Some(tomorrow.timestamp())
        });
        let daily = settings.daily_energy.zip(midnight).map(|(limit, until)| {
            let used = if inputs.used.0 == date { inputs.used.1 } else { Millijoules::ZERO };
            let left = Millijoules(limit.0.saturating_sub(used.0.max(0)).max(0));
            (left, Limit::DailyEnergy { used, limit, until })
        });
        Self { quiet, daily, midnight, quiet_changes }
    }
}

impl Heat {
    /// The lowest limit of a card but for its part of the machine's cap. `ceiling` is the card's own greatest power, where
    /// it is known; `cards` is how many share the day's energy.
    pub(super) fn lowest(
        &mut self,
        settings: &Settings,
        today: &Today,
        reading: &GpuReading,
        cap: Option<Milliwatts>,
        ceiling: Option<Power>,
        cards: i64,
    ) -> Option<(Power, Limit)> {
        let core = self.core.follow(reading.temperature_c.map(i64::from), SLACK_C);
        let hot_spot = self.hot_spot.follow(reading.hot_spot_c.map(i64::from), SLACK_C);
        let fan = self.fan.follow(reading.fan_percent.map(i64::from), SLACK_FAN);
        // Without a greatest power to take a part of, the limit only tells full from none.
        let derated = |held: Option<i64>, limit: i64, band: i64| {
            let headroom = (limit - held?).max(0);
            match ceiling {
                Some(ceiling) if headroom < band => Some(ceiling * headroom / band),
                None if headroom == 0 => Some(0),
                _ => None,
            }
        };
        let limits = [
            cap.map(|cap| (cap.0.clamp(0, GREATEST), Limit::UserCap)),
            reading.temperature_c.and_then(|reading_c| {
                let limit_c = settings.thermal.of(&reading.id);
                let power = derated(core, limit_c.into(), DEGREES)?;
                Some((power, Limit::Temperature { reading_c, limit_c }))
            }),
            reading.hot_spot_c.and_then(|reading_c| {
                let limit_c = settings.hot_spot_limit_c;
                let power = derated(hot_spot, limit_c.into(), DEGREES)?;
                Some((power, Limit::HotSpot { reading_c, limit_c }))
            }),
            settings.fan_limit.zip(today.quiet).and_then(|(limit, until)| {
                let power = derated(fan, limit.into(), FAN_PERCENT)?;
                Some((power, Limit::Fan { reading: reading.fan_percent.unwrap_or_default(), limit, until }))
            }),
            today.daily.map(|(left, limit)| {
                // What is left lasts for one more window at least.
                let power = left.0 / i64::try_from(WINDOW.as_secs()).unwrap_or(1) / cards.max(1);
                (power.min(GREATEST), limit)
            }),
            ceiling.map(|ceiling| (ceiling, Limit::Card)),
        ];
        limits.into_iter().flatten().min_by_key(|(power, _)| *power)
    }
}

impl Limit {
    /// Whether it passes without the host doing anything.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(
            self,
            Self::Temperature { .. } | Self::HotSpot { .. } | Self::Fan { .. } | Self::DailyEnergy { .. }
        )
    }
}

/// A card that wants a part of the machine's cap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The most that it may have.
    pub(super) most: Power,
    /// What it uses now with some to spare; `most` where its part holds it down.
    pub(super) wants: Power,
}

/// Cuts a power into parts: nobody gets more than it wants while another gets less, then the rest for all.
pub(super) fn shares(power: Power, claims: &[Claim]) -> Vec<Power> {
    let mut parts = vec![0; claims.len()];
    let mut left = power.max(0);
    for goal in [|claim: &Claim| claim.wants.min(claim.most), |claim: &Claim| claim.most] {
        loop {
            let open: Vec<usize> = (0..claims.len()).filter(|it| parts[*it] < goal(&claims[*it])).collect();
            let each = left / i64::try_from(open.len().max(1)).unwrap_or(1);
            if open.is_empty() || each == 0 {
                break;
            }
            for it in open {
                let more = each.min(goal(&claims[it]) - parts[it]);
                parts[it] += more;
                left -= more;
            }
        }
    }
    parts
}
