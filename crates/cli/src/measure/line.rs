//! A line of what is drawn now, for a person who watches a terminal. Only where the command prints elsewhere: in the middle
//! of its own text, or over it, a line of ours would be damage.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use idlewatt_core::device::Sensor;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::sampling::Sample;

/// How often it changes.
const PACE: Duration = Duration::from_secs(1);

/// The line. Gone when it is dropped.
pub(super) struct Line {
    bar: ProgressBar,
    names: Vec<String>,
    next: Instant,
}

impl Line {
    /// A line, where a person can see one.
    pub(super) fn new(as_json: bool) -> Option<Self> {
        let seen = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal() && !as_json;
        let style = ProgressStyle::with_template("{elapsed}  {msg}").ok().filter(|_| seen)?;
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        Some(Self { bar, names: Vec::new(), next: Instant::now() })
    }

    pub(super) fn names(&mut self, sensors: &[Sensor]) {
        self.names = sensors.iter().map(|it| it.name.clone()).collect();
    }

    pub(super) fn show(&mut self, sample: &Sample) {
        if sample.at < self.next {
            return;
        }
        self.next = sample.at + PACE;
        let sensors = self.names.iter().zip(&sample.sensors).filter_map(|(name, (power, energy))| {
            Some(format!("{name} {:.0} W, {:.0} J", (*power)?.to_main_unit(), energy.to_main_unit()))
        });
        self.bar.set_message(sensors.collect::<Vec<_>>().join("  "));
        self.bar.tick();
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
