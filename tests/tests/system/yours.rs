//! What the host says of a card, of being here, of their own devices and of a locked model server, on whole systems.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use idlewatt_tests::{Card, Draws, Hub, ModelServer, Node, claimed, until};
use serde_json::json;

use crate::yielding::{Desk as _, Screen};
use crate::{chat, long_stream};

const DRAWS: Draws = Draws { resting: 40, working: 330 };

fn reasons(node: &Node) -> Vec<String> {
    let status = node.status();
    let reasons = status["reasons"].as_array().cloned().unwrap_or_default();
    reasons.iter().filter_map(|it| it["code"].as_str().map(str::to_owned)).collect()
}

/// A node that may set the limit of a card, on which its model computes.
async fn on_a_card(card: &Card, model: &ModelServer, more: Vec<(&'static str, String)>) -> Node {
    card.follow(model.process.id());
    let node = Node::start_in(tempfile::tempdir().unwrap(), [card.session(), more].concat());
    node.set("devices.nvml", card.library().to_str().unwrap());
    node.set("thermal.limit", "100");
    node.set("power.helper", "false");
    node.set("power.cap", "300");
    node.share(model, "1").await;
    node
}

/// Waits until the card itself is limited to so many watts.
async fn limited(card: &Card, watts: u64, what: &str) {
    let is_so = || async { (card.limit() == Some(watts)).then_some(()) };
    until(claimed(Duration::from_secs(3)), what, is_so).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_is_switched_off_has_its_own_limit_back_and_answers_nobody() {
    let card = Card::start(DRAWS, &json!({}), true);
    let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    let node = on_a_card(&card, &model, vec![]).await;
    let hub = Hub::start();
    node.join(&hub, "host").await;
    let consumer = hub.consumer("guest", 1_000);
    hub.until_available(&consumer, true).await;
    limited(&card, 300, "the card holds the cap").await;
    let mut answer = consumer.open("/v1/chat/completions", &long_stream("Count.")).await.unwrap();
    answer.pieces(2).await;

    node.set("gpus.off", "GPU-5151");
    let rest = answer.rest().await;
    assert!(!rest.done && rest.error().is_some(), "what ran there was ended: {rest:?}");
    limited(&card, 450, "the card has its own limit back").await;
    assert!(reasons(&node).contains(&"nothing_to_share".to_owned()), "{:?}", reasons(&node));
    assert_eq!(consumer.chat(&chat("Hi", 4)).await.status, 503);
    // The beginning of another card's id says nothing of this one.
    node.set("gpus.off", "GPU-5152");
    hub.until_available(&consumer, true).await;
    assert_eq!(consumer.chat(&chat("Hi", 4)).await.status, 200);
    limited(&card, 300, "the card holds the cap again").await;
    hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_somebody_is_here_the_card_has_the_lower_cap() {
    let (folder, card) = (tempfile::tempdir().unwrap(), Card::start(DRAWS, &json!({}), true));
    let screen = Screen::start(folder.path());
    let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    let node = on_a_card(&card, &model, vec![("DISPLAY", screen.display.clone())]).await;
    node.set("share.while_active", "true");
    node.set("share.active_cap", "50");
    node.set("share.idle_after", "1s");
    let hub = Hub::start();
    node.join(&hub, "host").await;
    let consumer = hub.consumer("guest", 1_000);
    hub.until_available(&consumer, true).await;
    limited(&card, 300, "nobody is here").await;
    let mut answer = consumer.open("/v1/chat/completions", &long_stream("Count.")).await.unwrap();
    answer.pieces(2).await;
    for _ in 0..2 {
        screen.touch();
        limited(&card, 150, "somebody is here").await;
        limited(&card, 300, "nobody is here any more").await;
    }
    answer.pieces(2).await;
    assert_eq!(reasons(&node), Vec::<String>::new(), "sharing went on all the time");
    drop(answer);
    hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hosts_own_devices_are_answered_while_somebody_is_here_and_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let screen = Screen::start(folder.path());
    let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    let hub = Hub::start_with(&["--fee", "2.5"]);
    let node = Node::start_in(tempfile::tempdir().unwrap(), vec![("DISPLAY", screen.display.clone())]);
    node.share(&model, "1").await;
    node.join(&hub, "host").await;
    // A device of the host's own shows a key of the account that the node earns for.
    let (guest, own) = (hub.consumer("guest", 1_000), hub.consumer("host", 1_000));
    hub.until_available(&guest, true).await;
    let mut others = guest.open("/v1/chat/completions", &long_stream("Count.")).await.unwrap();
    others.pieces(2).await;
    let mut mine = own.open("/v1/chat/completions", &long_stream("Count.")).await.unwrap();
    mine.pieces(2).await;

    node.set("share.idle_after", "10m");
    screen.touch();
    let others = others.rest().await;
    assert!(!others.done && others.error().is_some(), "the guest's is taken back: {others:?}");
    mine.pieces(5).await;
    drop(mine);
    let refused =
        async |consumer: &idlewatt_tests::Consumer| consumer.chat(&chat("Hi", 4)).await.status == 503;
    let guest_waits = || async { refused(&guest).await.then_some(()) };
    until(claimed(Duration::from_secs(2)), "the hub knows", guest_waits).await;
    assert_eq!(own.chat(&chat("Hi", 4)).await.status, 200, "a device of the host's own");
    let ended = || async { node.requests().iter().all(|it| it["outcome"] != "running").then_some(()) };
    until(claimed(Duration::from_secs(3)), "all is kept", ended).await;
    let kept = |own: bool| node.requests().iter().filter(|it| it["own"] == own).count();
    assert_eq!((kept(true), kept(false)), (2, 1), "{:?}", node.requests());

    node.set("share.own_devices", "false");
    let own_waits = || async { refused(&own).await.then_some(()) };
    until(claimed(Duration::from_secs(2)), "the host's own devices wait too", own_waits).await;
    hub.check_ledger();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten().map(|it| it.path());
    entries.flat_map(|it| if it.is_dir() { files(&it) } else { vec![it] }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_model_server_is_shared_with_its_key_which_is_kept_in_one_private_file() {
    const KEY: &str = "sk-canary-of-the-model-server-4711";
    let model = ModelServer::locked(KEY, &["--parallel", "2", "--threads", "1"]);
    let mut node = Node::start();
    node.set("keys.store", "file");
    node.set("servers.urls", &model.url);
    let doctor = |node: &Node| node.run(&["doctor"]).stdout;
    assert!(doctor(&node).contains("wants an API key"), "{}", doctor(&node));
    let wrong = node.told(&["key", "set", &model.url], "sk-another\n");
    assert!(!wrong.stdout.contains("sk-another") && !wrong.stderr.contains("sk-another"), "{wrong:?}");
    assert!(wrong.code != Some(0) && wrong.stderr.contains("does not take"), "tried at once: {wrong:?}");
    assert!(doctor(&node).contains("wants an API key"), "and not kept: {}", doctor(&node));
    assert_eq!(node.told(&["key", "set", &model.url], &format!("{KEY}\n")).code, Some(0));

    node.share(&model, "1").await;
    let hub = Hub::start();
    node.join(&hub, "host").await;
    let consumer = hub.consumer("guest", 1_000);
    hub.until_available(&consumer, true).await;
    assert_eq!(consumer.chat(&chat("Say hello.", 8)).await.status, 200);
    // It is there after a restart, without anybody typing it again.
    node.process.kill();
    node.restart();
    node.until_connected(&hub.url).await;
    hub.until_available(&consumer, true).await;
    assert_eq!(consumer.chat(&chat("Say hello.", 8)).await.status, 200);
    let holds = |path: &PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(KEY.len()).any(|it| it == KEY.as_bytes())
    };
    let held: Vec<PathBuf> = files(node.home()).into_iter().filter(holds).collect();
    let [file] = &held[..] else { unreachable!("the key is in {held:?}") };
    assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{}", file.display());

    assert_eq!(node.run(&["key", "remove", &model.url]).code, Some(0));
    let refused = || async {
        let services = node.status()["services"].as_array()?.clone();
        services.iter().all(|it| it["reachable"] == false).then_some(())
    };
    until(claimed(Duration::from_secs(5)), "nothing of it is offered without its key", refused).await;
    assert!(!files(node.home()).iter().any(holds), "it is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_what_holds_the_memory_of_a_card_and_lm_studio_with_its_server_off() {
    let folder = tempfile::tempdir().unwrap();
    // By their files alone: what runs is no such program.
    let running = |path: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy("/bin/sleep", &path).unwrap();
        Command::new(path).arg("600").spawn().unwrap()
    };
    let mut programs = [running(".lmstudio/.internal/utils/node"), running("blender/blender")];
    let held =
        |at: usize, gigabytes: u64| json!({ "pid": programs[at].id(), "vram": gigabytes * 1_000_000_000 });
    let fields = json!({ "processes": [held(0, 6), held(1, 5)], "vram_used": 12_000_000_000_u64 });
    let card = Card::start(DRAWS, &fields, false);
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join(".lmstudio/bin")).unwrap();
    let node = Node::start_in(home, card.session());
    node.set("devices.nvml", card.library().to_str().unwrap());
    let told = || async {
        let doctor = node.run(&["doctor", "--json"]).json();
        let line = |start: &str| {
            let all = doctor["checks"].as_array()?.iter();
            all.rev().find(|it| it["what"].as_str().is_some_and(|it| it.starts_with(start))).cloned()
        };
        assert!(line("LM Studio is installed").is_none() || line("LM Studio holds").is_none(), "said once");
        Some((line("LM Studio holds 6.0 GB")?, line("blender holds 5.0 GB")?))
    };
    let ((studio, blender), _) = until(claimed(Duration::from_secs(5)), "doctor names them", told).await;
    assert!(studio["what"].as_str().unwrap().contains("its server is off"), "{studio}");
    assert!(studio["do"].as_str().unwrap().contains("lms server start"), "{studio}");
    assert!(blender["do"].as_str().unwrap().contains("share.gpu_memory"), "{blender}");
    for program in &mut programs {
        program.kill().unwrap();
        program.wait().unwrap();
    }
}
