use proptest::prelude::*;

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

    /// Reads a card that has drawn `watts` for `time`.
    fn draw(&mut self, watts: i64, time: Duration) {
        let steps = 10_u32;
        for _ in 0..steps {
            self.at += time / steps;
            self.read(CARD, Some(watts));
        }
    }

    fn read(&mut self, card: &str, watts: Option<i64>) {
        self.meter.read(&GpuReading {
            power: watts.map(|watts| Power { value: Milliwatts(watts * 1000), averaged: false }),
            energy: self.counter.map(Millijoules),
            ..GpuReading::silent(card, "", self.at)
        });
    }

    fn begin(&mut self, id: u8, place: Place) {
        self.meter.begin(RequestId([id; 16]), place, self.at);
    }

    fn end(&mut self, id: u8) -> Energy {
        self.meter.end(RequestId([id; 16]), self.at)
    }

    fn progress(&mut self, id: u8, prompt: u32, completion: u32) {
        self.meter.progress(RequestId([id; 16]), prompt, completion);
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

fn on_card() -> Place {
    Place::Cards(vec![CARD.into()])
}

#[test]
fn a_request_alone_uses_what_the_card_used_and_its_margin_is_above_the_loaded_idle() {
    let mut bench = Bench::idle_loaded(40);
    bench.begin(1, on_card());
    bench.progress(1, 100, 1);
    // The first tenth of a second still rises from 40 W.
    bench.draw(240, 10 * SECOND);
    let energy = bench.end(1);
    let rise = 100 * 1000;
    assert_eq!(energy.total_mj, Some(Millijoules(2_400_000 - rise)));
    assert_eq!(energy.marginal_mj, Some(Millijoules(2_000_000 - rise)));
    assert_eq!(energy.label, Label::Measured);
    // A tenth of a second at 40 W and at 240 W.
    assert_eq!(energy.error_mj, Some(Millijoules(4_000 + 24_000)));
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
    let mut bench = Bench::idle_loaded(0);
    bench.begin(1, on_card());
    bench.begin(2, on_card());
    bench.progress(1, 0, 1);
    bench.progress(2, 0, 1);
    bench.read(CARD, Some(300));
    bench.draw(300, 4 * SECOND);
    bench.progress(1, 0, 31);
    bench.progress(2, 0, 11);
    let (one, two) = (bench.end(1), bench.end(2));
    assert_eq!((one.total_mj, two.total_mj), (Some(Millijoules(900_000)), Some(Millijoules(300_000))));
}

#[test]
fn a_long_prompt_costs_its_request_and_not_the_one_that_decodes_beside_it() {
    let mut bench = Bench::idle_loaded(0);
    bench.begin(1, on_card());
    bench.progress(1, 0, 1);
    bench.begin(2, on_card());
    bench.read(CARD, Some(300));
    bench.draw(300, 4 * SECOND);
    // Asking for the books cuts nothing.
    assert_eq!(bench.meter.take().answering, Millijoules(1_200_000));
    // In these four seconds the one decoded 10 tokens and the other read 900 of its prompt: 100 to 900 by weight.
    bench.progress(1, 0, 11);
    bench.progress(2, 900, 1);
    let (one, two) = (bench.end(1), bench.end(2));
    assert_eq!(one.total_mj, Some(Millijoules(1_200_000 * 100 / 1_010)));
    assert_eq!(one.total_mj.unwrap() + two.total_mj.unwrap(), Millijoules(1_200_000));
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
fn a_counter_that_disagrees_with_the_power_makes_an_estimate_until_it_agrees_again() {
    let mut bench = Bench::idle_loaded(100);
    let run = |bench: &mut Bench, gain: i64| {
        bench.begin(1, on_card());
        for _ in 0..300 {
            bench.at += SECOND / 10;
            bench.counter = Some(bench.counter.unwrap_or(0) + 100 * gain);
            bench.read(CARD, Some(100));
        }
        bench.end(1).label
    };
    // Thousandths: 100 W for a tenth of a second are 10,000 mJ.
    assert_eq!(run(&mut bench, 100), Label::Measured);
    assert_eq!(run(&mut bench, 140), Label::Estimated);
    assert!(bench.meter.diverges(CARD));
    assert_eq!(run(&mut bench, 100), Label::Measured);
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

#[derive(Clone, Debug)]
enum Step {
    Read { card: u8, millis: u64, milliwatts: Option<i64> },
    Begin(u8, u8),
    Progress(u8, u32, u32),
    End(u8),
    Purpose(u8),
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..2, 0_u64..20_000, proptest::option::weighted(0.9, 0_i64..600_000))
            .prop_map(|(card, millis, milliwatts)| Step::Read { card, millis, milliwatts }),
        2 => (0_u8..6, 0_u8..4).prop_map(|(id, place)| Step::Begin(id, place)),
        3 => (0_u8..6, 0_u32..5_000, 0_u32..500).prop_map(|(id, prompt, tokens)| Step::Progress(id, prompt, tokens)),
        2 => (0_u8..6).prop_map(Step::End),
        1 => (0_u8..3).prop_map(Step::Purpose),
        1 => Just(Step::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What requests used and what nobody asked for add up to what was measured, to the millijoule, whatever happens.
    #[test]
    fn no_millijoule_is_lost_or_made(steps in proptest::collection::vec(step(), 1..200)) {
        let mut bench = Bench::idle_loaded(30);
        let mut kept = Split::default();
        let mut requests = 0;
        let mut begun = std::collections::BTreeSet::new();
        // The same integral, kept here without any sharing out.
        let mut cards: BTreeMap<String, (Instant, Option<i64>, i128)> = BTreeMap::new();
        cards.insert(CARD.into(), (bench.at, Some(30_000), 0));
        let mut keep = |split: Split| {
            kept.answering += split.answering;
            kept.waiting += split.waiting;
            kept.awake += split.awake;
            kept.host += split.host;
        };
        for step in steps {
            match step {
                Step::Read { card, millis, milliwatts } => {
                    let id = if card == 0 { CARD } else { "GPU-b" };
                    bench.at += Duration::from_millis(millis);
                    let mut reading = GpuReading::silent(id, "", bench.at);
                    reading.power = milliwatts.map(|value| Power { value: Milliwatts(value), averaged: false });
                    bench.meter.read(&reading);
                    let (before, power, sum) = cards.get(id).copied().unwrap_or((bench.at, None, 0));
                    let time = bench.at - before;
                    let tick = power.zip(milliwatts).filter(|_| time <= MAX_GAP).map_or(0, |(from, to)| {
                        i128::from(from + to) * i128::try_from(time.as_micros()).unwrap() / 2
                    });
                    cards.insert(id.into(), (bench.at, milliwatts, sum + tick));
                }
                Step::Begin(id, place) => {
                    if begun.insert(id) {
                        let place = match place {
                            0 => Place::Cards(vec![CARD.into()]),
                            1 => Place::Cards(vec!["GPU-b".into(), CARD.into()]),
                            2 => Place::Anywhere,
                            _ => Place::Elsewhere,
                        };
                        bench.begin(id, place);
                    }
                }
                Step::Progress(id, prompt, tokens) => bench.progress(id, prompt, tokens),
                Step::End(id) => {
                    begun.remove(&id);
                    let energy = bench.end(id);
                    prop_assert!(energy.marginal_mj.is_none_or(|it| it.0 >= 0 && Some(it) <= energy.total_mj));
                    requests += energy.total_mj.map_or(0, |it| it.0);
                }
                Step::Purpose(which) => {
                    let purpose = match which {
                        0 => Purpose::Host,
                        1 => Purpose::Waiting(Place::Anywhere),
                        _ => Purpose::Awake,
                    };
                    bench.meter.set_purpose(purpose, which == 1);
                }
                Step::Take => keep(bench.meter.take()),
            }
        }
        for id in begun {
            requests += bench.end(id).total_mj.map_or(0, |it| it.0);
        }
        keep(bench.meter.take());
        prop_assert_eq!(requests, kept.answering.0);
        let carries = i128::try_from(cards.len()).unwrap();
        let exact: i128 = cards.values().map(|(_, _, sum)| sum).sum::<i128>();
        let measured = i128::from(kept.measured().0) * 1_000_000;
        prop_assert!((0..=carries * 1_000_000).contains(&(exact - measured)), "{} of {}", measured, exact);
    }
}
