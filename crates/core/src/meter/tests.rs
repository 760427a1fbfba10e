use super::*;
use crate::device::Power;

const CARD: &str = "GPU-a";

struct Bench {
    meter: Meter,
    at: Instant,
    counter: Option<i64>,
}

impl Bench {
    fn new() -> Self {
        Self { meter: Meter::default(), at: Instant::now(), counter: None }
    }

    /// Reads a card that has drawn `watts` for `time`, ten times a second.
    fn draw(&mut self, watts: i64, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.at += SECOND / 10;
            self.read(CARD, Some(watts));
        }
    }

    /// Twenty requests that run alone, so that tokens have a known cost: 1 J a prompt token, 10 J a generated one.
    fn taught() -> Self {
        let mut bench = Self::idle_loaded(40);
        for (prompt, completion) in [(200, 101), (1000, 21), (100, 201), (1500, 2)].repeat(5) {
            bench.begin(99, on_card());
            bench.draw(240, prompt / 200 * SECOND);
            bench.progress(99, prompt, 1);
            for token in 2..=completion {
                bench.at += SECOND / 20;
                bench.read(CARD, Some(240));
                bench.progress(99, prompt, token);
            }
            bench.end(99);
            bench.draw(40, 10 * SECOND);
        }
        bench.meter.take();
        bench
    }

    fn read(&mut self, card: &str, watts: Option<i64>) {
        self.meter.read(&GpuReading {
            power: watts.map(|watts| Power { value: Milliwatts(watts * 1000), averaged: false }),
            energy: self.counter.map(Millijoules),
            ..GpuReading::silent(card, "", self.at)
        });
    }

    fn begin(&mut self, id: u8, place: Place) {
        self.meter.begin(RequestId([id; 16]), task(place), self.at);
    }

    fn end(&mut self, id: u8) -> Energy {
        self.meter.end(RequestId([id; 16]), self.at)
    }

    fn progress(&mut self, id: u8, prompt: u32, completion: u32) {
        self.meter.progress(RequestId([id; 16]), Tokens { prompt, cached: 0, completion });
    }

    /// Teaches the power of the loaded, idle card.
    fn idle_loaded(watts: i64) -> Self {
        let mut bench = Self::new();
        bench.meter.set_purpose(Purpose::Waiting(on_card()), true);
        bench.draw(watts, Duration::from_secs(10));
        bench.meter.take();
        bench
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn task(place: Place) -> Task {
    Task { service: "a model".into(), place, own: false }
}

fn on_card() -> Place {
    Place::Cards(vec![CARD.into()])
}

fn near(energy: Option<Millijoules>, mj: i64, percent: i64) -> bool {
    energy.is_some_and(|it| (it.0 - mj).abs() * 100 <= mj * percent)
}

#[test]
fn a_request_alone_uses_what_the_card_used_and_its_margin_is_above_the_loaded_idle() {
    let mut bench = Bench::idle_loaded(40);
    bench.begin(1, on_card());
    bench.progress(1, 100, 1);
    // The first tenth of a second still rises from 40 W; of these 200 W, 30 ms are added for what a reading is late.
    bench.draw(240, 10 * SECOND);
    let energy = bench.end(1);
    let rise = (10 - 6) * 1000;
    assert_eq!(energy.total_mj, Some(Millijoules(2_400_000 - rise)));
    assert_eq!(energy.marginal_mj, Some(Millijoules(2_000_000 - rise)));
    assert_eq!(energy.label, Label::Measured);
    // A tenth of a second at 40 W and at 240 W, and what power may have done while it rose.
    let (edges, rising): (f64, f64) = (28_000.0, 2.0 * 10_000.0);
    let error = energy.error_mj.unwrap().0 as f64;
    assert!((error - edges.hypot(rising)).abs() <= 1.0, "{error}");
    assert_eq!(bench.meter.baselines()[CARD].loaded, Some(Milliwatts(40_000)));
}

#[test]
fn without_a_baseline_there_is_a_total_and_no_margin() {
    let mut bench = Bench::new();
    bench.read(CARD, Some(200));
    bench.begin(1, on_card());
    bench.draw(200, 2 * SECOND);
    let energy = bench.end(1);
    assert_eq!((energy.marginal_mj, energy.total_mj), (None, Some(Millijoules(400_000))));
}

#[test]
fn less_than_a_second_is_an_estimate_and_nothing_read_is_unknown() {
    let mut bench = Bench::idle_loaded(40);
    bench.begin(1, on_card());
    bench.draw(240, SECOND / 2);
    let short = bench.end(1);
    assert_eq!((short.label, short.error_mj), (Label::Estimated, None));
    bench.begin(2, on_card());
    assert_eq!(bench.end(2), Energy::default());
    bench.begin(3, Place::Elsewhere);
    bench.draw(240, 5 * SECOND);
    assert_eq!(bench.end(3), Energy::default());
}

#[test]
fn two_requests_share_by_the_tokens_that_they_computed() {
    let mut bench = Bench::idle_loaded(1);
    bench.begin(1, on_card());
    bench.begin(2, on_card());
    bench.progress(1, 1, 1);
    bench.progress(2, 1, 1);
    bench.draw(300, 4 * SECOND);
    bench.progress(1, 1, 31);
    bench.progress(2, 1, 11);
    let (one, two) = (bench.end(1), bench.end(2));
    assert!(near(one.marginal_mj, 900_000, 2) && near(two.marginal_mj, 300_000, 2), "{one:?} {two:?}");
}

#[test]
fn a_long_prompt_costs_its_request_and_not_the_one_that_decodes_beside_it() {
    let mut bench = Bench::taught();
    bench.begin(1, on_card());
    bench.progress(1, 1, 1);
    bench.begin(2, on_card());
    for second in 1..=4 {
        bench.draw(240, SECOND);
        bench.progress(1, 1, 1 + second);
        // Asking for the books changes nobody's part.
        bench.meter.take();
    }
    bench.progress(2, 760, 1);
    let (one, two) = (bench.end(1), bench.end(2));
    // Four tokens at 10 J, or less beside a prompt; 760 at 1 J.
    let sum = one.marginal_mj.unwrap() + two.marginal_mj.unwrap();
    assert!(sum.0 > 780_000 && near(two.marginal_mj, 765_000, 3), "{one:?} {two:?}");
}

#[test]
fn of_two_silent_prompts_each_pays_for_its_own() {
    let mut bench = Bench::taught();
    bench.begin(1, on_card());
    bench.begin(2, on_card());
    // One after another: the second waits while the first is read.
    bench.draw(240, 5 * SECOND);
    bench.progress(1, 1000, 1);
    bench.draw(240, SECOND);
    bench.progress(2, 200, 1);
    let (one, two) = (bench.end(1), bench.end(2));
    assert!(near(one.marginal_mj, 1_000_000, 6) && near(two.marginal_mj, 200_000, 20), "{one:?} {two:?}");
}

#[test]
fn cached_prompt_tokens_are_not_paid_for() {
    let mut bench = Bench::taught();
    bench.begin(1, on_card());
    bench.begin(2, on_card());
    bench.draw(240, 6 * SECOND);
    bench.meter.progress(RequestId([1; 16]), Tokens { prompt: 1000, cached: 0, completion: 1 });
    bench.meter.progress(RequestId([2; 16]), Tokens { prompt: 200, cached: 800, completion: 1 });
    let (one, two) = (bench.end(1), bench.end(2));
    assert!(near(one.marginal_mj, 1_000_000, 3) && near(two.marginal_mj, 200_000, 15), "{one:?} {two:?}");
}

#[test]
fn the_hosts_own_request_is_metered_and_no_part_of_what_was_shared() {
    let mut bench = Bench::taught();
    bench.begin(1, on_card());
    bench.meter.begin(RequestId([2; 16]), Task { own: true, ..task(on_card()) }, bench.at);
    bench.progress(1, 10, 1);
    bench.progress(2, 10, 1);
    bench.draw(240, 10 * SECOND);
    bench.progress(1, 10, 101);
    bench.progress(2, 10, 101);
    let (shared, own) = (bench.end(1), bench.end(2));
    let split = bench.meter.take();
    assert_eq!((Some(split.answering), Some(split.host)), (shared.total_mj, own.total_mj));
    assert!(near(own.total_mj, 1_200_000, 2), "{own:?}");
}

#[test]
fn a_game_while_nobody_asks_is_the_hosts_and_not_the_waiting_models() {
    let mut bench = Bench::idle_loaded(40);
    bench.draw(240, 10 * SECOND);
    let split = bench.meter.take();
    assert!(split.waiting.0 <= 410_000 && split.host.0 >= 1_950_000, "{split:?}");
}

#[test]
fn energy_is_split_into_answering_waiting_awake_and_the_hosts_own() {
    let mut bench = Bench::new();
    bench.read(CARD, Some(10));
    bench.draw(10, 10 * SECOND);
    bench.meter.set_purpose(Purpose::Awake, false);
    bench.draw(10, 20 * SECOND);
    bench.meter.set_purpose(Purpose::Waiting(on_card()), true);
    bench.draw(10, 30 * SECOND);
    bench.begin(1, on_card());
    bench.draw(10, 40 * SECOND);
    bench.end(1);
    let split = bench.meter.take();
    let (host, awake, waiting, answering) = (100_000, 200_000, 300_000, 400_000);
    assert_eq!(
        (split.host.0, split.awake.0, split.waiting.0, split.answering.0),
        (host, awake, waiting, answering)
    );
    assert_eq!((split.label, split.shared().0), (Label::Measured, 900_000));
    assert_eq!(bench.meter.take(), Split::default());
}

#[test]
fn a_model_whose_card_is_not_known_makes_estimates_and_one_on_no_card_uses_none() {
    for (place, waiting, label) in [
        (on_card(), 100_000, Label::Measured),
        (Place::Anywhere, 100_000, Label::Estimated),
        (Place::Elsewhere, 0, Label::Measured),
    ] {
        let mut bench = Bench::new();
        bench.read(CARD, Some(10));
        bench.meter.set_purpose(Purpose::Waiting(place.clone()), true);
        bench.draw(10, 10 * SECOND);
        let split = bench.meter.take();
        assert_eq!(
            (split.waiting.0, split.measured().0, split.label),
            (waiting, 100_000, label),
            "{place:?}"
        );
    }
    let mut bench = Bench::idle_loaded(40);
    bench.begin(1, Place::Anywhere);
    bench.draw(240, 5 * SECOND);
    assert_eq!(bench.end(1).label, Label::Estimated);
    assert_eq!(bench.meter.take().label, Label::Estimated);
}

#[test]
fn a_gap_in_the_readings_is_not_guessed_and_makes_an_estimate() {
    let mut bench = Bench::idle_loaded(100);
    bench.begin(1, on_card());
    bench.draw(100, 2 * SECOND);
    bench.at += MAX_GAP + SECOND;
    bench.read(CARD, Some(100));
    bench.draw(100, 2 * SECOND);
    let energy = bench.end(1);
    assert_eq!((energy.total_mj, energy.label), (Some(Millijoules(400_000)), Label::Estimated));
}

#[test]
fn a_counter_that_lies_makes_estimates_until_it_agrees_again() {
    let mut bench = Bench::idle_loaded(100);
    let run = |bench: &mut Bench, gain: i64| {
        bench.begin(1, on_card());
        for _ in 0..300 {
            bench.at += SECOND / 10;
            bench.counter = Some(bench.counter.unwrap_or(0) + 100 * gain);
            bench.read(CARD, Some(100));
        }
        bench.end(1)
    };
    // Thousandths: 100 W for a tenth of a second are 10,000 mJ.
    assert_eq!(run(&mut bench, 100).label, Label::Measured);
    let lie = run(&mut bench, 140);
    assert!(lie.label == Label::Estimated && near(lie.total_mj, 3_000_000, 1), "{lie:?}");
    assert!(bench.meter.diverges(CARD));
    // It begins with a counter that is not believed yet.
    assert_eq!(run(&mut bench, 100).label, Label::Estimated);
    assert_eq!(run(&mut bench, 100).label, Label::Measured);
}

#[test]
fn a_counter_that_stands_still_is_not_believed() {
    let mut bench = Bench::new();
    bench.counter = Some(0);
    for _ in 0..200 {
        bench.counter = bench.counter.map(|it| it + 10_000);
        bench.draw(100, SECOND / 10);
    }
    bench.begin(1, on_card());
    bench.draw(100, 20 * SECOND);
    let energy = bench.end(1);
    assert!(bench.meter.diverges(CARD) && energy.label == Label::Estimated);
    assert!(near(energy.total_mj, 2_000_000, 1), "{energy:?}");
}

#[test]
fn a_counter_alone_that_stands_still_is_unknown() {
    let mut bench = Bench::new();
    bench.counter = Some(5);
    bench.read(CARD, None);
    bench.begin(1, on_card());
    for _ in 0..10 {
        bench.at += SECOND;
        bench.read(CARD, None);
    }
    assert_eq!(bench.end(1), Energy::default());
}

#[test]
fn power_that_shows_one_value_through_idleness_and_work_is_an_estimate() {
    let mut bench = Bench::idle_loaded(40);
    bench.begin(1, on_card());
    bench.draw(40, 5 * SECOND);
    bench.progress(1, 10, 50);
    assert_eq!(bench.end(1).label, Label::Estimated);
}

#[test]
fn a_counter_that_starts_again_or_jumps_adds_nothing() {
    for odd in [0, 1 << 32, -5, i64::MAX] {
        let mut bench = Bench::new();
        bench.counter = Some(1_000_000);
        bench.read(CARD, None);
        bench.begin(1, on_card());
        for _ in 0..10 {
            bench.at += SECOND / 10;
            bench.counter = bench.counter.map(|it| it + 10_000);
            bench.read(CARD, None);
        }
        bench.at += SECOND / 10;
        bench.counter = Some(odd);
        bench.read(CARD, None);
        bench.at += SECOND / 10;
        bench.counter = odd.checked_add(10_000);
        bench.read(CARD, None);
        let total = bench.end(1).total_mj.unwrap().0;
        assert!((100_000..=110_000).contains(&total), "{odd}: {total}");
    }
}

#[test]
fn zero_and_absurd_power_are_passed_over() {
    for odd in [0, -40, 50_000, i64::MAX / 1_000_000] {
        let mut bench = Bench::idle_loaded(100);
        bench.begin(1, on_card());
        bench.draw(100, SECOND);
        bench.at += SECOND / 10;
        bench.read(CARD, Some(odd));
        bench.draw(100, SECOND);
        assert_eq!(bench.end(1).total_mj, Some(Millijoules(210_000)), "{odd}");
    }
}

#[test]
fn a_reading_that_was_overtaken_is_passed_over() {
    let mut bench = Bench::idle_loaded(100);
    bench.begin(1, on_card());
    bench.draw(100, SECOND);
    let now = bench.at;
    bench.at -= 5 * SECOND;
    bench.read(CARD, Some(400));
    bench.at = now;
    bench.draw(100, SECOND);
    assert_eq!(bench.end(1).total_mj, Some(Millijoules(200_000)));
}

#[test]
fn a_baseline_is_learned_anew_after_another_model_was_loaded() {
    let mut bench = Bench::idle_loaded(40);
    bench.meter.set_purpose(Purpose::Host, false);
    bench.draw(10, 10 * SECOND);
    bench.meter.set_purpose(Purpose::Waiting(on_card()), true);
    bench.draw(60, 6 * SECOND);
    let known = bench.meter.baselines()[CARD];
    assert_eq!((known.idle, known.loaded), (Some(Milliwatts(10_000)), Some(Milliwatts(60_000))));
}

#[test]
fn a_plug_tells_what_a_request_used_at_the_wall_once_it_saw_the_card_work_and_rest() {
    let mut bench = Bench::idle_loaded(40);
    let run = |bench: &mut Bench| {
        bench.begin(1, on_card());
        bench.draw(240, 10 * SECOND);
        bench.end(1)
    };
    assert_eq!(run(&mut bench).wall_mj, None);
    for watts in [40, 240, 130].repeat(10) {
        bench.draw(watts, SECOND);
        // The rest of the machine draws 60 W, and the power supply loses a tenth.
        bench.meter.calibrate(Milliwatts((watts + 60) * 1100));
    }
    let energy = run(&mut bench);
    assert!(near(energy.wall_mj, energy.total_mj.unwrap().0 * 11 / 10, 1), "{energy:?}");
}

#[test]
fn a_card_that_only_counts_is_metered_by_its_counter() {
    let mut bench = Bench::new();
    bench.counter = Some(1_000);
    bench.read(CARD, None);
    bench.begin(1, on_card());
    bench.at += 3 * SECOND;
    bench.counter = Some(61_000);
    bench.read(CARD, None);
    assert_eq!(bench.end(1).total_mj, Some(Millijoules(60_000)));
}

#[test]
fn a_request_pays_for_its_own_card_only() {
    let mut bench = Bench::new();
    bench.read(CARD, Some(100));
    bench.read("GPU-b", Some(300));
    bench.begin(1, Place::Cards(vec![CARD.into()]));
    bench.at += 2 * SECOND;
    bench.read(CARD, Some(100));
    bench.read("GPU-b", Some(300));
    assert_eq!(bench.end(1).total_mj, Some(Millijoules(200_000)));
    assert_eq!(bench.meter.take().host, Millijoules(600_000));
}
