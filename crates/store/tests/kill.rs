//! `kill -9` in the middle of a busy store: nothing that was acknowledged is lost, and the sums still add up.

#![cfg(unix)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use idlewatt_protocol::id::SignatureBytes;
use idlewatt_protocol::receipt::Envelope;
use idlewatt_protocol::{Artefact, PublicKey, RequestId, UnixMillis};
use idlewatt_store::{Begun, Reply, Store};

const PLACE: &str = "IDLEWATT_KILL_TEST";
const HUB: &str = "hub";
/// Statements in one call, and calls under way at once.
const BATCH: u64 = 16;
const UNDER_WAY: usize = 32;

fn id(number: u64) -> RequestId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RequestId(bytes)
}

fn envelope(number: u64) -> Envelope {
    Envelope {
        payload_type: "application/vnd.idlewatt.statement.v1+json".into(),
        payload: number.to_string(),
        index: 0,
        path: Vec::new(),
        leaves: 1,
        keyid: PublicKey([1; 32]),
        sig: SignatureBytes([2; 64]),
    }
}

/// The child: keeps statements as fast as it can and says which are acknowledged, until it is killed.
#[test]
#[ignore = "is run by the test beside it"]
fn child() {
    let Ok(place) = std::env::var(PLACE) else { return };
    let (path, first) = place.rsplit_once('#').unwrap();
    let store = Store::open(Path::new(path)).unwrap();
    let mut number: u64 = first.parse().unwrap();
    let mut under_way: VecDeque<(u64, Reply<()>)> = VecDeque::new();
    let mut out = std::io::stdout();
    loop {
        let statements = (number..number + BATCH).map(|number| (id(number), envelope(number))).collect();
        drop(store.begin(Begun {
            id: id(number),
            network: HUB.into(),
            model: "m".into(),
            artefact: Artefact {
                model: "m".into(),
                quantisation: None,
                digest: None,
                engine: "llama.cpp".into(),
                engine_build: None,
            },
            own: false,
            received: UnixMillis(1),
            day: "2026-11-21".into(),
            session: None,
            gpu: None,
        }));
        number += BATCH;
        under_way.push_back((number, store.keep_statements(HUB, statements, UnixMillis(1))));
        if under_way.len() == UNDER_WAY {
            let (upto, reply) = under_way.pop_front().unwrap();
            reply.wait().unwrap();
            writeln!(out, "kept below {upto}").unwrap();
        }
    }
}

#[test]
fn no_acknowledged_statement_is_lost_to_kill_9() {
    let rounds = std::env::var("IDLEWATT_KILL_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(6_u64);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.db");
    let mut acknowledged = 0;
    let mut begin = 0;
    let clock = Instant::now();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(PLACE, format!("{}#{begin}", path.display()))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pid = i32::try_from(child.id()).unwrap();
        // Each round dies at another moment after its first acknowledgement.
        let life = Duration::from_millis(100 + 173 * (round % 5));
        let mut first = None;
        for line in lines {
            // The last line may be cut.
            let Some(upto) = line.unwrap().strip_prefix("kept below ").and_then(|it| it.parse().ok()) else {
                continue;
            };
            acknowledged = acknowledged.max(upto);
            if first.get_or_insert_with(Instant::now).elapsed() > life {
                // SAFETY: a plain system call on a child that is still ours.
                #[expect(
                    unsafe_code,
                    reason = "the one way to send SIGKILL and keep reading what came before"
                )]
                let sent = unsafe { libc::kill(pid, libc::SIGKILL) };
                assert_eq!(sent, 0);
            }
        }
        child.wait().unwrap();
        assert!(first.is_some(), "the child kept nothing");

        let store = Store::open(&path).unwrap();
        let kept = store.unsettled(HUB, usize::MAX).wait().unwrap();
        let kept: Vec<u64> = kept.iter().map(|envelope| envelope.payload.parse().unwrap()).collect();
        // Whole calls only, in order, without a hole, and everything that was acknowledged.
        assert!(kept.iter().copied().eq(0..kept.len() as u64), "round {round}");
        assert!(kept.len() as u64 >= acknowledged, "{} kept of {acknowledged}", kept.len());
        assert_eq!(kept.len() as u64 % BATCH, 0);
        let day = store.day("2026-11-21").wait().unwrap();
        let rows = store.requests(u32::MAX, None, UnixMillis(2)).wait().unwrap();
        assert_eq!(day.requests as usize, rows.len());
        begin = kept.len() as u64;
    }
    println!("{acknowledged} acknowledged over {rounds} kills in {:.1?}, none lost", clock.elapsed());
}
