//! The share policy with a manual clock: when it pauses, when it resumes, and what it says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::time::{Duration, Instant};

use idlewatt_core::Now;
use idlewatt_core::now::Deadline;
use idlewatt_core::policy::{Decision, HostPause, Inputs, Policy, Settings, State};
use idlewatt_core::presence::PresenceReading;
use idlewatt_core::sentence::{self, Scene};
use idlewatt_protocol::{Milliwatts, PauseCode, UnixMillis};
use jiff::tz::TimeZone;
use proptest::prelude::*;

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
        hottest_c: Some(50),
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
        node.inputs.hottest_c = Some(reading);
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
    say(&|node| node.inputs.hottest_c = Some(81));
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
        node.inputs.presence = PresenceReading::Active { since: node.now.monotonic };
        node.settings.windows = "22:00-07:00".parse().unwrap();
        node.inputs.hottest_c = Some(81);
    });
    insta::assert_snapshot!(said.join("\n"));
}

#[derive(Clone, Debug)]
struct Step {
    seconds: u64,
    presence: u8,
    idle: u64,
    pause: Option<u64>,
    hottest_c: Option<i32>,
    own_use: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        1_u64..4_000,
        0_u8..4,
        0_u64..2_000,
        proptest::option::weighted(0.2, 0_u64..5_000),
        proptest::option::weighted(0.9, 60_i32..90),
        proptest::bool::weighted(0.2),
    );
    let step = step.prop_map(|(seconds, presence, idle, pause, hottest_c, own_use)| Step {
        seconds,
        presence,
        idle,
        pause,
        hottest_c,
        own_use,
    });
    proptest::collection::vec(step, 1..60)
}

const WINDOWS: [&str; 4] =
    ["always", "Mon-Fri 22:00-07:00, Sat-Sun 00:00-24:00", "Mon-Fri 22:00-07:00", "Mon-Fri 23:00-06:00"];

/// Settings, and the same tightened: each limit the same or stricter.
fn tightened() -> impl Strategy<Value = (Settings, Settings)> {
    let ordered = |top: u64| (0..top, 0..top).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let windows =
        (0..WINDOWS.len(), 0..WINDOWS.len()).prop_map(|(one, other)| (one.min(other), one.max(other)));
    (ordered(1_500), ordered(600), windows, any::<(bool, bool)>(), (65_i32..88, 0_i32..10)).prop_map(
        |(idle, hysteresis, windows, active, (limit, stricter))| {
            let settings = |idle, hysteresis, windows: usize, while_active, thermal_limit_c| Settings {
                idle_after: Duration::from_secs(idle),
                resume_hysteresis: Duration::from_secs(hysteresis),
                windows: WINDOWS[windows].parse().unwrap(),
                while_active,
                thermal_limit_c,
                ..Settings::default()
            };
            let loose = settings(idle.0, hysteresis.0, windows.0, active.0 || active.1, limit);
            let tight = settings(idle.1, hysteresis.1, windows.1, active.0 && active.1, limit - stricter);
            (loose, tight)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tightening_any_limit_never_widens_sharing((loose, tight) in tightened(), steps in steps()) {
        let (mut by_loose, mut by_tight) = (Policy::default(), Policy::default());
        let mut now = start();
        for step in steps {
            now = now.later(Duration::from_secs(step.seconds));
            let presence = match step.presence {
                0 => PresenceReading::Headless,
                1 => PresenceReading::Active { since: now.monotonic },
                2 => PresenceReading::Idle { last_input: now.monotonic - Duration::from_secs(step.idle) },
                _ => PresenceReading::Blind,
            };
            let pause = step.pause.map(|seconds| pause_for(Duration::from_secs(seconds), &now));
            let inputs =
                Inputs { presence, pause, hottest_c: step.hottest_c, own_use: step.own_use, ..ready() };
            let (wide, narrow) = (by_loose.decide(&loose, &inputs, &now), by_tight.decide(&tight, &inputs, &now));
            prop_assert!(
                narrow.state != State::Sharing || wide.state == State::Sharing,
                "tight shares, loose has {:?}", wide.reasons
            );
            // Nothing that is paused until a moment is forgotten then, and no wake-up is past.
            for decision in [&wide, &narrow] {
                prop_assert!(decision.wake.is_none_or(|wake| wake.at > now.monotonic));
                if decision.until().is_some() {
                    prop_assert!(decision.wake.is_some());
                }
            }
        }
    }
}
