//! A live try of a model gives way like any other work for sharing.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use idlewatt_control::{PauseFor, Request, Response};
use idlewatt_engine::Engine;
use idlewatt_engine::home::Home;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

/// Far less than any answer of the server below would take, which never ends.
const SOON: Duration = Duration::from_secs(10);

const PIECE: &str = r#"{"id":"1","object":"chat.completion.chunk","created":0,"model":"m","choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}"#;

/// Counts answers that are under way.
struct UnderWay(watch::Sender<u32>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|it| *it -= 1);
    }
}

/// A model server whose answers begin and never end; gives its address and how many are under way.
async fn endless() -> (SocketAddr, watch::Receiver<u32>) {
    let (sender, under_way) = watch::channel(0);
    let models =
        json!({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]});
    let answer = move || {
        sender.send_modify(|it| *it += 1);
        let begun = (UnderWay(sender.clone()), true);
        let pieces = stream::unfold(begun, |(under_way, first)| async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Some((Ok::<_, Infallible>(Bytes::from(format!("data: {PIECE}\n\n"))), (under_way, false)))
        });
        async { ([("content-type", "text/event-stream")], Body::from_stream(pieces)) }
    };
    let router = Router::new()
        .route("/v1/models", get(move || async move { Json::<Value>(models) }))
        .route("/v1/chat/completions", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, under_way)
}

#[tokio::test]
async fn a_pause_ends_a_live_try_at_once_and_nothing_of_it_is_kept() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let (address, mut under_way) = endless().await;
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path());
    home.prepare().unwrap();
    let config =
        format!("[servers]\nscan = false\nurls = [\"http://{address}\"]\n[keys]\nstore = \"file\"\n");
    std::fs::write(&home.config, config).unwrap();
    let engine = Engine::start(home, Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let resident = engine.resident();

    let share = {
        let resident = engine.resident();
        let request = Request::Share { service: "m".into(), on: true, price: None };
        tokio::spawn(async move { resident.answer(request).await })
    };
    timeout(SOON, under_way.wait_for(|it| *it == 1)).await.expect("it is tried").unwrap();
    resident.answer(Request::Pause(PauseFor::Resumed)).await;
    timeout(SOON, under_way.wait_for(|it| *it == 0)).await.expect("the try gives way").unwrap();

    let Response::Error(error) = share.await.unwrap() else { panic!("it was shared") };
    assert!(error.what.contains("wanted back"), "{error}");
    let Response::Services(services) = resident.answer(Request::Services).await else {
        panic!("no services")
    };
    let it = services.first().unwrap();
    assert!(!it.shared && !it.ready && it.problem.is_none(), "{it:?}");
    assert_eq!(*under_way.borrow(), 0, "nothing more is asked");
    engine.stop().await;
}
