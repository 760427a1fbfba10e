//! What energy costs and what the wall says, on a whole running system with a simulated card and a plug.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idlewatt_tests::{Card, Draws, Hub, ModelServer, Node, claimed, until};
use serde_json::{Value, json};

use crate::chat;

/// Millijoules in a kilowatt-hour, as `requests` tells energy.
const KWH: f64 = 3.6e9;

/// A plug with Tasmota: answers everybody the same until it is told something else.
pub(crate) struct Plug {
    pub(crate) address: SocketAddr,
    answer: Arc<Mutex<String>>,
}

impl Plug {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, answer) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(String::new())));
        let told = Arc::clone(&answer);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for mut connection in listener.incoming().map_while(Result::ok) {
                let mut request = [0; 4096];
                drop(connection.read(&mut request));
                let body = told.lock().unwrap().clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                drop(connection.write_all((head + &body).as_bytes()));
            }
        });
        Self { address, answer }
    }

    pub(crate) fn tells(&self, answer: &str) {
        *self.answer.lock().unwrap() = answer.to_owned();
    }
}

fn micros(money: &Value) -> f64 {
    assert_eq!(money["currency"], "EUR", "{money}");
    money["micros"].as_f64().unwrap()
}

fn page(node: &Node) -> Value {
    node.run(&["power", "--json"]).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn energy_costs_what_it_cost_and_the_wall_is_what_the_plug_says() {
    let card = Card::start(Draws { resting: 40, working: 250 }, &json!({}), false);
    let model = ModelServer::start(&["--parallel", "2", "--threads", "1"]);
    card.follow(model.process.id());
    let plug = Plug::start();
    plug.tells(r#"{"StatusSNS":{"ENERGY":{"Total":12.5,"Power":412}}}"#);
    let node = Node::start_in(tempfile::tempdir().unwrap(), card.session());
    for (key, value) in [
        ("devices.nvml", card.library().to_str().unwrap()),
        ("power.helper", "false"),
        // All that the card can draw: no cap is to end what is measured here.
        ("power.cap", "450"),
        // One band or the other: at every hour of the week a kilowatt-hour costs 40.
        ("energy.price", "1 EUR/kWh; 06:00-18:00 40; 18:00-06:00 40"),
        ("earnings.credit_value", "100 EUR"),
        ("signals.plugs", &format!("tasmota://{}", plug.address)),
    ] {
        node.set(key, value);
    }
    node.share(&model, "1000").await;
    let hub = Hub::start_with(&[]);
    node.join(&hub, "host").await;
    let consumer = hub.consumer("guest", 1_000_000);
    hub.until_available(&consumer, true).await;

    let bound = claimed(Duration::from_secs(5));
    until(bound, "the wall is what the plug says", async || {
        (page(&node)["machine"]["wall_mw"] == 412_000).then_some(())
    })
    .await;
    let sensors = page(&node)["sensors"].clone();
    assert!(sensors.as_array().unwrap().iter().any(|it| it["scope"] == "wall"), "{sensors}");

    assert_eq!(consumer.chat(&chat("Tell me a tale.", 200)).await.status, 200);
    let settled = async || node.requests().into_iter().find(|it| it["earned_ucr"].is_i64());
    let (row, _) = until(bound, "the request is settled", settled).await;
    let (energy, cost) = (row["energy"]["total_mj"].as_f64().unwrap(), micros(&row["cost"]));
    assert!((cost - energy / KWH * 40e6).abs() <= 1.0, "{row}");
    let gross = micros(&row["gross"]);
    assert_eq!(gross, row["earned_ucr"].as_f64().unwrap() * 100.0);
    assert_eq!(micros(&row["net"]), gross - cost);

    let told = page(&node);
    let used = &told["models"][0];
    assert_eq!((&used["cost"], &used["gross"], &used["net"]), (&row["cost"], &row["gross"], &row["net"]));
    assert_eq!(told["profitable"], true, "{told}");
    // The day's energy is kept each second, with what was waited too.
    let in_the_day = async || {
        let told = page(&node);
        let (today, month) = (&told["today"], &told["month"]);
        assert!(today["unpriced_mj"].is_null() && today["cost"] == month["cost"], "{told}");
        (micros(&today["cost"]) >= cost).then_some(())
    };
    until(bound, "the day has cost what the request did, and more", in_the_day).await;

    // A new price changes nothing that was used before.
    node.set("energy.price", "1000000 EUR/kWh");
    let after = node.requests().into_iter().find(|it| it["id"] == row["id"]).unwrap();
    assert_eq!(after["cost"], row["cost"]);
    assert_eq!(page(&node)["models"][0]["cost"], row["cost"]);
    assert_eq!(page(&node)["profitable"], false);

    // What is no reading is no number: the wall is unknown, somebody is told why, and sharing goes on.
    plug.tells("<html>Please log in</html>");
    let long = claimed(Duration::from_secs(30));
    until(long, "the wall is unknown", async || page(&node)["machine"]["wall_mw"].is_null().then_some(()))
        .await;
    let doctor = node.run(&["doctor", "--json"]).json();
    let told = doctor["checks"].as_array().unwrap().iter().any(|it| {
        it["level"] == "warning"
            && it["what"].as_str().is_some_and(|what| what.contains("answered with a web page"))
    });
    assert!(told, "{doctor}");
    assert_eq!(consumer.chat(&chat("Another one.", 20)).await.status, 200);
    hub.check_ledger();
}
