//! Against a real llama.cpp server started without embeddings, whose address is in `IDLEWATT_TEST_SERVER`:
//! `cargo nextest run -p idlewatt-servers --run-ignored all`.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;

use idlewatt_protocol::message::Endpoint;
use idlewatt_servers::{DiscoverOptions, Kind, NoKeys, Servers, probe};
use url::Url;

fn servers() -> Servers {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Servers::new(Arc::new(NoKeys)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real model server in IDLEWATT_TEST_SERVER"]
async fn the_real_server_is_recognised_measured_and_stops_when_dropped() {
    let url: Url = std::env::var("IDLEWATT_TEST_SERVER").unwrap().parse().unwrap();
    let options = DiscoverOptions { scan: false, urls: vec![url], exclude_ports: vec![] };
    let found = servers().discover(&options).await;
    assert_eq!(found.len(), 1);
    let server = found[0].server.clone().unwrap();
    assert_eq!(server.kind(), Kind::LlamaCpp);
    let model = found[0].models.as_ref().unwrap()[0].clone();
    assert_eq!(model.artefact.name(), "smollm2-135m-instruct:q4_1");
    assert!(model.artefact.digest.is_some() && model.slots >= 1 && model.context.is_some() && model.warm);

    let report = probe(&*server, &model).await;
    println!("{report:#?}");
    let seen = report.capabilities;
    assert!(seen.chat && seen.completions && seen.streaming && seen.usage && seen.cancels && seen.logprobs);
    assert!(!seen.embeddings, "it was started without embeddings");
    assert!(report.tokens_per_second.is_some_and(|speed| speed > 1.0));

    let refused = server.call(&model, Endpoint::Embeddings, br#"{"input":"x"}"#, 0).await.unwrap();
    assert_eq!((refused.status, refused.streaming), (501, false), "an error status is an answer");
}
