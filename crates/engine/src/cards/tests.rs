use async_trait::async_trait;
use bytes::Bytes;
use idlewatt_core::device::Power;
use idlewatt_protocol::Artefact;
use idlewatt_protocol::message::{Deadlines, Endpoint};
use idlewatt_servers::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError};
use url::Url;

use super::*;
use crate::answering::{Pieces, Question, Step};
use crate::metered::Metered;
use crate::slots::{For, Slots};

/// A server that is gone: every answer of it ends at once.
#[derive(Debug)]
struct Gone(Url);

#[async_trait]
impl ModelServer for Gone {
    fn kind(&self) -> Kind {
        Kind::OpenAi
    }

    fn url(&self) -> &Url {
        &self.0
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        Err(ServerError::Unreachable)
    }

    async fn call(&self, _: &Model, _: Call<'_>) -> Result<ServerAnswer, ServerError> {
        Err(ServerError::Unreachable)
    }
}

fn question(request: RequestId) -> Question {
    let artefact = Artefact {
        model: "m".into(),
        quantisation: None,
        digest: None,
        engine: "openai".into(),
        engine_build: None,
    };
    Question {
        request,
        server: Arc::new(Gone("http://127.0.0.1:9/".parse().unwrap())),
        model: Model { id: "m".into(), artefact, slots: 1, context: None, warm: true },
        endpoint: Endpoint::ChatCompletions,
        body: Bytes::from_static(b"{}"),
        max_tokens: 1,
        ids: false,
        prefix: None,
        deadlines: Deadlines { first_token_ms: 10_000, between_ms: 10_000 },
    }
}

#[tokio::test]
async fn what_a_card_uses_after_an_answer_has_ended_is_none_of_its_however_late_it_is_collected() {
    let cards = Arc::new(Cards::new(&Places::default()));
    let begun = Instant::now();
    let read = |second: u64| {
        let power = Some(Power { value: Milliwatts(100_000), averaged: false });
        let at = begun + Duration::from_secs(second);
        lock(&cards.state).meter.read(&GpuReading { power, ..GpuReading::silent("GPU-0", "", at) });
    };
    read(0);
    let task = Task { service: "s".into(), place: Place::Cards(vec!["GPU-0".into()]), own: false };
    let request = RequestId([1; 16]);
    let metered = Metered::begin(&cards, request, task, begun);
    read(2);
    let slot = Arc::new(Slots::default()).take("s", 1, For::Network).unwrap();
    let mut pieces = Pieces::ask(question(request), slot, Arc::clone(&metered));
    assert!(matches!(pieces.next().await, Some(Step::End(_))));
    // A minute of a game, while the network is away.
    (3..=62).for_each(read);
    let energy = metered.end_unread(begun + Duration::from_secs(62));
    assert_eq!(energy.total_mj.map(|it| it.0), Some(200_000), "2 s at 100 W");
}
