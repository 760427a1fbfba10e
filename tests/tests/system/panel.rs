//! The control panel in a browser, on a real engine that has served: what is looked at is in `ui/e2e`.

use std::process::Command;
use std::time::Duration;

use idlewatt_simnvml::rig::Rig;
use idlewatt_tests::{Ran, System, claimed, until};

use crate::{chat, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_works_in_a_browser() {
    let system = System::start().await;
    insert_a_card(&system);
    for number in 0..6 {
        assert_eq!(system.consumer.chat(&chat(&format!("Say {number}."), 12)).await.status, 200);
    }
    let last = system.consumer.chat(&stream("Why is the sky blue?", 24)).await;
    let settled = || async {
        let rows = system.node.requests();
        rows.iter().find(|row| row["id"] == last.id())?["earned_ucr"].as_i64()
    };
    until(claimed(Duration::from_secs(5)), "everything is settled", settled).await;
    let mut command = Command::new("npm");
    command
        .args(["run", "--silent", "e2e", "--", "e2e/panel.test.mjs"])
        .current_dir(idlewatt_tests::here().join("../ui"))
        .env("IDLEWATT_PANEL_URL", &system.node.panel)
        .env("IDLEWATT_EXPECT", "services,networks,requests,watts");
    let ran = Ran::of(&mut command);
    println!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0));
}

/// Puts a simulated card into the node's machine.
fn insert_a_card(system: &System) {
    let card = serde_json::json!({ "cards": [{ "load_w": 180.0, "noise_mw": 2_000.0, "limit_w": 400 }] });
    let rig = Rig::new(system.node.home(), &card).expect("the simulated NVML");
    // What it draws is nobody's process, and would be taken for another program's.
    system.node.set("share.gpu_load", "never");
    system.node.set("devices.nvml", &rig.library().display().to_string());
}
