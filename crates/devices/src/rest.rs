//! Lets an idle card fall asleep. A card that may (`power/control` says `auto`) does so some seconds after the last question
//! to it; to ask every few seconds would keep it awake for ever, at five to twenty watts. So where somebody looks seldom, an
//! idle card is left alone for a while, and its last reading stands, with the moment at which it was taken.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use idlewatt_core::device::GpuReading;

/// Who asks less often than this works with none of the cards.
const SELDOM: Duration = Duration::from_secs(3);

/// Longer than the drivers wait before a card sleeps: 5 s by `autosuspend_delay_ms` in amdgpu, 1 s in i915 and xe.
const LULL: Duration = Duration::from_secs(15);

/// What is known of one card.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    asked: Option<Instant>,
    looked: Option<GpuReading>,
}

impl Rest {
    /// The reading that stands instead of a new one, if the card is to be left alone now.
    pub(crate) fn instead(&mut self, device: &Path, now: Instant) -> Option<GpuReading> {
        let seldom = self.asked.replace(now).is_some_and(|asked| now.duration_since(asked) >= SELDOM);
        let last = self.looked.as_ref().filter(|_| seldom)?;
        let idle = !last.asleep && last.utilisation.unwrap_or_default() == 0;
        (idle && now.saturating_duration_since(last.at) < LULL && may_sleep(device)).then(|| last.clone())
    }

    /// What the card said when it was looked at last.
    pub(crate) fn last(&self) -> Option<&GpuReading> {
        self.looked.as_ref()
    }

    /// The card was looked at.
    pub(crate) fn looked(&mut self, reading: &GpuReading) {
        self.looked = Some(reading.clone());
    }
}

fn may_sleep(device: &Path) -> bool {
    fs::read_to_string(device.join("power/control")).is_ok_and(|control| control.trim() == "auto")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of these looks, given in seconds, reached a card of this load.
    fn looks(control: &str, utilisation: Option<u32>, seconds: &[u64]) -> usize {
        let device = tempfile::tempdir().unwrap();
        fs::create_dir(device.path().join("power")).unwrap();
        fs::write(device.path().join("power/control"), control).unwrap();
        let (mut rest, start) = (Rest::default(), Instant::now());
        let reached = |second: &&u64| {
            let now = start + Duration::from_secs(**second);
            let instead = rest.instead(device.path(), now);
            if instead.is_none() {
                rest.looked(&GpuReading { utilisation, ..GpuReading::silent("a", "", now) });
            }
            instead.is_none()
        };
        seconds.iter().filter(reached).count()
    }

    #[test]
    fn an_idle_card_that_may_sleep_is_left_alone_long_enough_to_do_so() {
        assert_eq!(looks("auto\n", Some(0), &[0, 5, 10, 15, 20, 25, 30]), 3);
        assert_eq!(looks("auto\n", None, &[0, 5, 10, 15, 20, 25, 30]), 3);
    }

    #[test]
    fn a_busy_card_one_that_never_sleeps_and_one_that_is_looked_at_often_are_always_read() {
        assert_eq!(looks("auto\n", Some(1), &[0, 5, 10, 15]), 4);
        assert_eq!(looks("on\n", Some(0), &[0, 5, 10, 15]), 4);
        assert_eq!(looks("auto\n", Some(0), &[0, 1, 2, 3]), 4);
    }
}
