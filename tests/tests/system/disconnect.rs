//! A consumer that goes away stops the generation.

use std::time::Duration;

use idlewatt_tests::{System, claimed, until};

use crate::long_stream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_leaves_stops_generation_within_a_second() {
    let system = System::start().await;
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let body = long_stream(&format!("Count up from {round}, in words."));
        let mut answer = system.consumer.open("/v1/chat/completions", &body).await.unwrap();
        answer.pieces(5).await;
        assert_eq!(system.model.busy().await, 1, "the model server generates");
        drop(answer);
        let stopped = || async { (system.model.busy().await == 0).then_some(()) };
        let ((), took) = until(claimed(Duration::from_secs(1)), "the slot is idle", stopped).await;
        slowest = slowest.max(took);
    }
    println!("slot idle after a disconnect: at most {} ms in 10", slowest.as_millis());
}
