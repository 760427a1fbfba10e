//! Why little was shared on a day, in one sentence, and whether keeping the machine awake would have helped.

use std::time::Duration;

use idlewatt_protocol::PauseCode;

use super::Day;

/// Hours shorter than this are too short to say anything of.
const TELLING_MS: u64 = 60 * 60 * 1000;

/// A machine that slept for less than this is not kept awake for it.
const WORTH_MS: u64 = 30 * 60 * 1000;

impl Day {
    /// What took most of the day's hours, where less than half of them was shared: "Your PC slept 5 h 40 of your 9 h
    /// window."
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        if self.window < TELLING_MS || self.shared >= self.window / 2 {
            return None;
        }
        let paused = self.paused.iter().map(|(code, ms)| (*ms, lost_to(*code)));
        let rest = [
            (self.slept, "Your PC slept"),
            (self.off, "Your PC was off, or Idlewatt did not run, for"),
            (self.offline, "No network was reached for"),
        ];
        let (ms, what) = rest.into_iter().chain(paused).max_by_key(|(ms, _)| *ms)?;
        let (lost, window) = (span(ms), span(self.window));
        let so_far = if self.goes_on { " so far" } else { "" };
        Some(format!("{what} {lost} of your {window} window{so_far}."))
    }

    /// Whether the machine slept through so much of the day's hours that keeping it awake while sharing is worth a
    /// thought: half an hour at least, and more than it shared.
    #[must_use]
    pub const fn slept_too_much(&self) -> bool {
        self.slept >= WORTH_MS && self.slept > self.shared
    }
}

/// The beginning of a sentence that goes on with a span of time.
const fn lost_to(code: PauseCode) -> &'static str {
    match code {
        PauseCode::PausedByHost => "You paused sharing for",
        PauseCode::PersonHere => "Somebody used your PC for",
        PauseCode::Game => "A game ran for",
        PauseCode::FullScreen => "A program covered the screen for",
        PauseCode::ListedApp => "A program of your list ran for",
        PauseCode::InCall => "The microphone was in use for",
        PauseCode::GpuInUse => "Other programs used the GPU for",
        PauseCode::MemoryShort => "Programs waited for memory for",
        PauseCode::CannotSeeInput => "It could not be seen whether you were there for",
        PauseCode::OutsideWindow => "Sharing was outside your hours for",
        PauseCode::Settling => "It was made sure that the machine stays free for",
        PauseCode::OnBattery => "Your PC ran on battery for",
        PauseCode::LidClosed => "The lid was closed for",
        PauseCode::Metered => "The connection was metered for",
        PauseCode::Price => "Energy cost more than you allow for",
        PauseCode::Asleep => "Your PC slept",
        PauseCode::TooHot => "A GPU was too hot for",
        PauseCode::TooLoud => "A fan was too loud for",
        PauseCode::DailyEnergy => "The day's energy was used up for",
        PauseCode::HostLoad => "Your own work left too little power for",
        PauseCode::CapUnenforceable => "Nothing fitted under the power cap for",
        PauseCode::OwnUse => "You used the model server for",
        PauseCode::NothingToShare => "No model was ready for",
        PauseCode::NoNetwork => "No network was joined for",
        PauseCode::CannotKeep => "The disk kept nothing for",
        PauseCode::Stopping => "Idlewatt was stopping for",
    }
}

/// "5 h 40", "9 h", "40 min": whole minutes.
#[must_use]
pub fn span(ms: u64) -> String {
    let minutes = Duration::from_millis(ms).as_secs() / 60;
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes:02}"),
    }
}
