//! Answers that one machine begins and another goes on with, and answers that outlive a dropped connection: on the real
//! llama.cpp, at temperature 0, laid beside the same answers left alone.

use std::time::{Duration, Instant};

use idlewatt_tests::{Answer, Consumer, Hub, ModelServer, Node, claimed, until};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::receipts::payload;
use crate::stream;

const TOKENS: u32 = 96;

/// What is asked, and what its answer is made of.
const ASKED: [(&str, &str); 4] = [
    ("English", "Tell me a short story about a cat and a dog."),
    ("code", "Write a Python function that adds two numbers."),
    ("Chinese", "Translate 'good morning, how are you?' to Chinese."),
    ("emoji", "Write this line again three times, each on a line of its own: 你好，世界 😀🎉"),
];

/// A hub with two nodes, each with a model server of its own that runs the same file.
struct Two {
    hub: Hub,
    machines: [(Node, ModelServer); 2],
    consumer: Consumer,
}

/// How an interrupted answer came.
struct Came {
    answer: Answer,
    /// The longest wait for a piece of text.
    gap: Duration,
    /// Which machine began it.
    first: usize,
}

fn model() -> ModelServer {
    // A prompt that is computed many tokens at once is rounded otherwise than what was generated; this small model then takes
    // another of two words that are almost as likely, however well it was handed over.
    ModelServer::start(&["--parallel", "2", "--threads", "1", "--ubatch-size", "1"])
}

fn asked(question: &str) -> Value {
    let mut body = stream(question, TOKENS);
    // The token that ends an answer is forbidden, so that every answer is long enough to be cut.
    body["logit_bias"] = serde_json::json!({"2": -100});
    body
}

impl Two {
    async fn start() -> Self {
        let hub = Hub::start();
        let machines = [(Node::start(), model()), (Node::start(), model())];
        for (node, model) in &machines {
            node.share(model, "1.234567").await;
            node.join(&hub, "host").await;
        }
        let consumer = hub.consumer("guest", 1_000);
        hub.until_available(&consumer, true).await;
        Self { hub, machines, consumer }
    }

    async fn whole(&self, question: &str) -> Answer {
        let answer = self.consumer.chat(&asked(question)).await;
        assert!(answer.done && answer.error().is_none(), "{answer:?}");
        answer
    }

    /// Asks, and has the machine that answers fail after so many pieces.
    async fn interrupted(&self, question: &str, pieces: usize, fail: impl AsyncFnOnce(usize)) -> Came {
        let mut answer = self.consumer.open("/v1/chat/completions", &asked(question)).await.unwrap();
        answer.pieces(pieces).await;
        let first = usize::from(self.machines[0].1.busy().await == 0);
        let (mut gap, mut last) = (Duration::ZERO, Instant::now());
        let mut failing = std::pin::pin!(fail(first));
        let mut failed = false;
        loop {
            let texts = answer.answer.text().len();
            let more = tokio::select! {
                () = &mut failing, if !failed => { failed = true; continue }
                more = answer.more() => more,
            };
            if answer.answer.text().len() > texts {
                gap = gap.max(last.elapsed());
                last = Instant::now();
            }
            if !more {
                break;
            }
        }
        if !failed {
            failing.await;
        }
        Came { answer: answer.answer, gap, first }
    }

    async fn receipt(&self, answer: &Answer) -> Value {
        let (receipt, _) = until(claimed(Duration::from_secs(5)), "the request's receipt", async || {
            let receipt = self.consumer.receipt(&answer.id()).await;
            (receipt.status == 200).then(|| payload(&receipt.parts[0]))
        })
        .await;
        receipt
    }

    /// The answer is what it would have been, nothing lost or doubled, and the second machine read what was delivered and
    /// made only the rest. How long the second server took to read it, where that is how it came about.
    async fn went_on(&self, came: &Came, whole: &Answer) -> Option<Duration> {
        let answer = &came.answer;
        assert!(answer.done && answer.error().is_none() && !answer.broken, "{answer:?}");
        assert_eq!(answer.text(), whole.text());
        let roles = answer.parts.iter().filter(|it| it["choices"][0]["delta"]["role"].is_string());
        assert_eq!(roles.count(), 1, "one opening: {answer:?}");
        assert!(!answer.raw.contains("iw_ids"), "the ids stay between node and hub");
        let receipt = self.receipt(answer).await;
        let segments = receipt["segments"].as_array().unwrap();
        if segments.len() == 1 {
            return None;
        }
        assert_eq!((segments.len(), &receipt["joined"]), (2, &"ids".into()), "{receipt}");
        let tokens = |at: usize, of: &str| segments[at]["usage"][of].as_u64().unwrap();
        let of =
            |answer: &Answer, count: &str| answer.usage().and_then(|usage| usage[count].as_u64()).unwrap();
        let read = tokens(1, "prompt");
        assert!(read > of(whole, "prompt_tokens"), "what was delivered is in the second prompt");
        // Of a machine that is gone the hub knows its own count only: one token an event.
        if segments[0]["statement"].to_string().contains("payload") {
            assert_eq!(
                read,
                of(whole, "prompt_tokens") + tokens(0, "completion"),
                "all of it, and nothing else"
            );
            assert_eq!(of(answer, "completion_tokens"), of(whole, "completion_tokens"), "every token once");
        }
        assert!(tokens(1, "completion") <= u64::from(TOKENS) - tokens(0, "completion"));
        let second = &self.machines[1 - came.first].1;
        let bound = claimed(Duration::from_secs(5));
        let (took, _) = until(bound, "the second server's log shows the prefix in its prompt", async || {
            prompts(&second.process.log()).pop().filter(|(_, tokens)| *tokens == read)
        })
        .await;
        Some(took.0)
    }
}

/// Each prompt that a llama.cpp server read: how long it took, and how many tokens it was.
fn prompts(log: &str) -> Vec<(Duration, u64)> {
    let lines =
        log.lines().filter_map(|line| line.split_once("prompt eval time =")).filter_map(|(_, rest)| {
            let mut words = rest.split_whitespace();
            let ms: f64 = words.next()?.parse().ok()?;
            let tokens = words.nth(2)?.parse().ok()?;
            Some((Duration::from_secs_f64(ms / 1000.0), tokens))
        });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_answer_is_the_one_that_would_have_come() {
    let two = Two::start().await;
    let strict = std::env::var_os("IDLEWATT_STRICT").is_some();
    let each = if strict { 16 } else { 1 };
    let mut late = Vec::new();
    for (kind, question) in ASKED {
        let whole = two.whole(question).await;
        let pieces = whole.parts.iter().filter(|it| it["choices"][0]["delta"]["content"] != "").count();
        let (mut cut, mut turn) = (0, 0);
        while cut < each {
            turn += 1;
            assert!(turn <= 4 * each + 8, "too many answers end before they can be cut");
            // In the first half, because the host's command takes its time while the answer goes on.
            let after = 2 + (turn * 7) % (pieces / 2).max(1);
            let came = two
                .interrupted(question, after, async |first| {
                    let paused = two.machines[first].0.run(&["pause"]);
                    assert_eq!(paused.code, Some(0), "{paused:?}");
                })
                .await;
            let went_on = two.went_on(&came, &whole).await;
            assert_eq!(two.machines[came.first].0.run(&["resume"]).code, Some(0));
            two.machines[came.first].0.until_state("sharing").await;
            if let Some(read) = went_on {
                cut += 1;
                late.push(came.gap.saturating_sub(read));
            }
        }
        println!("{kind}: {cut} of {cut} interrupted answers equal the one left alone, by ids");
    }
    late.sort_unstable();
    let (median, worst) = (late[late.len() / 2], late[late.len() - 1]);
    let most = late[(late.len() - 1) * 9 / 10];
    println!(
        "{} interruptions; the gap past one prompt evaluation: median {} ms, nine in ten within {} ms, worst {} ms",
        late.len(),
        median.as_millis(),
        most.as_millis(),
        worst.as_millis()
    );
    assert!(most <= claimed(Duration::from_millis(100)), "{late:?}");
    two.hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_killed_is_gone_on_for() {
    let mut two = Two::start().await;
    let question = ASKED[3].1;
    let whole = two.whole(question).await;
    let came = two
        .interrupted(question, 8, async |first| {
            two.machines[first].0.process.tell(libc::SIGKILL);
        })
        .await;
    assert!(two.went_on(&came, &whole).await.is_some(), "it ended before it was cut");
    println!("kill -9 of the node: went on after {} ms", came.gap.as_millis());
    let killed = &mut two.machines[came.first].0;
    killed.restart();
    killed.until_connected(&two.hub.url).await;
    two.hub.check_ledger();
}

/// A way to the hub that can be cut.
async fn relay(to: &str, cut: watch::Receiver<bool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let to = to.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, mut cut) = (to.clone(), cut.clone());
            tokio::spawn(async move {
                let mut far = TcpStream::connect(&to).await.unwrap();
                tokio::select! {
                    _ = cut.wait_for(|cut| *cut) => {}
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_loses_no_byte_and_stops_no_server() {
    let (hub, node, model) = (Hub::start(), Node::start(), model());
    node.share(&model, "1.234567").await;
    let (cut, is_cut) = watch::channel(false);
    let way = relay(&hub.url, is_cut).await;
    let direct = hub.url.trim_start_matches("http://").to_owned();
    let invite = hub.invite("host");
    let led = invite.replace(&direct, &way).replace(&direct.replace(':', "%3A"), &way.replace(':', "%3A"));
    assert_ne!(invite, led, "the invite names the hub's address");
    let joined = node.run(&["join", &led, "--json"]);
    assert_eq!(joined.code, Some(0), "{joined:?}");
    let consumer = hub.consumer("guest", 1_000);
    hub.until_available(&consumer, true).await;

    let whole = consumer.chat(&asked(ASKED[3].1)).await;
    let mut answer = consumer.open("/v1/chat/completions", &asked(ASKED[3].1)).await.unwrap();
    answer.pieces(8).await;
    cut.send(true).unwrap();
    let answer = answer.rest().await;
    assert!(answer.done && answer.error().is_none(), "{answer:?}");
    assert_eq!((answer.text(), answer.usage()), (whole.text(), whole.usage()));
    let (receipt, _) = until(claimed(Duration::from_secs(5)), "the request's receipt", async || {
        let receipt = consumer.receipt(&answer.id()).await;
        (receipt.status == 200).then(|| payload(&receipt.parts[0]))
    })
    .await;
    let segments = receipt["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 1, "{receipt}");
    assert!(segments[0]["statement"].to_string().contains("payload"), "signed by the node: {receipt}");
    // The server writes its log by and by: both answers are waited for, then looked at.
    let prompt = whole.usage().unwrap()["prompt_tokens"].as_u64().unwrap();
    let (read, _) = until(claimed(Duration::from_secs(5)), "the server tells of both answers", async || {
        let read: Vec<u64> = prompts(&model.process.log()).iter().map(|it| it.1).collect();
        (read.iter().filter(|tokens| **tokens == prompt).count() >= 2).then_some(read)
    })
    .await;
    assert!(read.ends_with(&[prompt, prompt]), "no prompt was read again: {read:?}");
    hub.check_ledger();
}
