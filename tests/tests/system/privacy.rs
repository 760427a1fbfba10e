//! What must not get out: prompts and answers to disk or logs, the host's files and addresses to consumers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idlewatt_tests::{System, claimed, until};

use crate::{chat, long_stream, stream};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_answers_and_keys_reach_no_file_and_no_log() {
    let mut system = System::start().await;
    let canary = "xylophone-canary-4711";
    let prompt = format!("Repeat exactly: {canary}. Then explain {canary}.");
    let whole = system.consumer.chat(&chat(&prompt, 32)).await;
    assert_eq!(whole.status, 200);
    let streamed = system.consumer.chat(&stream(&prompt, 32)).await;
    assert!(streamed.done);
    let mut cut = system.consumer.open("/v1/chat/completions", &long_stream(&prompt)).await.unwrap();
    cut.pieces(3).await;
    drop(cut);
    // Errors, too, are places where content gets out.
    let mut refused = chat(&prompt, 8);
    refused["surprise"] = canary.into();
    assert_eq!(system.consumer.chat(&refused).await.status, 400);
    system
        .consumer
        .post_bytes("/v1/chat/completions", format!("{{\"messages\": \"{canary}").into_bytes())
        .await;
    let settled = || async { (system.consumer.receipt(&streamed.id()).await.status == 200).then_some(()) };
    until(claimed(Duration::from_secs(5)), "settled", settled).await;
    system.node.process.kill();
    system.hub.process.kill();

    let answer: String = whole.text().chars().take(24).collect();
    let looked_at = [files(system.node.home()), files(system.hub.folder())].concat();
    assert!(looked_at.iter().any(|path| path.ends_with("hub.db")), "{looked_at:?}");
    for path in &looked_at {
        let Ok(bytes) = fs::read(path) else { continue };
        assert!(!holds(&bytes, canary), "the prompt is in {}", path.display());
        assert!(!holds(&bytes, &answer), "the answer is in {}", path.display());
        assert!(!holds(&bytes, &system.consumer.key), "a consumer's key is in {}", path.display());
    }
    let log = |text: String, token: &str| assert!(!text.contains(token), "a token is in a log");
    let control = fs::read_to_string(system.node.home().join("run/control.json"));
    if let Some(token) = control.ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok()) {
        log(system.node.process.log(), token["token"].as_str().unwrap());
    }
    println!("{} files of hub and node hold no prompt, answer or key", looked_at.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_path_address_or_name_of_the_host_is_in_any_answer() {
    let system = System::start().await;
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    let port = system.model.url.rsplit(':').next().unwrap().to_owned();
    let own = system.model.consumer().chat(&chat("Hi", 4)).await;
    assert!(own.raw.contains(".gguf"), "the server itself tells its file's path, or this test shows nothing");
    let answers = [
        system.consumer.chat(&chat("Hi", 8)).await,
        system.consumer.chat(&stream("Hi", 8)).await,
        system.consumer.get("/v1/models").await,
        system.consumer.get("/metrics").await,
        system.consumer.get("/").await,
    ];
    let receipt = system.consumer.receipt(&answers[1].id()).await;
    assert_eq!(receipt.status, 200);
    let inside = crate::receipts::payload(&receipt.parts[0]).to_string();
    let texts = answers.iter().map(|it| format!("{:?}{}", it.headers, it.raw)).chain([inside]);
    for text in texts {
        for private in [".gguf", "site-packages", "/root", "/home/", "/tmp/", "timings", &format!(":{port}")]
        {
            assert!(!text.contains(private), "{private} is in {text}");
        }
        assert!(host.is_empty() || !text.contains(&host), "the machine's name is in {text}");
    }
}
