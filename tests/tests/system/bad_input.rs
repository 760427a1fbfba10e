//! Wrong input, end to end: one clear answer each, and nothing lost.

use idlewatt_tests::{Answer, Consumer, Hub, Node, System, http};
use serde_json::{Value, json};

use crate::chat;

/// OpenAI's form of an error, with the status and code that SDKs turn into their exceptions.
#[track_caller]
fn is_refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    let error = answer.error().unwrap_or_else(|| panic!("no error in OpenAI's form: {answer:?}"));
    assert!(error["type"].is_string(), "{error}");
    assert!(error.get("param").is_some(), "{error}");
    assert_eq!(error["code"], code, "{error}");
    assert!(!answer.id().is_empty(), "{answer:?}");
    error["message"].as_str().expect("a message").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_request_has_its_own_clear_answer() {
    let system = System::start().await;
    let consumer = &system.consumer;

    let nobody = Consumer::new(&system.hub.url, "iw-wrong");
    is_refused(&nobody.chat(&chat("Hi", 4)).await, 401, "invalid_api_key");

    let poor = system.hub.consumer("poor", 0);
    let refused = poor.chat(&chat("Hi", 4)).await;
    is_refused(&refused, 402, "insufficient_quota");
    assert_eq!(refused.error().unwrap()["type"], "insufficient_quota");

    let mut body = chat("Hi", 4);
    body["model"] = "smollm2-135m-instrukt".into();
    let message = is_refused(&consumer.chat(&body).await, 404, "model_not_found");
    assert!(message.contains("smollm2-135m-instruct"), "it names what is near: {message}");

    let mut body = chat("Hi", 4);
    body["surprise"] = 1.into();
    let refused = consumer.chat(&body).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(refused.error().unwrap()["param"], "surprise");

    let mut body = chat("Hi", 4);
    body["messages"] = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}]}]);
    let refused = consumer.chat(&body).await;
    is_refused(&refused, 400, "invalid_value");
    assert_eq!(refused.error().unwrap()["param"], "messages[0].content[0].image_url");

    let broken = consumer
        .post_bytes("/v1/chat/completions", b"{\"model\": \"x\",\n \"messages\": [,]}".to_vec())
        .await;
    let message = is_refused(&broken, 400, "invalid_json");
    assert!(message.contains("line 2"), "it says where: {message}");

    let large = chat(&"x".repeat(4 * 1024 * 1024), 4);
    is_refused(&consumer.chat(&large).await, 413, "request_too_large");

    let mut body = chat("Hi", 4);
    body["user"] = "somebody".into();
    let ignored = consumer.chat(&body).await;
    assert_eq!(ignored.status, 200);
    assert_eq!(ignored.headers["x-idlewatt-ignored"], "user");

    for answer in [
        consumer.get("/v1/receipts/req_00000000000000000000000000000000").await,
        consumer.get("/v1/nothing").await,
    ] {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    system.hub.check_ledger();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_node_a_consumer_is_told_to_come_back() {
    let mut system = System::start().await;
    system.node.process.end(std::time::Duration::from_secs(20));
    let refused = system.consumer.chat(&chat("Hi", 4)).await;
    is_refused(&refused, 503, "unavailable");
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_works_once_for_one_node_of_one_hub() {
    let (hub, other) = (Hub::start(), Hub::start());
    let (node, second) = (Node::start(), Node::start());
    let invite = hub.invite("host");
    assert_eq!(node.run(&["join", &invite]).code, Some(0));
    assert_eq!(node.run(&["join", &invite]).code, Some(0), "again by the same node: nothing changes");
    let joined = |code: i32, invite: &str| {
        let ran = second.run(&["join", invite]);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains("why:") && ran.stderr.contains("do:"), "{ran:?}");
        ran.stderr
    };
    let used = joined(11, &invite);
    assert!(used.contains("used"), "{used}");
    joined(11, "hello");
    joined(11, &invite[..invite.len() / 2]);

    // Another hub's invite at this hub's address: its key differs, and the node does not trust it.
    let foreign = other.invite("host");
    let swapped = foreign.replace(&port(&other), &port(&hub));
    joined(12, &swapped);
    // The right key with another hub's token.
    let token = |invite: &str| invite.split("token=").nth(1).unwrap().to_owned();
    let fresh = hub.invite("host");
    joined(11, &fresh.replace(&token(&fresh), &token(&foreign)));
    // One that was not used in its day.
    let old = hub.invite("host");
    let db = rusqlite::Connection::open(hub.folder().join("data/hub.db")).unwrap();
    assert_eq!(db.execute("UPDATE invite SET expires = 1000 WHERE used_by IS NULL", []).unwrap(), 2);
    let expired = joined(11, &old);
    assert!(expired.contains("expired") || expired.contains("24"), "{expired}");
    // A hub that is down.
    let mut down = Hub::start();
    let late = down.invite("host");
    down.process.kill();
    joined(12, &late);
    // Plain HTTP to another machine.
    joined(11, &fresh.replace("127.0.0.1", "192.0.2.1"));
    assert_eq!(second.status()["networks"], json!([]), "nothing half-joined is left");
}

fn port(hub: &Hub) -> String {
    hub.url.rsplit(':').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_door_opens_to_its_own_bearer_only() {
    let node = Node::start();
    let control: Value =
        serde_json::from_slice(&std::fs::read(node.home().join("run/control.json")).unwrap()).unwrap();
    let (address, token) = (control["address"].as_str().unwrap(), control["token"].as_str().unwrap());
    let url = format!("http://{address}/api/control");
    let ask = |bearer: &str, host: Option<&str>, origin: Option<&str>| {
        let mut request = http().post(&url).bearer_auth(bearer).json(&json!({"type": "status"}));
        if let Some(host) = host {
            request = request.header("host", host);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        async { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask(token, None, None).await, 200);
    assert_eq!(ask("wrong", None, None).await, 401);
    assert_eq!(ask(token, Some("evil.example"), None).await, 403);
    let port = address.rsplit(':').next().unwrap();
    for rebound in
        [format!("evil.example:{port}"), "127.0.0.1".into(), format!("127.0.0.1.evil.example:{port}")]
    {
        assert_eq!(ask(token, Some(&rebound), None).await, 403, "{rebound}");
    }
    for foreign in ["null", "https://localhost", "http://127.0.0.1:1", "file://"] {
        assert_eq!(ask(token, None, Some(foreign)).await, 403, "{foreign}");
    }
    assert_eq!(ask(token, None, Some("https://evil.example")).await, 403);
    assert_eq!(ask(token, None, Some(&format!("http://{address}"))).await, 200);
    let in_query =
        http().post(format!("{url}?token={token}")).json(&json!({"type": "status"})).send().await.unwrap();
    assert_eq!(in_query.status(), 401);
    let set = json!({"type": "set_config", "key": "servers.urls", "value": "http://127.0.0.1:1"});
    let over_http: Value =
        http().post(&url).bearer_auth(token).json(&set).send().await.unwrap().json().await.unwrap();
    assert_eq!(over_http["type"], "error", "addresses are set by the command line only: {over_http}");
    assert_eq!(over_http["value"]["code"], "local_only");
}
