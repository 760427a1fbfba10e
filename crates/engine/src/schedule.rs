//! The Schedule page: the rules in force and what comes next, what other settings would mean, and "share now".

use std::collections::BTreeMap;
use std::sync::Arc;

use idlewatt_control::{Code, ControlError, Outlook, Schedule, State, Stretch};
use idlewatt_core::now::Deadline;
use idlewatt_core::presence::PresenceReading;
use idlewatt_core::{Now, policy, sentence};
use idlewatt_protocol::UnixMillis;
use jiff::{SignedDuration, Timestamp};

use crate::clock;
use crate::config::Settings;
use crate::deciding::reason;
use crate::desk::set_pause;
use crate::node::{Node, lock};

/// How far it is looked ahead: as far as a week repeats itself.
const AHEAD: SignedDuration = SignedDuration::from_hours(7 * 24);

/// More stretches than a page shows.
const MOST: usize = 64;

impl Node {
    /// When this machine shares.
    pub(crate) fn schedule(&self) -> Schedule {
        let now = clock::now();
        let config = self.config();
        let settings = config.settings();
        let week = settings.policy.windows.week();
        Schedule {
            week: week.days,
            exact: week.exact,
            rules: sentence::rules(&settings.policy, settings.active_cap, &now),
            outlook: self.outlook(settings, &now),
            zone: now.zone.iana_name().unwrap_or("UTC").to_owned(),
        }
    }

    /// What would happen with these settings instead, by key as text.
    ///
    /// # Errors
    /// When there is no such key, or a value is none for it.
    pub(crate) fn preview(&self, edits: &BTreeMap<String, String>) -> Result<Outlook, ControlError> {
        Ok(self.outlook(&self.config().settings_with(edits)?, &clock::now()))
    }

    /// Whoever asks is mostly sitting here, and wants to know what comes once they are gone: it is told as if they left now.
    fn outlook(&self, settings: &Settings, now: &Now) -> Outlook {
        let policy = lock(&self.policy).clone();
        let mut inputs = self.inputs();
        if matches!(inputs.presence, PresenceReading::Active { .. }) {
            inputs.presence = PresenceReading::Idle { last_input: now.monotonic };
        }
        let stretches = policy.outlook(&settings.policy, &inputs, now, AHEAD, MOST);
        Outlook { stretches: stretches.iter().map(|it| view(it, now)).collect() }
    }

    /// Ends a pause, and puts aside for a time that somebody is here and that it is outside the hours.
    ///
    /// # Errors
    /// When the time is none from 1 s to 31 days, or the end of a pause could not be kept.
    pub(crate) async fn share_now(self: &Arc<Self>, seconds: u32) -> Result<(), ControlError> {
        let now = clock::now();
        let ahead = SignedDuration::from_secs(seconds.into());
        let until = now.wall.checked_add(ahead).ok();
        let until = until.filter(|_| ahead.is_positive() && ahead <= SignedDuration::from_hours(31 * 24));
        let until = until.ok_or_else(|| {
            ControlError::new(
                Code::BadValue,
                "Sharing now would last no time, or more than 31 days.",
                "Nothing was changed.",
                "Name a time from 1 second to 31 days.",
            )
        })?;
        set_pause(self, None, Some(Deadline::at(until, &now))).await?;
        self.look.notify_one();
        Ok(())
    }
}

fn view(stretch: &policy::Stretch, now: &Now) -> Stretch {
    let millis = |at: Timestamp| UnixMillis(at.as_millisecond());
    Stretch {
        from: millis(stretch.from),
        until: stretch.until.map(millis),
        state: match stretch.decision.state {
            policy::State::Sharing => State::Sharing,
            policy::State::Paused => State::Paused,
            policy::State::Offline => State::Offline,
        },
        sentence: sentence::stretch(stretch, now),
        reasons: stretch.decision.reasons.iter().map(|it| reason(it, now)).collect(),
    }
}
