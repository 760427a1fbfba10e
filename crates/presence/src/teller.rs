//! Where sources put what they see, and how what several see is put together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use idlewatt_core::presence::{Activity, PresenceReading};
use tokio::sync::watch;

use crate::{Sight, Source};

/// Shared by all sources of one watch.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Arc<Told>);

#[derive(Debug)]
struct Told {
    readings: watch::Sender<PresenceReading>,
    activity: watch::Sender<Activity>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// What tells of keyboard and pointer, or of everything.
    sight: Sight,
    /// What gamepads tell; `None` before the first touch.
    pads: Option<PresenceReading>,
    parts: BTreeMap<&'static str, Part>,
}

#[derive(Debug)]
struct Part {
    says: String,
    heard: bool,
    activity: Activity,
}

impl Default for Teller {
    fn default() -> Self {
        let sight = Sight {
            reading: PresenceReading::Blind,
            source: "looking for a source".to_owned(),
            unseen: &[],
            action: None,
        };
        Self(Arc::new(Told {
            readings: watch::Sender::new(PresenceReading::Blind),
            activity: watch::Sender::default(),
            seen: Mutex::new(Seen { sight, pads: None, parts: BTreeMap::new() }),
        }))
    }
}

impl Teller {
    /// A new reading of the same source of input.
    pub(crate) fn reading(&self, reading: PresenceReading) {
        let mut seen = self.seen();
        seen.sight.reading = reading;
        self.tell(&seen);
    }

    /// Another source of input, with its first reading.
    pub(crate) fn source(&self, sight: Sight) {
        tracing::info!(source = %sight.source, reading = ?sight.reading, "presence source");
        let mut seen = self.seen();
        seen.sight = sight;
        self.tell(&seen);
    }

    /// What gamepads tell: active or idle since.
    #[cfg_attr(target_os = "macos", expect(dead_code, reason = "gamepads are not looked at there"))]
    pub(crate) fn pads(&self, reading: PresenceReading) {
        let mut seen = self.seen();
        seen.pads = Some(reading);
        self.tell(&seen);
    }

    /// What a source of activity says now: one sentence that names no program, and its part of the whole.
    pub(crate) fn says(&self, name: &'static str, says: impl Into<String>, activity: Activity) {
        self.part(name, Part { says: says.into(), heard: true, activity });
    }

    /// Why a source of activity tells nothing.
    pub(crate) fn unheard(&self, name: &'static str, why: impl Into<String>) {
        self.part(name, Part { says: why.into(), heard: false, activity: Activity::default() });
    }

    /// Forgets what `name` told once this is dropped: a source that is listened to no more holds nothing up.
    #[cfg(any(target_os = "linux", test))]
    pub(crate) fn listening(&self, name: &'static str) -> Listening<'_> {
        Listening { teller: self, name }
    }

    fn part(&self, name: &'static str, part: Part) {
        tracing::debug!(source = name, says = part.says, heard = part.heard, "activity source");
        let mut seen = self.seen();
        seen.parts.insert(name, part);
        self.put_together(&seen);
    }

    fn put_together(&self, seen: &Seen) {
        let whole = seen.parts.values().fold(Activity::default(), |whole, part| with(whole, &part.activity));
        self.0.activity.send_if_modified(|last| {
            let changed = *last != whole;
            *last = whole;
            changed
        });
    }

    fn tell(&self, seen: &Seen) {
        let reading = both(seen.sight.reading, seen.pads);
        let changed = self.0.readings.send_if_modified(|last| {
            let changed = *last != reading;
            *last = reading;
            changed
        });
        if changed {
            tracing::debug!(?reading, "presence");
        }
    }

    pub(crate) fn readings(&self) -> watch::Receiver<PresenceReading> {
        self.0.readings.subscribe()
    }

    pub(crate) fn activity(&self) -> watch::Receiver<Activity> {
        self.0.activity.subscribe()
    }

    pub(crate) fn sight(&self) -> Sight {
        let seen = self.seen();
        Sight { reading: *self.0.readings.borrow(), ..seen.sight.clone() }
    }

    pub(crate) fn sources(&self) -> Vec<Source> {
        let source = |(name, part): (&&'static str, &Part)| Source {
            name,
            says: part.says.clone(),
            heard: part.heard,
        };
        self.seen().parts.iter().map(source).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Teller::listening`].
#[cfg(any(target_os = "linux", test))]
pub(crate) struct Listening<'a> {
    teller: &'a Teller,
    name: &'static str,
}

#[cfg(any(target_os = "linux", test))]
impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut seen = self.teller.seen();
        seen.parts.remove(self.name);
        self.teller.put_together(&seen);
    }
}

/// A gamepad is a hand as good as one on a keyboard; at rest it proves nothing about the keyboard.
fn both(sight: PresenceReading, pads: Option<PresenceReading>) -> PresenceReading {
    use PresenceReading::{Active, Blind, Headless, Idle};
    match (sight, pads) {
        (sight, None | Some(Headless | Blind)) => sight,
        (Active { since: a }, Some(Active { since: b })) => Active { since: a.max(b) },
        (_, Some(active @ Active { .. })) => active,
        (Idle { last_input: a }, Some(Idle { last_input: b })) => Idle { last_input: a.max(b) },
        (Headless, Some(idle @ Idle { .. })) => idle,
        (sight, Some(Idle { .. })) => sight,
    }
}

fn with(mut whole: Activity, part: &Activity) -> Activity {
    for game in &part.games {
        if !whole.games.contains(game) {
            whole.games.push(game.clone());
        }
    }
    whole.full_screen = whole.full_screen.or_else(|| part.full_screen.clone());
    whole.listed.extend(part.listed.iter().cloned());
    whole.call = whole.call.or_else(|| part.call.clone());
    whole.locked = whole.locked.or(part.locked);
    whole.displays_off = whole.displays_off.or(part.displays_off);
    whole.remote_logins += part.remote_logins;
    whole
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use idlewatt_core::presence::App;

    use super::*;

    fn app(name: &str) -> App {
        App { name: name.to_owned() }
    }

    #[test]
    fn a_hand_on_a_gamepad_is_a_person_whatever_the_screen_sees() {
        let early = Instant::now();
        let late = early + Duration::from_secs(1);
        let playing = Some(PresenceReading::Active { since: late });
        for sight in [
            PresenceReading::Headless,
            PresenceReading::Blind,
            PresenceReading::Idle { last_input: early },
            PresenceReading::Active { since: early },
        ] {
            assert_eq!(both(sight, playing), PresenceReading::Active { since: late }, "{sight:?}");
        }
    }

    #[test]
    fn a_gamepad_laid_down_proves_nothing_about_the_keyboard() {
        let early = Instant::now();
        let late = early + Duration::from_secs(1);
        let rests = Some(PresenceReading::Idle { last_input: late });
        assert_eq!(both(PresenceReading::Blind, rests), PresenceReading::Blind);
        let typing = PresenceReading::Active { since: early };
        assert_eq!(both(typing, rests), typing);
        let idle = PresenceReading::Idle { last_input: early };
        assert_eq!(both(idle, rests), PresenceReading::Idle { last_input: late });
        assert_eq!(both(idle, None), idle);
    }

    #[test]
    fn sources_add_up_and_a_game_that_two_tell_of_is_one() {
        let teller = Teller::default();
        let mut activity = teller.activity();
        teller.says("a", "one game", Activity { games: vec![app("Tetris")], ..Activity::default() });
        teller.says(
            "b",
            "two games",
            Activity { games: vec![app("Tetris"), app("Chess")], ..Activity::default() },
        );
        teller.says("c", "locked", Activity { locked: Some(true), remote_logins: 2, ..Activity::default() });
        assert_eq!(
            *activity.borrow_and_update(),
            Activity {
                games: vec![app("Tetris"), app("Chess")],
                locked: Some(true),
                remote_logins: 2,
                ..Activity::default()
            }
        );
        teller.unheard("b", "gone");
        assert_eq!(activity.borrow_and_update().games, [app("Tetris")]);
        teller.unheard("b", "still gone");
        assert!(!activity.has_changed().unwrap(), "nothing new is nothing to tell");
        drop(teller.listening("a"));
        assert!(activity.borrow_and_update().games.is_empty(), "nobody listens to it any more");
    }
}
