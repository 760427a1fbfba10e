//! The official OpenAI SDKs, unmodified: what they say is in `tests/sdk`.

use std::process::Command;

use idlewatt_tests::{MODEL, Ran, System};

async fn passes(mut command: Command) {
    let system = System::start().await;
    let poor = system.hub.consumer("poor", 0);
    command
        .env("IDLEWATT_HUB", &system.hub.url)
        .env("IDLEWATT_KEY", &system.consumer.key)
        .env("IDLEWATT_POOR_KEY", &poor.key)
        .env("IDLEWATT_MODEL", MODEL)
        .env("IDLEWATT_SERVER", &system.model.url);
    for proxy in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    let ran = Ran::of(&mut command);
    println!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0));
    system.hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_sdk_works_unmodified() {
    let mut command = Command::new(idlewatt_tests::python());
    command.arg(idlewatt_tests::here().join("sdk/python/check.py"));
    passes(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_sdk_works_unmodified() {
    let mut command = Command::new("node");
    command.arg(idlewatt_tests::here().join("sdk/node/check.mjs"));
    passes(command).await;
}
