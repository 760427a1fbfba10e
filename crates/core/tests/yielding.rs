//! Giving the GPU back: what is cut when, what is freed when, and when freeing is believed.

use std::time::{Duration, Instant};

use idlewatt_core::policy::{Freeing, Urgency};
use idlewatt_core::yielding::unloading::{
    Answer, HOST_PATIENCE, Order, PATIENCE, Sight, Unloading, Verdict, Whose,
};
use idlewatt_core::yielding::{Claim, Effect, Memory, Running, Settings, Stopped, Yielding};
use idlewatt_protocol::PauseCode;
use proptest::prelude::*;

const SETTINGS: Settings = Settings {
    drain: Duration::from_secs(30),
    free_after: Some(Duration::from_secs(30)),
    standby: Some(Duration::from_secs(600)),
};

const fn claim(code: PauseCode, urgency: Urgency, frees: Freeing) -> Claim {
    Claim { code, urgency, frees, active: true }
}

const INPUT: Claim = claim(PauseCode::PersonHere, Urgency::Now, Freeing::AfterActivity);
const STILL: Claim = Claim { active: false, ..INPUT };
const GAME: Claim = claim(PauseCode::Game, Urgency::Now, Freeing::AtOnce);
const WINDOW: Claim = claim(PauseCode::OutsideWindow, Urgency::Drain, Freeing::AfterStandby);
const OWN_USE: Claim = claim(PauseCode::OwnUse, Urgency::Now, Freeing::Never);

/// A machine that shares, and its clock.
struct Bench {
    yielding: Yielding,
    begun: Instant,
    now: Instant,
}

impl Bench {
    fn sharing() -> Self {
        let now = Instant::now();
        let mut it = Self { yielding: Yielding::default(), begun: now, now };
        assert_eq!(it.step(&[], 0), [], "a node that begins to share gives nothing back");
        it
    }

    fn at(&mut self, seconds: f64) -> &mut Self {
        self.now = self.begun + Duration::from_secs_f64(seconds);
        self
    }

    fn step(&mut self, claims: &[Claim], running: u32) -> Vec<Effect> {
        self.with(claims, Running { unwanted: running, all: running })
    }

    fn with(&mut self, claims: &[Claim], running: Running) -> Vec<Effect> {
        self.yielding.step(&SETTINGS, claims, running, self.now)
    }
}

fn stopped(effects: &[Effect]) -> Option<Stopped> {
    effects.iter().find_map(|it| match it {
        Effect::Stopped(stopped) => Some(*stopped),
        _ => None,
    })
}

fn freed_for(effects: &[Effect]) -> Option<PauseCode> {
    effects.iter().find_map(|it| match it {
        Effect::Free { cause, .. } => Some(*cause),
        _ => None,
    })
}

#[test]
fn a_person_cuts_at_once_and_the_weights_stay_until_they_were_active_for_long() {
    let mut bench = Bench::sharing();
    assert_eq!(bench.at(1.0).step(&[INPUT], 2), [Effect::Cut]);
    let end = stopped(&bench.at(1.004).step(&[INPUT], 0)).unwrap();
    assert_eq!(
        (end.cause, end.requests, end.closed - end.seen),
        (PauseCode::PersonHere, 2, Duration::from_millis(4))
    );
    assert_eq!(bench.yielding.memory(false), Memory::MayStay);
    assert_eq!(bench.yielding.wake().unwrap().at, bench.begun + Duration::from_secs(31));
    assert_eq!(bench.at(30.9).step(&[INPUT], 0), []);
    assert_eq!(freed_for(&bench.at(31.0).step(&[INPUT], 0)), Some(PauseCode::PersonHere));
    assert_eq!(bench.yielding.memory(false), Memory::Free);
    assert_eq!(bench.at(40.0).step(&[INPUT], 0), [], "once");
}

#[test]
fn who_only_touches_the_mouse_keeps_the_model_loaded() {
    let mut bench = Bench::sharing();
    bench.at(1.0).step(&[INPUT], 0);
    bench.at(3.0).step(&[STILL], 0);
    assert_eq!(bench.yielding.wake(), None, "nobody is waited for");
    for touch in [60.0, 120.0, 180.0] {
        assert_eq!(bench.at(touch).step(&[INPUT], 0), []);
        assert_eq!(bench.at(touch + 2.0).step(&[STILL], 0), []);
    }
    // With pauses shorter than the time itself it is one stretch of activity.
    for touch in [240.0, 250.0, 260.0] {
        assert_eq!(bench.at(touch).step(&[INPUT], 0), []);
        assert_eq!(bench.at(touch + 2.0).step(&[STILL], 0), []);
    }
    assert_eq!(freed_for(&bench.at(270.0).step(&[INPUT], 0)), Some(PauseCode::PersonHere));
}

#[test]
fn a_game_frees_once_the_last_connection_is_closed_and_not_before() {
    let mut bench = Bench::sharing();
    assert_eq!(bench.at(1.0).step(&[GAME], 1), [Effect::Cut]);
    assert_eq!(bench.at(1.001).step(&[GAME], 1), []);
    let effects = bench.at(1.002).step(&[GAME], 0);
    assert!(
        matches!(effects[..], [Effect::Stopped(_), Effect::Free { cause: PauseCode::Game, .. }]),
        "{effects:?}"
    );
}

#[test]
fn a_game_that_comes_after_a_person_frees_for_itself() {
    let mut bench = Bench::sharing();
    bench.at(1.0).step(&[INPUT], 0);
    let effects = bench.at(5.0).step(&[INPUT, GAME], 0);
    assert_eq!(effects, [Effect::Free { cause: PauseCode::Game, seen: bench.now }]);
}

#[test]
fn a_window_that_closes_lets_requests_end_until_the_deadline() {
    let mut bench = Bench::sharing();
    let until = bench.begun + Duration::from_secs(31);
    assert_eq!(bench.at(1.0).step(&[WINDOW], 2), [Effect::Drain { until }]);
    assert_eq!(bench.yielding.wake().unwrap().at, until);
    assert_eq!(bench.at(10.0).step(&[WINDOW], 1), []);
    let effects = bench.at(31.0).step(&[WINDOW], 1);
    assert_eq!(effects, [Effect::Cut]);
    let end = stopped(&bench.at(31.01).step(&[WINDOW], 0)).unwrap();
    assert_eq!((end.requests, end.cut.is_some(), end.drained), (1, true, Some(end.seen)));
    assert_eq!(bench.yielding.memory(false), Memory::MayStay, "the memory goes with standby");
}

#[test]
fn what_ends_by_itself_in_a_drain_is_not_cut() {
    let mut bench = Bench::sharing();
    bench.at(1.0).step(&[WINDOW], 1);
    let end = stopped(&bench.at(4.0).step(&[WINDOW], 0)).unwrap();
    assert_eq!((end.requests, end.cut, end.closed - end.seen), (0, None, Duration::from_secs(3)));
}

#[test]
fn a_hard_reason_cuts_a_drain_and_is_what_is_told() {
    let mut bench = Bench::sharing();
    bench.at(1.0).step(&[WINDOW], 1);
    assert_eq!(bench.at(2.0).step(&[WINDOW, INPUT], 1), [Effect::Cut]);
    let end = stopped(&bench.at(2.003).step(&[WINDOW, INPUT], 0)).unwrap();
    assert_eq!((end.cause, end.closed - end.seen), (PauseCode::PersonHere, Duration::from_millis(3)));
}

#[test]
fn a_soft_reason_that_passes_within_its_drain_gives_nothing_back() {
    let mut bench = Bench::sharing();
    bench.at(1.0).step(&[WINDOW], 1);
    assert_eq!(bench.at(2.0).step(&[], 1), []);
    assert!(!bench.yielding.is_ending());
    assert_eq!(bench.at(3.0).step(&[INPUT], 1), [Effect::Cut]);
}

#[test]
fn what_the_host_uses_is_never_unloaded_unless_the_host_asks_for_everything() {
    let mut bench = Bench::sharing();
    bench.at(1.0).step(&[OWN_USE, GAME], 0);
    assert_eq!(bench.yielding.memory(false), Memory::MayStay);
    let paused = claim(PauseCode::PausedByHost, Urgency::Now, Freeing::AtOnce);
    bench.yielding.demand(bench.now);
    let effects = bench.at(2.0).step(&[OWN_USE, GAME, paused], 0);
    assert_eq!(freed_for(&effects), Some(PauseCode::PausedByHost));
    assert_eq!(bench.at(3.0).step(&[OWN_USE, GAME, paused], 0), [], "once");
    assert_eq!(bench.yielding.memory(false), Memory::Free, "for as long as it is used");
    assert_eq!(freed_for(&bench.at(9.0).step(&[GAME, paused], 0)), Some(PauseCode::Game));
}

#[test]
fn a_harder_reason_that_comes_while_requests_are_cut_cuts_what_was_let_go_on() {
    let mut bench = Bench::sharing();
    assert_eq!(bench.at(1.0).with(&[INPUT], Running { unwanted: 1, all: 2 }), [Effect::Cut]);
    assert_eq!(bench.at(1.001).with(&[INPUT, GAME], Running { unwanted: 2, all: 2 }), [Effect::Cut]);
    assert_eq!(bench.at(1.002).with(&[INPUT, GAME], Running { unwanted: 1, all: 1 }), []);
}

#[test]
fn own_devices_go_on_under_a_person_and_are_cut_by_a_game() {
    let mut bench = Bench::sharing();
    assert_eq!(bench.at(1.0).with(&[INPUT], Running { unwanted: 1, all: 2 }), [Effect::Cut]);
    assert!(stopped(&bench.at(1.01).with(&[INPUT], Running { unwanted: 0, all: 1 })).is_some());
    assert_eq!(bench.at(40.0).with(&[INPUT], Running { unwanted: 0, all: 1 }), [], "not under a request");
    assert_eq!(bench.at(50.0).with(&[INPUT, GAME], Running { unwanted: 1, all: 1 }), [Effect::Cut]);
    let effects = bench.at(50.01).with(&[INPUT, GAME], Running { unwanted: 0, all: 0 });
    assert_eq!(stopped(&effects).unwrap().cause, PauseCode::Game);
    assert_eq!(freed_for(&effects), Some(PauseCode::Game));
}

#[test]
fn a_node_that_begins_paused_has_given_nothing_back() {
    let now = Instant::now();
    let mut yielding = Yielding::default();
    assert_eq!(yielding.step(&SETTINGS, &[INPUT], Running::default(), now), []);
}

const GB: u64 = 1_000_000_000;

const fn holds(vram: u64) -> Sight {
    Sight { vram: Some(vram), busy: false, gone: false }
}

#[test]
fn an_unload_is_believed_when_the_memory_has_fallen() {
    let now = Instant::now();
    let (mut it, order) = Unloading::begin(Whose::Others, 1, holds(6 * GB), now);
    assert_eq!(order, Order::Ask);
    assert_eq!(it.answered(Answer::Agreed, now), Order::Look);
    assert_eq!(it.saw(holds(6 * GB), now), Order::Look);
    // A driver's context stays with a process that has used a card.
    assert_eq!(it.saw(holds(GB / 3), now), Order::Done(Verdict::Freed(Some(6 * GB - GB / 3))));
}

#[test]
fn one_of_two_models_is_its_share() {
    let now = Instant::now();
    let (mut it, _) = Unloading::begin(Whose::Others, 2, holds(8 * GB), now);
    it.answered(Answer::Agreed, now);
    assert_eq!(it.saw(holds(7 * GB), now), Order::Look);
    assert_eq!(it.saw(holds(5 * GB), now), Order::Done(Verdict::Freed(Some(3 * GB))));
}

#[test]
fn a_server_that_says_yes_and_keeps_its_memory_is_asked_again_and_found_out() {
    let mut now = Instant::now();
    let (mut it, mut order) = Unloading::begin(Whose::Others, 1, holds(6 * GB), now);
    let mut asked = 0;
    let verdict = loop {
        now += Duration::from_millis(50);
        order = match order {
            Order::Ask => {
                asked += 1;
                it.answered(Answer::Agreed, now)
            }
            Order::Look => it.saw(holds(6 * GB), now),
            Order::Done(verdict) => break verdict,
            other => panic!("{other:?}"),
        };
    };
    assert_eq!((asked, verdict), (5, Verdict::Kept(6 * GB)));
}

#[test]
fn a_server_that_is_busy_for_the_host_is_asked_again_when_it_is_not() {
    let begun = Instant::now();
    let (mut it, _) = Unloading::begin(Whose::Others, 1, holds(6 * GB), begun);
    it.answered(Answer::Agreed, begun);
    let busy = Sight { busy: true, ..holds(6 * GB) };
    let late = begun + PATIENCE;
    assert_eq!(it.saw(busy, late), Order::LookLater);
    assert_eq!(it.saw(busy, begun + HOST_PATIENCE - PATIENCE), Order::LookLater);
    assert_eq!(it.saw(holds(6 * GB), begun + HOST_PATIENCE - PATIENCE), Order::Ask);
}

#[test]
fn a_server_at_work_is_asked_again_once_its_request_has_ended() {
    let begun = Instant::now();
    let (mut it, _) = Unloading::begin(Whose::Others, 1, holds(6 * GB), begun);
    assert_eq!(it.answered(Answer::AtWork, begun), Order::LookLater);
    let busy = Sight { busy: true, ..holds(6 * GB) };
    assert_eq!(it.saw(busy, begun + PATIENCE), Order::LookLater);
    assert_eq!(it.saw(holds(6 * GB), begun + 2 * PATIENCE), Order::Ask);
    it.answered(Answer::Agreed, begun + 2 * PATIENCE);
    assert_eq!(it.saw(holds(0), begun + 2 * PATIENCE), Order::Done(Verdict::Freed(Some(6 * GB))));
}

#[test]
fn where_nothing_tells_of_memory_nothing_is_claimed() {
    let now = Instant::now();
    for sight in [Sight::default(), holds(0)] {
        let (mut it, _) = Unloading::begin(Whose::Others, 1, sight, now);
        it.answered(Answer::Agreed, now);
        assert_eq!(it.saw(sight, now), Order::Done(Verdict::Unseen));
    }
}

#[test]
fn a_server_of_ones_own_is_ended_and_its_end_is_its_freeing() {
    let now = Instant::now();
    let (mut it, order) = Unloading::begin(Whose::Own, 1, Sight::default(), now);
    assert_eq!(order, Order::End);
    assert_eq!(it.saw(Sight::default(), now), Order::Look);
    assert_eq!(it.saw(Sight { gone: true, ..Sight::default() }, now), Order::Done(Verdict::Freed(None)));
}

#[test]
fn a_server_that_cannot_is_not_asked_twice() {
    let now = Instant::now();
    let (mut it, _) = Unloading::begin(Whose::Others, 1, holds(6 * GB), now);
    assert_eq!(it.answered(Answer::Refused, now), Order::Done(Verdict::Refused));
}

fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
    proptest::sample::subsequence(vec![INPUT, GAME, WINDOW, OWN_USE], 0..=4)
}

proptest! {
    /// Whatever comes in whatever order: a hard reason leaves nothing unwanted running uncut, nothing is freed under a
    /// request, and what the host uses is not freed at all.
    #[test]
    fn a_hard_reason_is_never_waited_out(steps in proptest::collection::vec((any_claims(), 0u32..3, 0u64..40), 1..60)) {
        let begun = Instant::now();
        let (mut yielding, mut now, mut uncut) = (Yielding::default(), begun, 0);
        for (claims, came, seconds) in steps {
            now += Duration::from_secs(seconds);
            // Requests come only while nothing speaks against them.
            if claims.is_empty() { uncut += came; }
            let running = Running { unwanted: uncut, all: uncut };
            let effects = yielding.step(&SETTINGS, &claims, running, now);
            let cut = effects.contains(&Effect::Cut);
            if claims.iter().any(|it| it.urgency == Urgency::Now) {
                prop_assert!(cut || uncut == 0, "{claims:?}");
            }
            if let Some(cause) = freed_for(&effects) {
                prop_assert_eq!(uncut, 0);
                prop_assert!(!claims.contains(&OWN_USE), "{:?}", cause);
            }
            if cut { uncut = 0; }
        }
    }
}
