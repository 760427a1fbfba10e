//! The share policy with a manual clock: when it pauses, when it resumes, and what it says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::device::{ForeignLoad, Temperature};
use idlewatt_core::machine::Supply;
use idlewatt_core::now::Deadline;
use idlewatt_core::policy::{
    Battery, Cause, Decision, Freeing, HostPause, Inputs, Policy, Settings, State, Urgency,
};
use idlewatt_core::presence::{App, PresenceReading};
use idlewatt_core::sentence::{self, Scene};
use idlewatt_protocol::{Milliwatts, PauseCode, UnixMillis};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

/// Saturday 2026-11-21, 14:20 in Berlin.
fn start() -> Now {
    Now {
        monotonic: Instant::now() + Duration::from_secs(1_000_000),
        wall: "2026-11-21T13:20:00Z".parse().unwrap(),
        zone: TimeZone::get("Europe/Berlin").unwrap(),
    }
}

fn ready() -> Inputs {
    Inputs {
        presence: PresenceReading::Headless,
        temperatures: vec![celsius(50)],
        shared: 1,
        ready: 1,
        joined: 1,
        connected: 1,
        ..Inputs::default()
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

fn pause_for(length: Duration, now: &Now) -> HostPause {
    HostPause { until: Some(Deadline::at(now.later(length).wall, now)) }
}

fn app(name: &str) -> App {
    App { name: name.to_owned() }
}

fn foreign(utilisation: Option<u8>, vram: Option<u64>) -> ForeignLoad {
    ForeignLoad { card: "GPU-0".into(), utilisation, vram }
}

fn celsius(celsius: i32) -> Temperature {
    Temperature { card: "GPU-0".into(), celsius }
}

fn codes(decision: &Decision) -> Vec<PauseCode> {
    decision.reasons.iter().map(|reason| reason.code()).collect()
}

struct Node {
    policy: Policy,
    settings: Settings,
    inputs: Inputs,
    now: Now,
}

impl Node {
    fn new() -> Self {
        Self { policy: Policy::default(), settings: Settings::default(), inputs: ready(), now: start() }
    }

    fn decide(&mut self) -> Decision {
        self.policy.decide(&self.settings, &self.inputs, &self.now)
    }

    fn after(&mut self, by: Duration) -> Decision {
        self.now = self.now.later(by);
        self.decide()
    }

    /// Asks again whenever the policy wants it, until the decision is `state`; how long that took.
    fn wait_for(&mut self, state: State) -> Duration {
        let from = self.now.monotonic;
        for _ in 0..10_000 {
            let decision = self.decide();
            if decision.state == state {
                return self.now.monotonic - from;
            }
            let wake = decision.wake.unwrap();
            assert!(wake.at > self.now.monotonic, "a wake-up that is past would spin");
            self.now = self.now.later(wake.at - self.now.monotonic);
        }
        unreachable!("never {state:?}")
    }
}

#[test]
fn a_machine_that_nobody_uses_shares_at_once_and_sleeps_until_something_happens() {
    let decision = Node::new().decide();
    assert_eq!((decision.state, decision.reasons.len(), decision.wake), (State::Sharing, 0, None));
}

#[test]
fn input_pauses_at_once_and_sharing_resumes_by_itself_ten_minutes_after_the_last() {
    let mut node = Node::new();
    node.inputs.presence = PresenceReading::Active { since: node.now.monotonic };
    let decision = node.decide();
    assert_eq!((decision.state, codes(&decision)), (State::Paused, vec![PauseCode::PersonHere]));
    assert_eq!((decision.until(), decision.wake), (None, None));
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    assert_eq!(node.wait_for(State::Sharing), minutes(10));
}

#[test]
fn the_longer_of_idle_time_and_hysteresis_holds_after_input() {
    let mut node = Node::new();
    node.settings.idle_after = Duration::from_secs(1);
    node.settings.resume_hysteresis = Duration::from_secs(30);
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    assert_eq!(node.wait_for(State::Sharing), Duration::from_secs(30));
}

#[test]
fn no_idle_time_and_sharing_while_active_let_a_person_be() {
    for (idle_after, while_active) in [(Duration::ZERO, false), (minutes(10), true)] {
        for presence in [PresenceReading::Blind, PresenceReading::Active { since: Instant::now() }] {
            let mut node = Node::new();
            node.settings.idle_after = idle_after;
            node.settings.while_active = while_active;
            node.inputs.presence = presence;
            assert_eq!(node.decide().state, State::Sharing);
        }
    }
}

#[test]
fn a_screen_without_a_source_of_input_pauses() {
    let mut node = Node::new();
    node.inputs.presence = PresenceReading::Blind;
    assert_eq!(codes(&node.decide()), [PauseCode::CannotSeeInput]);
}

#[test]
fn heat_pauses_at_the_limit_and_resumes_below_it_after_the_hysteresis() {
    let mut node = Node::new();
    let mut at = |reading, by| {
        node.inputs.temperatures = vec![celsius(reading)];
        codes(&node.after(Duration::from_secs(by)))
    };
    assert_eq!(at(77, 1), []);
    assert_eq!(at(78, 1), [PauseCode::TooHot]);
    assert_eq!(at(74, 1), [PauseCode::TooHot]);
    assert_eq!(at(73, 1), [PauseCode::Settling]);
    assert_eq!(at(77, 1), [PauseCode::Settling]);
    assert_eq!(at(77, 117), [PauseCode::Settling]);
    assert_eq!(at(77, 1), []);
}

#[test]
fn each_card_has_its_own_thermal_limit_and_cools_by_itself() {
    let mut node = Node::new();
    node.settings.thermal.cards = [("GPU-1".to_owned(), 85), ("GPU-10".to_owned(), 60)].into();
    let mut at = |first, second| {
        let hot = |card: &str, celsius| Temperature { card: card.to_owned(), celsius };
        node.inputs.temperatures = vec![hot("GPU-1a", first), hot("GPU-10b", second)];
        let decision = node.after(minutes(1));
        (decision.reasons.first().map(|it| it.cause.clone()), codes(&decision))
    };
    assert_eq!(at(84, 59).1, []);
    assert_eq!(at(84, 60).0, Some(Cause::TooHot { reading_c: 60, limit_c: 60 }));
    // The one that was never too hot may be as warm as it likes below its limit.
    assert_eq!(at(84, 56).1, [PauseCode::TooHot]);
    assert_eq!(at(84, 55).1, [PauseCode::Settling]);
    // Of two the one that is further past its limit is told.
    assert_eq!(at(86, 63).0, Some(Cause::TooHot { reading_c: 63, limit_c: 60 }));
}

#[test]
fn a_card_that_others_used_is_shared_once_it_was_idle_for_as_long_as_the_host_wants() {
    let mut node = Node::new();
    node.settings.gpu_idle_after = minutes(15);
    node.inputs.foreign = vec![foreign(Some(60), None)];
    assert_eq!(node.decide().until(), None);
    node.inputs.foreign = vec![foreign(Some(3), None)];
    let decision = node.after(minutes(1));
    assert_eq!(codes(&decision), [PauseCode::GpuInUse]);
    let said = sentence::reason(&decision.reasons[0], &node.now);
    assert_eq!(said, "Other programs used a GPU a moment ago; sharing waits until 14:35.");
    assert_eq!(decision.until(), Some(node.now.later(minutes(14)).unix()));
    assert_eq!(node.wait_for(State::Sharing), minutes(14), "the hysteresis is not waited for on top");
    // The hysteresis holds in any case, and is told as what it is.
    node.settings.gpu_idle_after = Duration::ZERO;
    node.inputs.foreign = vec![foreign(Some(60), None)];
    node.decide();
    node.inputs.foreign = vec![];
    assert_eq!(codes(&node.after(minutes(1))), [PauseCode::Settling]);
    assert_eq!(node.wait_for(State::Sharing), minutes(1));
}

#[test]
fn with_every_display_off_nobody_is_waited_for_but_for_the_hysteresis() {
    let mut node = Node::new();
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    node.decide();
    node.inputs.activity.displays_off = Some(true);
    node.after(minutes(1));
    // Locked a little later, as most desktops do: nothing is waited for twice.
    node.inputs.activity.locked = Some(true);
    assert_eq!(node.wait_for(State::Sharing), minutes(2));
    // A key wakes the displays, and is input.
    node.inputs.activity = Default::default();
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    assert_eq!(node.wait_for(State::Sharing), minutes(10));
    node.inputs.activity.displays_off = Some(true);
    node.settings.locked_is_away = false;
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    assert_eq!(node.wait_for(State::Sharing), minutes(10), "the host does not count it");
}

#[test]
fn a_flapping_cause_resumes_only_after_it_was_gone_for_the_hysteresis() {
    let mut node = Node::new();
    for _ in 0..50 {
        node.inputs.own_use = true;
        assert_eq!(node.after(Duration::from_secs(1)).state, State::Paused);
        node.inputs.own_use = false;
        assert_eq!(node.after(minutes(1)).state, State::Paused);
    }
    assert_eq!(node.wait_for(State::Sharing), minutes(1));
}

#[test]
fn what_the_host_commands_takes_effect_at_once_both_ways() {
    let mut node = Node::new();
    node.inputs.pause = Some(HostPause { until: None });
    assert_eq!(codes(&node.decide()), [PauseCode::PausedByHost]);
    node.inputs.pause = None;
    assert_eq!(node.after(Duration::from_secs(1)).state, State::Sharing);
    node.inputs.pause = Some(pause_for(minutes(60), &node.now));
    assert_eq!(node.wait_for(State::Sharing), minutes(60));
}

#[test]
fn a_window_closes_and_opens_on_the_minute() {
    let mut node = Node::new();
    node.settings.windows = "22:00-07:00".parse().unwrap();
    assert_eq!(codes(&node.decide()), [PauseCode::OutsideWindow]);
    assert_eq!(node.wait_for(State::Sharing), minutes(7 * 60 + 40));
    assert_eq!(node.wait_for(State::Paused), minutes(9 * 60));
}

#[test]
fn an_exception_opens_and_closes_what_the_week_does_not() {
    let mut node = Node::new();
    node.settings.windows = "22:00-07:00".parse().unwrap();
    node.settings.exceptions =
        "2026-11-21 15:00-16:00 open; 2026-11-21 22:00 - 2026-11-22 12:00 closed".parse().unwrap();
    assert_eq!(node.wait_for(State::Sharing), minutes(40));
    assert_eq!(node.wait_for(State::Paused), minutes(60));
    assert_eq!(node.wait_for(State::Sharing), minutes(30 * 60), "the night is left out");
}

#[test]
fn a_pause_for_an_hour_ends_after_it_although_the_clock_was_set_back_a_day() {
    let mut node = Node::new();
    node.inputs.pause = Some(pause_for(minutes(60), &node.now));
    node.decide();
    node.now.wall -= SignedDuration::from_hours(24);
    assert_eq!(node.wait_for(State::Sharing), minutes(60));
    let decision = node.decide();
    assert!(decision.since <= node.now.unix(), "nothing began later than now");
}

#[test]
fn sharing_now_ends_after_its_time_although_the_clock_was_set_back_a_day() {
    let mut node = Node::new();
    node.settings.windows = "never".parse().unwrap();
    node.inputs.share_now_until = Some(Deadline::at(node.now.later(minutes(60)).wall, &node.now));
    assert_eq!(node.decide().state, State::Sharing);
    node.now.wall -= SignedDuration::from_hours(24);
    assert_eq!(node.wait_for(State::Paused), minutes(60));
}

#[test]
fn sharing_now_puts_aside_person_and_hours_and_no_limit_game_or_pause() {
    let now = |change: &dyn Fn(&mut Node)| {
        let mut node = Node::new();
        node.inputs.presence = PresenceReading::Active { since: node.now.monotonic };
        node.settings.windows = "never".parse().unwrap();
        assert_eq!(node.decide().state, State::Paused);
        change(&mut node);
        node.inputs.share_now_until = Some(Deadline::at(node.now.later(minutes(60)).wall, &node.now));
        codes(&node.decide())
    };
    assert_eq!(now(&|_| {}), []);
    assert_eq!(now(&|node| node.inputs.presence = PresenceReading::Blind), []);
    assert_eq!(now(&|node| node.inputs.temperatures = vec![celsius(90)]), [PauseCode::TooHot]);
    assert_eq!(now(&|node| node.inputs.activity.games = vec![app("a game")]), [PauseCode::Game]);
    assert_eq!(
        now(&|node| node.inputs.machine.supply = Some(Supply::Battery { percent: Some(90) })),
        [PauseCode::OnBattery]
    );
    assert_eq!(now(&|node| node.inputs.pause = Some(HostPause { until: None })), [PauseCode::PausedByHost]);
    // The host who said so does not wait for what just ended.
    assert_eq!(
        now(&|node| {
            node.inputs.own_use = true;
            node.decide();
            node.inputs.own_use = false;
        }),
        []
    );
}

#[test]
fn behind_a_lock_the_hysteresis_is_waited_for_and_not_the_idle_time() {
    let mut node = Node::new();
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    node.inputs.activity.locked = Some(true);
    assert_eq!(node.wait_for(State::Sharing), minutes(2));
    // Unlocked by a finger, with no key pressed: ten minutes from the last input are not over.
    node.inputs.activity.locked = Some(false);
    assert_eq!(codes(&node.decide()), [PauseCode::PersonHere]);
    // The hysteresis runs from the lock, or one that comes and goes would make sharing flap.
    node.inputs.activity.locked = Some(true);
    assert_eq!(node.wait_for(State::Sharing), minutes(2));
    node.inputs.activity.locked = Some(false);
    node.settings.locked_is_away = false;
    node.inputs.activity.locked = Some(true);
    assert_eq!(node.wait_for(State::Sharing), minutes(6));
}

#[test]
fn the_hosts_own_devices_pass_people_and_hours_and_nothing_else() {
    let admits = |own_devices: bool, change: &dyn Fn(&mut Node)| {
        let mut node = Node::new();
        node.settings.own_devices = own_devices;
        change(&mut node);
        let decision = node.decide();
        assert!(!decision.admits(false));
        decision.admits(true)
    };
    let here = |node: &mut Node| node.inputs.presence = PresenceReading::Active { since: node.now.monotonic };
    assert!(admits(true, &here) && !admits(false, &here));
    assert!(admits(true, &|node| node.settings.windows = "never".parse().unwrap()));
    assert!(!admits(true, &|node| node.inputs.activity.games = vec![app("a game")]));
    assert!(!admits(true, &|node| node.inputs.machine.memory_short = Some(true)));
    assert!(!admits(true, &|node| node.inputs.temperatures = vec![celsius(90)]));
}

#[test]
fn a_battery_is_shared_on_from_the_hosts_percent_and_again_a_little_above() {
    let mut node = Node::new();
    node.settings.battery = Battery::From(60);
    node.settings.resume_hysteresis = Duration::ZERO;
    let mut at = |percent| {
        node.inputs.machine.supply = Some(Supply::Battery { percent: Some(percent) });
        node.after(minutes(1)).state
    };
    assert_eq!(
        [61, 60, 59, 60, 64].map(&mut at),
        [State::Sharing, State::Sharing, State::Paused, State::Paused, State::Paused]
    );
    assert_eq!(at(65), State::Sharing);
    node.inputs.machine.supply = Some(Supply::Battery { percent: None });
    assert_eq!(node.decide().state, State::Paused, "nobody tells how full it is");
    node.inputs.machine.supply = Some(Supply::Mains);
    assert_eq!(node.decide().state, State::Sharing);
}

#[test]
fn a_price_above_the_limit_pauses_until_it_falls() {
    let mut node = Node::new();
    node.settings.tariff = Some("0.31 EUR/kWh; 16:00-18:00 0.20; 22:00-06:00 0.25".parse().unwrap());
    node.settings.max_price = idlewatt_core::tariff::Money::of_kilowatt_hour("0.22 EUR/kWh");
    assert_eq!(node.decide().until(), Some(node.now.later(minutes(100)).unix()));
    assert_eq!(node.wait_for(State::Sharing), minutes(100));
    assert_eq!(node.wait_for(State::Paused), minutes(120));
}

#[test]
fn a_pause_is_told_to_end_when_it_will_and_not_when_its_last_reason_does() {
    let mut node = Node::new();
    // At 16:00 it gets cheap, outside the hours; when these begin at 18:00, it is dear until 22:00.
    node.settings.windows = "18:00-24:00".parse().unwrap();
    node.settings.tariff = Some("0.31 EUR/kWh; 16:00-18:00 0.20; 22:00-06:00 0.20".parse().unwrap());
    node.settings.max_price = idlewatt_core::tariff::Money::of_kilowatt_hour("0.22 EUR/kWh");
    let until = node.decide().until();
    assert_eq!(until, Some(node.now.later(minutes(7 * 60 + 40)).unix()));
    assert_eq!(node.wait_for(State::Sharing), minutes(7 * 60 + 40));
}

#[test]
fn a_program_of_the_list_pauses_or_lowers_the_cap_as_the_host_said() {
    let mut node = Node::new();
    node.settings.apps = "Blender, OBS Studio=cap".parse().unwrap();
    node.inputs.activity.listed = vec![app("obs studio")];
    let decision = node.decide();
    assert_eq!((decision.state, decision.lowered.is_some()), (State::Sharing, true));
    node.inputs.activity.listed.push(app("blender"));
    assert_eq!(codes(&node.decide()), [PauseCode::ListedApp]);
    for wrong in ["blender=never", "=cap"] {
        assert!(wrong.parse::<idlewatt_core::policy::AppRules>().is_err(), "{wrong}");
    }
}

#[test]
fn sharing_while_somebody_is_here_is_under_the_lower_cap() {
    let mut node = Node::new();
    node.settings.while_active = true;
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    assert!(node.decide().lowered.is_some());
    assert!(node.after(minutes(10)).lowered.is_none());
}

#[test]
fn what_a_person_does_cancels_and_what_a_rule_says_lets_requests_end() {
    let told = |change: &dyn Fn(&mut Node)| {
        let mut node = Node::new();
        change(&mut node);
        let decision = node.decide();
        (decision.urgency(), decision.frees())
    };
    let game = |node: &mut Node| node.inputs.activity.games = vec![app("a game")];
    let here = |node: &mut Node| node.inputs.presence = PresenceReading::Active { since: node.now.monotonic };
    let closed = |node: &mut Node| node.settings.windows = "never".parse().unwrap();
    assert_eq!(told(&|_| {}), (None, None));
    assert_eq!(told(&game), (Some(Urgency::Now), Some(Freeing::AtOnce)));
    assert_eq!(told(&here), (Some(Urgency::Now), Some(Freeing::AfterActivity)));
    assert_eq!(told(&closed), (Some(Urgency::Drain), Some(Freeing::AfterStandby)));
    assert_eq!(
        told(&|node| node.inputs.temperatures = vec![celsius(90)]),
        (Some(Urgency::Drain), Some(Freeing::AfterStandby))
    );
    assert_eq!(told(&|node| node.inputs.own_use = true), (Some(Urgency::Now), Some(Freeing::Never)));
    // Of several the most urgent; and what the host uses is not taken away.
    assert_eq!(
        told(&|node| {
            closed(node);
            game(node);
        }),
        (Some(Urgency::Now), Some(Freeing::AtOnce))
    );
    let both = |node: &mut Node| {
        game(node);
        node.inputs.own_use = true;
    };
    assert_eq!(told(&both), (Some(Urgency::Now), Some(Freeing::Never)));
}

#[test]
fn a_clock_that_jumps_while_a_window_is_awaited_is_seen_within_a_minute() {
    let mut node = Node::new();
    node.settings.windows = "22:00-07:00".parse().unwrap();
    let wake = node.decide().wake.unwrap();
    assert!(wake.at - node.now.monotonic <= minutes(1));
}

#[test]
fn the_reason_that_ends_first_comes_first_and_sharing_resumes_when_the_last_has() {
    let mut node = Node::new();
    node.settings.windows = "22:00-07:00".parse().unwrap();
    node.inputs.pause = Some(pause_for(minutes(60), &node.now));
    node.inputs.joined = 0;
    let decision = node.decide();
    assert_eq!(codes(&decision), [PauseCode::PausedByHost, PauseCode::OutsideWindow, PauseCode::NoNetwork]);
    assert_eq!(decision.until(), None);
    node.inputs.joined = 1;
    assert_eq!(node.decide().until(), Some(node.now.later(minutes(7 * 60 + 40)).unix()));
}

#[test]
fn a_reason_keeps_the_moment_since_which_it_holds() {
    let mut node = Node::new();
    node.inputs.ready = 0;
    let since = node.decide().reasons[0].since;
    assert_eq!(node.after(minutes(5)).reasons[0].since, since);
    assert_eq!(node.after(minutes(5)).since, since);
    node.inputs.ready = 1;
    assert_eq!(node.after(minutes(5)).since, node.now.unix());
}

#[test]
fn without_a_connection_it_is_offline_and_not_paused() {
    let mut node = Node::new();
    node.inputs.connected = 0;
    let decision = node.decide();
    assert_eq!((decision.state, decision.reasons.len()), (State::Offline, 0));
}

#[test]
fn every_state_and_reason_reads_as_a_person_would_say_it() {
    let mut said = Vec::new();
    let mut say = |change: &dyn Fn(&mut Node)| {
        let mut node = Node::new();
        change(&mut node);
        let decision = node.decide();
        let scene = Scene {
            running: 0,
            models: vec!["qwen3-30b".into()],
            networks: vec!["garage".into()],
            last_request: Some(UnixMillis(
                "2026-11-17T18:40:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond(),
            )),
            power: Some(Milliwatts(9_300)),
        };
        said.push(sentence::state(&decision, &scene, &node.now));
        for reason in &decision.reasons {
            said.push(format!("  {:?}: {}", reason.code(), sentence::reason(reason, &node.now)));
        }
        if decision.state == State::Sharing {
            said.push(sentence::state(
                &decision,
                &Scene { last_request: None, power: None, ..scene.clone() },
                &node.now,
            ));
            said.push(sentence::state(&decision, &Scene { running: 1, ..scene.clone() }, &node.now));
            said.push(sentence::state(
                &decision,
                &Scene { running: 3, power: Some(Milliwatts(214_600)), ..scene },
                &node.now,
            ));
        }
    };
    say(&|_| {});
    say(&|node| node.inputs.connected = 0);
    say(&|node| node.inputs.presence = PresenceReading::Active { since: node.now.monotonic });
    say(&|node| node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic - minutes(3) });
    say(&|node| node.inputs.presence = PresenceReading::Blind);
    say(&|node| node.inputs.pause = Some(HostPause { until: None }));
    say(&|node| node.inputs.pause = Some(pause_for(minutes(60), &node.now)));
    say(&|node| node.inputs.pause = Some(pause_for(minutes(15 * 60 + 40), &node.now)));
    say(&|node| node.settings.windows = "22:00-07:00".parse().unwrap());
    say(&|node| node.settings.windows = "Tue 08:00-09:00".parse().unwrap());
    say(&|node| node.inputs.temperatures = vec![celsius(81)]);
    say(&|node| {
        node.inputs.own_use = true;
        node.decide();
        node.inputs.own_use = false;
    });
    say(&|node| node.inputs.own_use = true);
    say(&|node| (node.inputs.shared, node.inputs.ready) = (0, 0));
    say(&|node| node.inputs.ready = 0);
    say(&|node| node.inputs.joined = 0);
    say(&|node| node.inputs.stopping = true);
    say(&|node| {
        node.settings.remote_logins = false;
        node.inputs.activity.remote_logins = 2;
    });
    say(&|node| node.inputs.activity.games = vec![app("Baldur's Gate 3")]);
    say(&|node| node.inputs.activity.full_screen = Some(app("mpv")));
    say(&|node| node.inputs.activity.listed = vec![app("blender")]);
    say(&|node| node.inputs.activity.call = Some(app("Signal")));
    say(&|node| node.inputs.foreign = vec![foreign(Some(83), None)]);
    say(&|node| node.inputs.foreign = vec![foreign(None, Some(5_300_000_000))]);
    say(&|node| node.inputs.machine.memory_short = Some(true));
    say(&|node| node.inputs.machine.supply = Some(Supply::Battery { percent: Some(80) }));
    say(&|node| {
        node.settings.battery = Battery::From(60);
        node.inputs.machine.supply = Some(Supply::Battery { percent: Some(41) });
    });
    say(&|node| node.inputs.machine.lid_closed = Some(true));
    say(&|node| node.inputs.machine.metered = Some(true));
    say(&|node| node.inputs.machine.going_to_sleep = true);
    say(&|node| {
        node.settings.tariff = Some("0.31 EUR/kWh; 22:00-06:00 0.22".parse().unwrap());
        node.settings.max_price = idlewatt_core::tariff::Money::of_kilowatt_hour("0.25 EUR/kWh");
    });
    say(&|node| {
        node.settings.windows = "never".parse().unwrap();
        node.inputs.share_now_until = Some(Deadline::at(node.now.later(minutes(60)).wall, &node.now));
    });
    say(&|node| {
        node.inputs.presence = PresenceReading::Active { since: node.now.monotonic };
        node.settings.windows = "22:00-07:00".parse().unwrap();
        node.inputs.temperatures = vec![celsius(81)];
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn the_rules_in_force_read_as_a_person_would_say_them() {
    let mut told = Vec::new();
    let mut tell = |settings: &Settings, zone: Option<TimeZone>| {
        let now = Now { zone: zone.unwrap_or(start().zone), ..start() };
        told.push(sentence::rules(settings, 50, &now).join("\n"));
    };
    tell(&Settings::default(), None);
    let busy = Settings {
        windows: "Mon-Fri 22:00-07:00".parse().unwrap(),
        exceptions: "2026-12-24 closed".parse().unwrap(),
        while_active: true,
        apps: "blender, krita, OBS Studio=cap".parse().unwrap(),
        remote_logins: false,
        battery: Battery::From(60),
        tariff: Some("0.31 EUR/kWh".parse().unwrap()),
        max_price: idlewatt_core::tariff::Money::of_kilowatt_hour("0.25 EUR/kWh"),
        own_devices: false,
        ..Settings::default()
    };
    tell(&busy, Some(TimeZone::unknown()));
    let lax = Settings {
        idle_after: Duration::ZERO,
        games: true,
        full_screen: true,
        calls: true,
        gpu_load: None,
        gpu_memory: None,
        battery: Battery::From(0),
        lid_closed: true,
        metered: true,
        ..Settings::default()
    };
    tell(&lax, None);
    insta::assert_snapshot!(told.join("\n\n"));
}

#[test]
fn the_time_ahead_is_told_in_stretches_without_gaps() {
    let mut node = Node::new();
    node.settings.windows = "22:00-07:00".parse().unwrap();
    node.inputs.presence = PresenceReading::Idle { last_input: node.now.monotonic };
    node.decide();
    let ahead = SignedDuration::from_hours(48);
    let stretches = node.policy.outlook(&node.settings, &node.inputs, &node.now, ahead, 64);
    let told: Vec<String> = stretches
        .iter()
        .map(|it| {
            let from = it.from.to_zoned(node.now.zone.clone()).strftime("%a %H:%M");
            format!("{from} {}", sentence::stretch(it, &node.now))
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
    assert!(stretches.windows(2).all(|two| two[0].until == Some(two[1].from)));
}
