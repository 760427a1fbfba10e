//! What a node keeps, through the public door: requests from begin to posting, sums that never drift, samples, and
//! databases that must not be opened.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;

use idlewatt_control::{EnergySplit, MomentKind, Reason, RowOutcome, Sample, State};
use idlewatt_protocol::id::SignatureBytes;
use idlewatt_protocol::message::Posted;
use idlewatt_protocol::receipt::{Energy, Envelope};
use idlewatt_protocol::{
    Artefact, Label, MicroCredits, Millijoules, Milliwatts, PauseCode, Price, PublicKey, RequestId,
    UnixMillis, Usage, UsageSource,
};
use idlewatt_store::{
    Begun, Ended, EnergyInterval, HoursRow, MAX_POINTS, NetworkRow, ServiceRow, SpanRow, Store, StoreError,
};
use proptest::prelude::*;
use tempfile::TempDir;

const DAY: &str = "2026-11-21";
const HUB: &str = "hub-a";

fn store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    (folder, store)
}

fn id(number: u8) -> RequestId {
    RequestId([number; 16])
}

fn begun(number: u8) -> Begun {
    Begun {
        id: id(number),
        network: HUB.into(),
        model: "m:q4_1".into(),
        artefact: Artefact {
            model: "m".into(),
            quantisation: Some("q4_1".into()),
            digest: None,
            engine: "llama.cpp".into(),
            engine_build: None,
        },
        own: false,
        received: UnixMillis(1_000 + i64::from(number)),
        day: DAY.into(),
        session: None,
        gpu: Some("GPU-1".into()),
    }
}

fn usage(prompt: u32, completion: u32) -> Usage {
    Usage { prompt, completion, source: UsageSource::Server }
}

fn ended(number: u8, usage: Usage) -> Ended {
    Ended {
        id: id(number),
        outcome: RowOutcome::Complete,
        started: Some(UnixMillis(2_000)),
        first_token: Some(UnixMillis(2_500)),
        ended: UnixMillis(4_000),
        usage,
        energy: Energy { total_mj: Some(Millijoules(77)), label: Label::Measured, ..Energy::default() },
        cost: None,
    }
}

fn envelope(number: u8) -> Envelope {
    Envelope {
        payload_type: "application/vnd.idlewatt.statement.v1+json".into(),
        payload: format!("statement{number:03}"),
        index: 0,
        path: Vec::new(),
        leaves: 1,
        keyid: PublicKey([1; 32]),
        sig: SignatureBytes([2; 64]),
    }
}

fn posted(seq: u64, number: u8, usage: Usage, earned: i64) -> Posted {
    Posted {
        seq,
        request: id(number),
        usage,
        earned: MicroCredits(earned),
        signed: true,
        receipt: envelope(number),
    }
}

#[test]
fn a_request_is_told_from_its_first_moment_to_its_posting() {
    let (_folder, store) = store();
    let now = UnixMillis(9_000);
    store.begin(begun(1)).wait().unwrap();
    let running = &store.requests(10, None, now).wait().unwrap()[0];
    assert_eq!((running.outcome, running.duration_ms), (RowOutcome::Running, 9_000 - 1_001));
    store.end(ended(1, usage(11, 5))).wait().unwrap();
    store.keep_statements(HUB, vec![(id(1), envelope(1))], UnixMillis(4_010)).wait().unwrap();
    store.posted(HUB, posted(1, 1, usage(11, 4), 40), UnixMillis(4_100), DAY).wait().unwrap();
    let detail = store.request(id(1), now).wait().unwrap().unwrap();
    let row = &detail.row;
    assert_eq!((row.tokens_in, row.tokens_out, row.earned_ucr), (11, 4, Some(MicroCredits(40))));
    assert_eq!((row.ttft_ms, row.duration_ms, row.segments), (Some(1_499), 2_999, 1));
    assert_eq!(row.energy.total_mj, Some(Millijoules(77)));
    assert_eq!(row.receipt, envelope(1).payload_digest().map(|digest| digest.to_string()));
    use MomentKind::{Ended, FirstToken, Posted, Received, Signed, Started};
    let kinds: Vec<_> = detail.timeline.iter().map(|moment| moment.kind).collect();
    assert_eq!(kinds, [Received, Started, FirstToken, Ended, Signed, Posted]);
    assert!(detail.timeline.windows(2).all(|pair| pair[0].at <= pair[1].at));
    assert_eq!(store.request(id(2), now).wait().unwrap(), None);
}

#[test]
fn a_statement_waits_in_the_outbox_until_it_is_posted_or_void() {
    let (_folder, store) = store();
    for number in [3, 1, 2] {
        store.keep_statements(HUB, vec![(id(number), envelope(number))], UnixMillis(1)).wait().unwrap();
    }
    store.keep_statements("hub-b", vec![(id(4), envelope(4))], UnixMillis(1)).wait().unwrap();
    let waiting = |limit| store.unsettled(HUB, limit).wait().unwrap();
    assert_eq!(waiting(9), [envelope(3), envelope(1), envelope(2)]);
    assert_eq!(waiting(1), [envelope(3)]);
    store.posted(HUB, posted(1, 3, usage(1, 1), 5), UnixMillis(2), DAY).wait().unwrap();
    store.void(HUB, id(1), UnixMillis(2)).wait().unwrap();
    assert_eq!((waiting(9), store.unsettled_count(HUB).wait().unwrap()), (vec![envelope(2)], 1));
    assert_eq!(store.unsettled_count("hub-b").wait().unwrap(), 1);
}

#[test]
fn a_network_has_no_say_over_what_another_owes() {
    let (_folder, store) = store();
    store.begin(begun(1)).wait().unwrap();
    store.keep_statements(HUB, vec![(id(1), envelope(1))], UnixMillis(1)).wait().unwrap();
    store.void("hub-b", id(1), UnixMillis(2)).wait().unwrap();
    store.posted("hub-b", posted(1, 1, usage(9, 9), 9), UnixMillis(2), DAY).wait().unwrap();
    assert_eq!(store.unsettled(HUB, 9).wait().unwrap(), [envelope(1)]);
    let row = &store.requests(1, None, UnixMillis(9_000)).wait().unwrap()[0];
    assert_eq!((row.earned_ucr, row.receipt.as_ref(), row.tokens_out), (None, None, 0));
}

#[test]
fn a_posting_counts_once_however_often_it_comes_and_even_for_a_request_that_was_forgotten() {
    let (_folder, store) = store();
    for _ in 0..3 {
        store.posted(HUB, posted(7, 1, usage(10, 20), 30), UnixMillis(5), DAY).wait().unwrap();
    }
    let settled = store.settled(HUB).wait().unwrap();
    assert_eq!((settled.requests, settled.tokens_in, settled.tokens_out, settled.earned.0), (1, 10, 20, 30));
    assert_eq!(store.posted_through(HUB).wait().unwrap(), 7);
    assert_eq!(store.posted_through("hub-b").wait().unwrap(), 0);
    let day = store.day(DAY).wait().unwrap();
    assert_eq!((day.tokens_in, day.tokens_out, day.earned_ucr.0), (10, 20, 30));
}

#[test]
fn a_network_that_settled_first_is_not_overruled_by_the_node() {
    let (_folder, store) = store();
    store.begin(begun(1)).wait().unwrap();
    store.posted(HUB, posted(1, 1, usage(3, 2), 9), UnixMillis(5), DAY).wait().unwrap();
    store.end(ended(1, usage(3, 8))).wait().unwrap();
    let row = &store.requests(1, None, UnixMillis(9_000)).wait().unwrap()[0];
    assert_eq!(
        (row.tokens_out, row.earned_ucr, row.outcome),
        (2, Some(MicroCredits(9)), RowOutcome::Complete)
    );
    assert_eq!(store.day(DAY).wait().unwrap().tokens_out, 2);
}

#[test]
fn what_ran_when_the_process_died_is_lost_and_its_session_is_over() {
    let (folder, store) = store();
    let (session, kept) = store.start_session(UnixMillis(500));
    kept.wait().unwrap();
    store.begin(Begun { session: Some(session), ..begun(1) }).wait().unwrap();
    store.begin(Begun { session: Some(session), ..begun(2) }).wait().unwrap();
    store.end(ended(2, usage(1, 1))).wait().unwrap();
    assert_eq!(store.last_session().wait().unwrap().unwrap().ended, None);
    drop(store);
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    let outcomes: Vec<_> =
        store.requests(9, None, UnixMillis(9)).wait().unwrap().iter().map(|row| row.outcome).collect();
    assert_eq!(outcomes, [RowOutcome::Complete, RowOutcome::Lost]);
    let session = store.last_session().wait().unwrap().unwrap();
    assert_eq!(
        (session.ended, session.ended_by, session.totals.requests),
        (Some(UnixMillis(4_000)), None, 2)
    );
}

#[test]
fn a_session_has_its_own_sums_and_the_reason_that_ended_it() {
    let (_folder, store) = store();
    assert_eq!(store.last_session().wait().unwrap(), None);
    let (session, kept) = store.start_session(UnixMillis(500));
    kept.wait().unwrap();
    store.begin(Begun { session: Some(session), ..begun(1) }).wait().unwrap();
    store.end(ended(1, usage(6, 7))).wait().unwrap();
    let split = EnergySplit { answering: Millijoules(5), waiting: Millijoules(3), awake: Millijoules(1) };
    for (label, session) in
        [(Label::Measured, Some(session)), (Label::Estimated, None), (Label::Unknown, None)]
    {
        store
            .add_energy(EnergyInterval { day: DAY.into(), session, split, label, cost: None })
            .wait()
            .unwrap();
    }
    let reason = Reason {
        code: PauseCode::PersonHere,
        text: "You are here.".into(),
        since: UnixMillis(800),
        until: None,
    };
    let (peak, cap) = (Some(Milliwatts(300_000)), Some(Milliwatts(320_000)));
    store.end_session(session, UnixMillis(800), reason.clone(), peak, cap).wait().unwrap();
    let found = store.last_session().wait().unwrap().unwrap();
    assert_eq!((found.ended_by, found.peak_10s_mw, found.cap_mw), (Some(reason), peak, cap));
    let totals = found.totals;
    assert_eq!((totals.requests, totals.tokens_in, totals.tokens_out), (1, 6, 7));
    assert_eq!((totals.energy_mj, totals.energy_label), (Some(Millijoules(9)), Label::Measured));
    let day = store.day(DAY).wait().unwrap();
    assert_eq!((day.energy_mj, day.energy_label), (Some(Millijoules(18)), Label::Estimated));
    assert_eq!(store.day("2026-11-20").wait().unwrap().energy_mj, None);
}

#[test]
fn requests_are_listed_newest_first_and_page_by_page() {
    let (_folder, store) = store();
    for number in 1..=5 {
        store.begin(begun(number)).wait().unwrap();
    }
    let list = |limit, before| {
        let rows = store.requests(limit, before, UnixMillis(9_000)).wait().unwrap();
        rows.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    assert_eq!(list(2, None), [id(5), id(4)]);
    assert_eq!(list(9, Some(UnixMillis(1_004))), [id(3), id(2), id(1)]);
}

#[test]
fn samples_are_thinned_for_a_screen_and_again_when_they_are_old() {
    let (_folder, store) = store();
    let now = 400 * 86_400_000_i64;
    let sample = |at: i64, gpu: &str, watts: i64| Sample {
        at: UnixMillis(at),
        gpu: gpu.into(),
        power_mw: Some(Milliwatts(watts * 1000)),
        cap_mw: None,
        temperature_c: Some(50),
        running: 0,
    };
    // Two days back a reading a second for an hour; now ten minutes of two cards; long ago one.
    let old = now - 2 * 86_400_000;
    let mut samples: Vec<Sample> =
        (0..3_600).map(|s| sample(old + s * 1000, "a", 100 + s % 2 * 100)).collect();
    samples
        .extend((0..600).flat_map(|s| [sample(now - s * 1000, "a", 200), sample(now - s * 1000, "b", 40)]));
    samples.push(sample(now - 93 * 86_400_000, "a", 1));
    store.add_samples(samples).wait().unwrap();

    let shown = |since| store.samples(UnixMillis(since), UnixMillis(now)).wait().unwrap();
    let recent = shown(now - 600_000);
    let mean = |gpu: &str| {
        let power: Vec<i64> =
            recent.iter().filter(|it| it.gpu == gpu).map(|it| it.power_mw.unwrap().0).collect();
        assert!(power.len() > 200, "{}", power.len());
        power.iter().sum::<i64>() / i64::try_from(power.len()).unwrap()
    };
    assert_eq!((mean("a"), mean("b")), (200_000, 40_000));
    assert!(recent.len() <= MAX_POINTS as usize && shown(0).len() <= MAX_POINTS as usize);
    assert!(recent.is_sorted_by_key(|sample| sample.at));

    for _ in 0..2 {
        store.thin_samples(UnixMillis(now)).wait().unwrap();
        let hour = store.samples(UnixMillis(old), UnixMillis(old + 3_600_000)).wait().unwrap();
        assert_eq!(hour.len(), 60);
        assert!(hour.iter().all(|it| it.power_mw == Some(Milliwatts(150_000))));
        assert_eq!(shown(0).first().unwrap().at, UnixMillis(old));
        assert_eq!(shown(now - 600_000), recent);
    }
}

#[test]
fn choices_are_kept() {
    let (folder, store) = store();
    let network = NetworkRow {
        id: HUB.into(),
        kind: "hub".into(),
        name: "garage".into(),
        urls: vec!["ws://127.0.0.1:4181".into()],
        key: PublicKey([3; 32]),
        account: None,
        joined: UnixMillis(5),
    };
    store.put_network(network.clone()).wait().unwrap();
    let network = NetworkRow { account: Some("ann".into()), ..network };
    store.put_network(network.clone()).wait().unwrap();
    let service = ServiceRow { id: "s".into(), shared: true, price: Price(7), probe: Some("{}".into()) };
    store.put_service(service.clone()).wait().unwrap();
    store.set_setting("note", "one").wait().unwrap();
    store.set_setting("note", "two").wait().unwrap();
    drop(store);
    let store = Store::open(&folder.path().join("node.db")).unwrap();
    assert_eq!(store.networks().wait().unwrap(), [network]);
    assert_eq!(store.services().wait().unwrap(), [service]);
    assert_eq!(store.setting("note").wait().unwrap().as_deref(), Some("two"));
    assert_eq!(store.setting("none").wait().unwrap(), None);
    store.begin(begun(1)).wait().unwrap();
    assert_eq!(store.last_requests().wait().unwrap()[HUB], UnixMillis(1_001));
    store.remove_network(HUB).wait().unwrap();
    assert!(store.networks().wait().unwrap().is_empty());
}

#[test]
fn a_database_from_a_newer_version_is_refused_and_not_touched() {
    let (folder, store) = store();
    let path = folder.path().join("node.db");
    store.begin(begun(1)).wait().unwrap();
    drop(store);
    // The store's threads close the file by themselves; only whoever closes it last takes the journal away.
    let begun = std::time::Instant::now();
    while {
        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", 99).unwrap();
        drop(raw);
        path.with_file_name("node.db-wal").exists()
    } {
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "the store's threads still run");
    }
    let before = fs::read(&path).unwrap();
    let error = Store::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn what_is_no_database_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let holiday = "a picture of somebody's holiday ".repeat(400);
    fs::write(&path, &holiday).unwrap();
    assert!(matches!(Store::open(&path).unwrap_err(), StoreError::Damaged(_)));
    assert_eq!(fs::read_to_string(&path).unwrap(), holiday);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_named_as_such() {
    let error = Store::open("/proc/node.db".as_ref()).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly), "{error}");
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u8),
    End(u8, u32),
    Keep(u8),
    Posted(u8, u32, i64),
    Void(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u8..8).prop_map(Step::Begin),
        (0_u8..8, 0_u32..50).prop_map(|(number, tokens)| Step::End(number, tokens)),
        (0_u8..8).prop_map(Step::Keep),
        (0_u8..8, 0_u32..50, 0_i64..90)
            .prop_map(|(number, tokens, earned)| Step::Posted(number, tokens, earned)),
        (0_u8..8).prop_map(Step::Void),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    /// Sums kept along the way equal the sums of the rows, whatever comes in whatever order.
    #[test]
    fn sums_never_drift_from_what_they_add_up(steps in proptest::collection::vec(step(), 1..60)) {
        let (_folder, store) = store();
        let mut settled = std::collections::BTreeSet::new();
        let mut seq = 0;
        for step in steps {
            // All go into one queue; only the last is waited for.
            match step {
                Step::Begin(number) => drop(store.begin(begun(number))),
                Step::End(number, tokens) => drop(store.end(ended(number, usage(tokens * 2, tokens)))),
                Step::Keep(number) => drop(store.keep_statements(HUB, vec![(id(number), envelope(number))], UnixMillis(1))),
                // A hub settles a request once.
                Step::Posted(number, tokens, earned) => if settled.insert(number) {
                    seq += 1;
                    drop(store.posted(HUB, posted(seq, number, usage(tokens, tokens), earned), UnixMillis(1), DAY));
                },
                Step::Void(number) => if !settled.contains(&number) {
                    drop(store.void(HUB, id(number), UnixMillis(1)));
                },
            }
        }
        store.flush().wait().unwrap();
        let rows = store.requests(1_000, None, UnixMillis(9_000)).wait().unwrap();
        let books = store.settled(HUB).wait().unwrap();
        let day = store.day(DAY).wait().unwrap();
        let by_network = store.network_day(HUB, DAY).wait().unwrap();
        prop_assert_eq!(&day, &by_network);
        prop_assert_eq!(day.requests as usize, rows.len());
        prop_assert_eq!(day.earned_ucr, books.earned);
        prop_assert_eq!(store.posted_through(HUB).wait().unwrap(), seq);
        // Postings of requests that this node never began are in the day, not in the rows.
        let in_rows: u64 = rows.iter().map(|row| u64::from(row.tokens_out)).sum();
        let known: u64 = rows.iter().filter(|row| row.receipt.is_some()).map(|row| u64::from(row.tokens_out)).sum();
        prop_assert_eq!(day.tokens_out, in_rows - known + books.tokens_out);
    }
}

#[test]
fn stretches_and_hours_are_kept_as_they_were_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let store = Store::open(&path).unwrap();
    let span = |since, until, state, code| SpanRow {
        since: UnixMillis(since),
        until: UnixMillis(until),
        state,
        code,
    };
    let paused = span(1_000, 1_000, State::Paused, Some(PauseCode::PersonHere));
    store.begin_span(paused).wait().unwrap();
    store.extend_span(UnixMillis(61_000)).wait().unwrap();
    // The clock was set back by a minute in between.
    store.begin_span(span(2_000, 2_000, State::Sharing, None)).wait().unwrap();
    store.extend_span(UnixMillis(50_000)).wait().unwrap();
    let hours = |since, windows: &str| HoursRow {
        since: UnixMillis(since),
        windows: windows.into(),
        exceptions: String::new(),
    };
    for row in [hours(500, "always"), hours(70, "22:00-07:00")] {
        store.put_hours(row).wait().unwrap();
    }
    drop(store);

    let store = Store::open(&path).unwrap();
    let both = [SpanRow { until: UnixMillis(61_000), ..paused }, span(2_000, 50_000, State::Sharing, None)];
    assert_eq!(store.spans(UnixMillis(0)).wait().unwrap(), both);
    assert_eq!(store.spans(UnixMillis(50_000)).wait().unwrap(), both[..1]);
    assert_eq!(store.allowed_hours().wait().unwrap(), [hours(70, "22:00-07:00"), hours(500, "always")]);
}

/// Schema 1 has a test of its own, with what it kept.
#[test]
fn a_database_of_schema_2_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch(include_str!("../src/schema/1.sql")).unwrap();
    old.execute_batch(include_str!("fixtures/rows-of-schema-1.sql")).unwrap();
    old.execute_batch(include_str!("../src/schema/2.sql")).unwrap();
    old.pragma_update(None, "user_version", 2).unwrap();
    drop(old);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.requests(9, None, UnixMillis(i64::MAX)).wait().unwrap().len(), 4);
    let span = SpanRow { since: UnixMillis(1), until: UnixMillis(2), state: State::Offline, code: None };
    store.begin_span(span).wait().unwrap();
    assert_eq!(store.spans(UnixMillis(0)).wait().unwrap(), [span]);
}
