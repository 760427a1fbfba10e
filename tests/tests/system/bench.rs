//! `idlewatt bench` against the real model server, beside a simulated card that draws what that server does.

use std::time::{Duration, SystemTime};

use idlewatt_tests::{Card, Draws, Hub, ModelServer, Node, Process, Ran, claimed, node, python, until};
use serde_json::{Value, json};

const OWN_LIMIT: u64 = 450;

struct Rig {
    card: Card,
    model: ModelServer,
    node: Node,
}

impl Rig {
    async fn start() -> Self {
        let card = Card::start(Draws { resting: 40, working: 300 }, &json!({ "noise_mw": 2_000.0 }), true);
        let model = ModelServer::start(&["--parallel", "1", "--threads", "1"]);
        card.follow(model.process.id());
        let node = Node::start_in(tempfile::tempdir().expect("a folder"), card.session());
        node.set("devices.nvml", &card.library().display().to_string());
        // Sharing is to leave the card the limit that it has, so that only the sweep changes it.
        node.set("power.cap", &OWN_LIMIT.to_string());
        node.share(&model, "1").await;
        Self { card, model, node }
    }

    fn bench(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = node::command(self.node.home());
        command.envs(self.card.session()).arg("bench").args(arguments);
        command
    }

    fn paused_by_host(&self) -> bool {
        let status = self.node.status();
        status["reasons"].as_array().is_some_and(|all| all.iter().any(|it| it["code"] == "paused_by_host"))
    }
}

/// Checks a table as a spreadsheet would read it.
const READ: &str = "import csv, sys
rows = list(csv.DictReader(open(sys.argv[1], newline='')))
assert [float(row['cap (W)']) for row in rows] == [150.0, 250.0], rows
assert all(float(row['decode (J/token)']) > 0 and row['energy is'] == 'measured' for row in rows), rows";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_is_measured_published_and_leaves_everything_as_it_was() {
    let rig = Rig::start().await;
    let hub = Hub::start();
    rig.node.join(&hub, "host").await;
    let table = rig.node.home().join("bench.csv");
    let begun = SystemTime::now();
    let out = table.display().to_string();
    let sweep = ["--repeats", "2", "--cap-sweep", "150,250", "--publish", "--json", "--out", &out];
    let ran = Ran::of(&mut rig.bench(&sweep)).json();
    let points = ran["report"]["points"].as_array().expect("points");
    for (point, cap) in points.iter().zip([150_000, 250_000]) {
        println!("{point}");
        assert_eq!(
            (&point["cap_mw"], &point["repeats"], &point["label"]),
            (&json!(cap), &json!(2), &json!("measured"))
        );
        // What the card draws at work is its limit, less what it draws between two requests.
        let mean = point["mean_mw"].as_i64().expect("power");
        assert!(mean <= cap * 102 / 100 && mean >= cap * 80 / 100, "{mean} mW at {cap}");
        for phase in ["prefill", "decode"] {
            let (uj, speed) = (&point[phase]["uj_per_token"], &point[phase]["milli_tokens_per_s"]);
            let (uj, speed) = (uj.as_f64().expect("energy"), speed.as_f64().expect("speed"));
            assert!(uj > 0.0 && speed > 0.0, "{point}");
            // Power over speed, whatever the machine does meanwhile, in the same order.
            let from_speed = mean as f64 * 1e6 / speed;
            assert!((0.5..2.0).contains(&(uj / from_speed)), "{phase}: {uj} and {from_speed} µJ a token");
        }
    }
    assert_eq!(points.len(), 2);
    let truth = rig.card.truth(begun);
    assert!(truth.len() > 1000, "the card kept its record");
    // Everything is as it was.
    assert_eq!(rig.card.limit(), Some(OWN_LIMIT));
    assert!(!rig.paused_by_host());
    // It is kept, and the Power page has it.
    assert_eq!(ran["kept"], true);
    let read = Ran::of(std::process::Command::new(python()).args(["-c", READ]).arg(&table));
    assert_eq!(read.code, Some(0), "{read:?}");

    // The hub shows it to anyone, and anyone can check it.
    assert_eq!(ran["published"], json!([format!("{}/energy", hub.url)]));
    let http = idlewatt_tests::http();
    let get = async |path: &str| http.get(format!("{}{path}", hub.url)).send().await.expect("an answer");
    let page = get("/energy").await.text().await.expect("a page");
    assert!(page.contains("RTX 4090") && page.contains("smollm2-135m-instruct:q4_1"), "{page}");
    let listed: Value = get("/energy.json").await.json().await.expect("JSON");
    let entry = &listed["reports"][0];
    assert_eq!(entry["report"], ran["report"]);
    let envelope = get(entry["envelope"].as_str().expect("a path")).await.text().await.expect("an envelope");
    let file = rig.node.home().join("report.json");
    std::fs::write(&file, &envelope).expect("a file");
    let verify = |file: &std::path::Path| {
        Ran::of(node::command(rig.node.home()).args(["bench", "--json", "--verify"]).arg(file))
    };
    let checked = verify(&file).json();
    assert_eq!((&checked["report"], &checked["signer"]), (&ran["report"], &entry["signer"]));
    let mut forged: Value = serde_json::from_str(&envelope).expect("JSON");
    let payload = forged["payload"].as_str().expect("a payload").replacen('M', "N", 1);
    forged["payload"] = payload.into();
    std::fs::write(&file, forged.to_string()).expect("a file");
    assert_eq!(verify(&file).code, Some(14));
    drop(rig.model);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_in_a_sweep_gives_limits_and_sharing_back() {
    let rig = Rig::start().await;
    let mut command = rig.bench(&["--cap-sweep", "150,200"]);
    let mut bench = Process::spawn("the bench", &mut command, &rig.node.home().join("bench.log"));
    until(Duration::from_secs(120), "a limit is set", async || (rig.card.limit() == Some(200)).then_some(()))
        .await;
    assert!(rig.paused_by_host());
    bench.tell(libc::SIGINT);
    let bound = claimed(Duration::from_secs(5));
    let (code, took) = bench.ended(bound);
    println!("limits and sharing are back {} ms after Ctrl-C", took.as_millis());
    assert_eq!(code, 130, "{}", bench.log());
    assert_eq!(rig.card.limit(), Some(OWN_LIMIT));
    assert!(!rig.paused_by_host());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_measured_or_sent_is_told_before_anything_runs() {
    let model = ModelServer::start(&["--parallel", "1", "--threads", "1"]);
    let home = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str]| Ran::of(node::command(home.path()).args(arguments));
    for (key, value) in [
        ("servers.scan", "false"),
        ("devices.nvml", "/nonexistent/nvml.so"),
        ("devices.sysfs", "/nonexistent"),
    ] {
        assert_eq!(run(&["config", "set", key, value]).code, Some(0));
    }
    let none = run(&["bench"]);
    assert_eq!(none.code, Some(13), "{none:?}");
    assert_eq!(run(&["config", "set", "servers.urls", &model.url]).code, Some(0));
    assert_eq!(run(&["bench", "--model", "another"]).code, Some(13));
    assert_eq!(run(&["bench", "--publish"]).code, Some(3), "publishing takes an engine");
    assert_eq!(run(&["bench", "--out", "/nonexistent/x.csv"]).code, Some(1));
    let sweep = run(&["bench", "--cap-sweep"]);
    assert!(sweep.code == Some(1) && sweep.stderr.contains("no card"), "{sweep:?}");
}
