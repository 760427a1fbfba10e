//! What energy cost and what each model used: kept as it was when it happened, and added up without a remainder.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use idlewatt_control::{EnergySplit, Money, RowOutcome};
use idlewatt_protocol::bench::{BENCH_TYPE, BenchReport};
use idlewatt_protocol::id::SignatureBytes;
use idlewatt_protocol::message::Posted;
use idlewatt_protocol::receipt::{Energy, Envelope};
use idlewatt_protocol::{
    Artefact, Label, MicroCredits, Millijoules, PublicKey, RequestId, UnixMillis, Usage, UsageSource,
};
use idlewatt_store::{Begun, Cost, Ended, EnergyInterval, Store};
use tempfile::TempDir;

const HUB: &str = "hub-a";
const NOW: UnixMillis = UnixMillis(9_000);

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    (folder, store)
}

fn euros(nanos: i64) -> Option<Cost> {
    Some(Cost { nanos, currency: "EUR".into() })
}

fn money(micros: i64, currency: &str) -> Option<Money> {
    Some(Money { micros, currency: currency.into() })
}

fn used(store: &Store, day: &str, mj: i64, cost: Option<Cost>) {
    let split = EnergySplit { waiting: Millijoules(mj), ..EnergySplit::default() };
    let label = Label::Measured;
    store.add_energy(EnergyInterval { day: day.into(), session: None, split, label, cost }).wait().unwrap();
}

fn artefact() -> Artefact {
    Artefact {
        model: "m".into(),
        quantisation: Some("q4_1".into()),
        digest: None,
        engine: "llama.cpp".into(),
        engine_build: None,
    }
}

fn begin(store: &Store, number: u8, model: &str, gpu: Option<&str>, day: &str) {
    let begun = Begun {
        id: RequestId([number; 16]),
        network: HUB.into(),
        model: model.into(),
        artefact: artefact(),
        own: false,
        received: UnixMillis(1_000 + i64::from(number)),
        day: day.into(),
        session: None,
        gpu: gpu.map(str::to_owned),
    };
    store.begin(begun).wait().unwrap();
}

fn usage(prompt: u32, completion: u32) -> Usage {
    Usage { prompt, completion, source: UsageSource::Server }
}

fn energy(mj: i64, error: Option<i64>) -> Energy {
    let label = if error.is_some() { Label::Measured } else { Label::Estimated };
    Energy { total_mj: Some(Millijoules(mj)), error_mj: error.map(Millijoules), label, ..Energy::default() }
}

fn end(store: &Store, number: u8, completion: u32, energy: Energy, cost: Option<Cost>) {
    let ended = Ended {
        id: RequestId([number; 16]),
        outcome: RowOutcome::Complete,
        started: Some(UnixMillis(2_000)),
        first_token: None,
        ended: UnixMillis(4_000),
        usage: usage(10, completion),
        energy,
        cost,
    };
    store.end(ended).wait().unwrap();
}

fn post(store: &Store, seq: u64, number: u8, completion: u32, earned: i64) {
    let receipt = Envelope {
        payload_type: BENCH_TYPE.into(),
        payload: format!("receipt{number}"),
        index: 0,
        path: Vec::new(),
        leaves: 1,
        keyid: PublicKey([1; 32]),
        sig: SignatureBytes([2; 64]),
    };
    let request = RequestId([number; 16]);
    let (usage, earned) = (usage(10, completion), MicroCredits(earned));
    let posted = Posted { seq, request, usage, earned, signed: true, receipt };
    store.posted(HUB, posted, UnixMillis(5_000), "2026-11-21").wait().unwrap();
}

#[test]
fn costs_below_a_millionth_add_up() {
    let (_folder, store) = store();
    for _ in 0..1_000 {
        used(&store, "2026-11-21", 100, euros(9));
    }
    let day = store.day("2026-11-21").wait().unwrap();
    assert_eq!(
        (day.energy_mj, day.cost, day.unpriced_mj),
        (Some(Millijoules(100_000)), money(9, "EUR"), None)
    );
}

#[test]
fn a_cost_is_shown_to_the_nearest_millionth_also_where_it_is_negative() {
    for (nanos, micros) in [(1_499, 1), (1_500, 2), (-1_499, -1), (-1_500, -2), (0, 0)] {
        let (_folder, store) = store();
        used(&store, "2026-11-21", 5, euros(nanos));
        assert_eq!(store.day("2026-11-21").wait().unwrap().cost, money(micros, "EUR"), "{nanos}");
    }
}

#[test]
fn energy_without_a_price_is_told_and_never_priced_later() {
    let (_folder, store) = store();
    used(&store, "2026-11-20", 50, None);
    used(&store, "2026-11-21", 30, None);
    used(&store, "2026-11-21", 70, euros(7_000));
    let (before, day) = (store.day("2026-11-20").wait().unwrap(), store.day("2026-11-21").wait().unwrap());
    assert_eq!((before.cost, before.unpriced_mj), (None, Some(Millijoules(50))));
    assert_eq!((day.cost, day.unpriced_mj), (money(7, "EUR"), Some(Millijoules(30))));
    let month = store.month("2026-11").wait().unwrap();
    assert_eq!(month.energy_mj, Some(Millijoules(150)));
    assert_eq!((month.cost, month.unpriced_mj), (money(7, "EUR"), Some(Millijoules(80))));
}

#[test]
fn two_currencies_are_never_added() {
    let (_folder, store) = store();
    used(&store, "2026-11-21", 30, euros(3_000));
    used(&store, "2026-11-21", 60, Some(Cost { nanos: 9_000, currency: "CHF".into() }));
    let day = store.day("2026-11-21").wait().unwrap();
    assert_eq!((day.cost, day.unpriced_mj), (money(9, "CHF"), Some(Millijoules(30))));
}

#[test]
fn a_month_is_its_days_and_no_others() {
    let (_folder, store) = store();
    for (day, mj) in [("2026-10-31", 1), ("2026-11-01", 10), ("2026-11-30", 100), ("2026-12-01", 1_000)] {
        used(&store, day, mj, euros(mj * 1_000));
        begin(&store, u8::try_from(mj % 251).unwrap(), "m", None, day);
    }
    let month = store.month("2026-11").wait().unwrap();
    assert_eq!((month.requests, month.energy_mj), (2, Some(Millijoules(110))));
    assert_eq!((month.cost, month.energy_label), (money(110, "EUR"), Label::Measured));
    assert_eq!(store.month("2026-09").wait().unwrap(), idlewatt_control::Today::default());
    assert_eq!(store.models("2026-11").wait().unwrap()[0].requests, 2);
}

#[test]
fn a_model_has_its_own_sums_on_each_card() {
    let (_folder, store) = store();
    begin(&store, 1, "a model", Some("GPU-1"), "2026-11-21");
    begin(&store, 2, "a model", Some("GPU-1"), "2026-11-22");
    begin(&store, 3, "a model", Some("GPU-2"), "2026-11-22");
    begin(&store, 4, "other", None, "2026-11-22");
    end(&store, 1, 100, energy(60_000, Some(500)), euros(4_000));
    end(&store, 2, 300, energy(90_000, Some(700)), euros(6_400));
    // Nothing measured this one: its tokens must not make the others' look cheaper.
    end(&store, 3, 70, Energy::default(), None);
    end(&store, 4, 50, energy(10_000, None), None);
    post(&store, 1, 2, 300, 42);
    let models = store.models("2026-11").wait().unwrap();
    let told: Vec<_> = models.iter().map(|it| (it.model.as_str(), it.gpu.as_deref(), it.requests)).collect();
    assert_eq!(
        told,
        [("a model", Some("GPU-1"), 2), ("other", None, 1), ("a model", Some("GPU-2"), 1)],
        "most energy first"
    );
    let first = &models[0];
    assert_eq!((first.energy_mj, first.label), (Some(Millijoules(150_000)), Label::Measured));
    assert_eq!((first.uj_per_token, first.error_uj), (Some(375_000), Some(3_000)));
    assert_eq!((first.cost.clone(), first.unpriced_mj), (money(10, "EUR"), None));
    assert_eq!((first.tokens_in, first.tokens_out, first.earned_ucr), (20, 400, MicroCredits(42)));
    assert_eq!((models[1].label, models[1].error_uj), (Label::Estimated, None), "no error for an estimate");
    assert_eq!((models[1].cost.clone(), models[1].unpriced_mj), (None, Some(Millijoules(10_000))));
    assert_eq!((models[2].energy_mj, models[2].uj_per_token, models[2].label), (None, None, Label::Unknown));
}

#[test]
fn energy_a_token_goes_by_the_settled_count_whichever_comes_first() {
    for posted_first in [false, true] {
        let (_folder, store) = store();
        begin(&store, 1, "m", None, "2026-11-21");
        if posted_first {
            post(&store, 1, 1, 80, 9);
            end(&store, 1, 100, energy(8_000, None), None);
        } else {
            end(&store, 1, 100, energy(8_000, None), None);
            post(&store, 1, 1, 80, 9);
        }
        let models = store.models("2026-11").wait().unwrap();
        assert_eq!((models[0].tokens_out, models[0].uj_per_token), (80, Some(100_000)), "{posted_first}");
    }
}

#[test]
fn a_request_keeps_what_its_energy_cost() {
    let (_folder, store) = store();
    begin(&store, 1, "m", None, "2026-11-21");
    assert_eq!(store.requests(1, None, NOW).wait().unwrap()[0].cost, None);
    end(&store, 1, 5, energy(1_000, None), euros(86_111));
    // Told again, as after a disk that hung: it counts once.
    end(&store, 1, 5, energy(1_000, None), euros(86_111));
    assert_eq!(store.requests(1, None, NOW).wait().unwrap()[0].cost, money(86, "EUR"));
    assert_eq!(store.models("2026-11").wait().unwrap()[0].cost, money(86, "EUR"));
}

#[test]
fn bench_reports_are_kept_newest_first() {
    let (_folder, store) = store();
    let report = |started: i64| BenchReport {
        workload: "idlewatt-1".into(),
        version: "0.1.0".into(),
        started: UnixMillis(started),
        gpus: vec!["Example 4090".into()],
        processor: None,
        server: "llama.cpp b1".into(),
        artefact: artefact(),
        method: String::new(),
        points: Vec::new(),
    };
    for started in [2, 3, 1] {
        store.add_bench(&report(started)).wait().unwrap();
    }
    assert_eq!(store.benches(2).wait().unwrap(), [report(3), report(2)]);
}

/// A database as the program with schema 1 left it: its own schema, and rows in the form that it wrote.
#[test]
fn a_database_of_schema_1_keeps_its_history_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../src/schema/1.sql")).unwrap();
    old.execute_batch(include_str!("fixtures/rows-of-schema-1.sql")).unwrap();
    old.pragma_update(None, "user_version", 1).unwrap();
    drop(old);

    let store = Store::open(&path).unwrap();
    let day = store.day("2026-11-21").wait().unwrap();
    assert_eq!((day.requests, day.earned_ucr.0), (2, 40));
    assert_eq!((day.energy_mj, day.energy_label), (Some(Millijoules(9_000)), Label::Measured));
    assert_eq!(
        (day.cost, day.unpriced_mj),
        (None, Some(Millijoules(9_000))),
        "nobody knows what it cost then"
    );
    assert_eq!(store.month("2026-11").wait().unwrap().energy_mj, Some(Millijoules(12_000)));
    assert_eq!(store.requests(9, None, NOW).wait().unwrap().len(), 4);
    let models = store.models("2026-11").wait().unwrap();
    let told: Vec<_> = models.iter().map(|it| (it.model.as_str(), it.requests, it.energy_mj)).collect();
    assert_eq!(told, [("m:q4_1", 3, Some(Millijoules(6_000))), ("other", 1, None)]);
    // 100 tokens of the one without energy are not in it.
    assert_eq!((models[0].tokens_out, models[0].uj_per_token), (150, Some(120_000)));
    assert_eq!(
        (models[0].label, models[0].error_uj, models[0].gpu.as_ref()),
        (Label::Measured, Some(2_000), None)
    );

    used(&store, "2026-11-21", 1_000, euros(86_000));
    begin(&store, 9, "m:q4_1", None, "2026-11-21");
    end(&store, 9, 50, energy(6_000, Some(100)), euros(500_000));
    let day = store.day("2026-11-21").wait().unwrap();
    assert_eq!((day.cost, day.unpriced_mj), (money(86, "EUR"), Some(Millijoules(9_000))));
    let models = store.models("2026-11").wait().unwrap();
    assert_eq!((models[0].requests, models[0].uj_per_token), (4, Some(120_000)));
    drop(store);
    assert_eq!(Store::open(&path).unwrap().models("2026-11").wait().unwrap(), models, "migrated once");
}
