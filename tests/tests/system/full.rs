//! A disk that becomes full while a program works: nothing is taken that could not be kept, and nothing kept is lost.

use std::time::Duration;

use idlewatt_tests::{Consumer, Hub, ModelServer, Node, SmallDisk, claimed, until};

use crate::chat;

#[derive(PartialEq)]
enum Small {
    Home,
    Data,
}

struct Parts {
    hub: Hub,
    node: Node,
    consumer: Consumer,
    _model: ModelServer,
    // Taken away last.
    disk: SmallDisk,
}

impl Parts {
    /// A system of which one folder is a small disk; `None` where this user may not mount one.
    async fn start(small: Small) -> Option<Self> {
        let (home, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = if small == Small::Home { home.path() } else { data.path() };
        let Some(disk) = SmallDisk::on(folder, 4) else {
            println!("skipped: this user may not mount a small disk");
            return None;
        };
        let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
        let (hub, node) = (Hub::start_in(data, &[]), Node::start_in(home, Vec::new()));
        node.share(&model, "1").await;
        node.join(&hub, "host").await;
        let consumer = hub.consumer("guest", 1_000);
        hub.until_available(&consumer, true).await;
        Some(Self { hub, node, consumer, _model: model, disk })
    }

    async fn asks(&self) -> u16 {
        self.consumer.chat(&chat("Hi", 4)).await.status
    }

    /// Asks until it is refused, as one who is told when to come back; gives the number of answers before.
    async fn until_refused(&self) -> usize {
        for answered in 0..100 {
            let answer = self.consumer.chat(&chat("Hi", 4)).await;
            if answer.status == 503 {
                assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
                return answered;
            }
            // One that was under way when the disk refused may be taken back; it is not billed.
            assert!(matches!(answer.status, 200 | 502), "{answer:?}");
        }
        panic!("a hundred requests were answered on a full disk");
    }

    /// Waits until requests are answered, and both books tell the same.
    async fn until_whole(&self) {
        let bound = claimed(Duration::from_secs(5));
        until(bound, "requests are answered again", async || (self.asks().await == 200).then_some(())).await;
        let equal = async || {
            let earned = self.hub.account("host")["balance_ucr"].as_i64()?;
            let kept = self.node.status()["today"]["earned_ucr"].as_i64()?;
            (earned > 0 && earned == kept).then_some(())
        };
        until(bound, "the node's books equal the hub's", equal).await;
        self.hub.check_ledger();
        for row in self.node.requests() {
            assert_ne!(row["outcome"], "running", "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_on_a_full_disk_takes_nothing_says_so_and_goes_on_when_there_is_room() {
    let Some(parts) = Parts::start(Small::Home).await else { return };
    let node = &parts.node;
    assert_eq!(parts.asks().await, 200);
    parts.disk.fill();
    parts.until_refused().await;
    node.until_state("paused").await;
    let status = node.status();
    assert_eq!(status["reasons"][0]["code"], "cannot_keep", "{status}");
    assert!(status["attention"][0]["what"].as_str().unwrap().contains("full"), "{status}");
    assert!(status["attention"][0]["do"].is_string(), "{status}");
    for command in [&["config", "set", "share.while_active", "true"][..], &["pause"], &["resume"]] {
        let ran = node.run(command);
        assert_eq!(ran.code, Some(7), "{ran:?}");
        assert!(ran.stderr.contains("full") && ran.stderr.contains("do:"), "{ran:?}");
    }
    parts.disk.free();
    node.until_state("sharing").await;
    parts.until_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_on_a_full_disk_takes_nothing_says_so_and_goes_on_when_there_is_room() {
    let Some(parts) = Parts::start(Small::Data).await else { return };
    assert_eq!(parts.asks().await, 200);
    parts.disk.fill();
    parts.until_refused().await;
    let made = parts.hub.run(&["key", "create", "--account", "late"]);
    assert_eq!(made.code, Some(1), "{made:?}");
    assert!(made.stderr.contains("full") && made.stdout.is_empty(), "{made:?}");
    parts.disk.free();
    parts.until_whole().await;
}
