//! What `idlewatt bench` measured here: kept, and sent to hubs that publish such tables.

use std::time::Duration;

use idlewatt_control::{Code, ControlError};
use idlewatt_protocol::PublicKey;
use idlewatt_protocol::bench::BenchReport;
use idlewatt_protocol::receipt::Envelope;
use idlewatt_store::NetworkRow;
use serde::Deserialize;
use url::Url;

use crate::node::Node;
use crate::own::{Hubs, addresses, at};
use crate::problem::{of_store, sentence};

/// A hub takes a report, or says why not, within this time.
const ANSWER: Duration = Duration::from_secs(20);
/// Longest answer that is read, bytes.
const ANSWER_BYTES: usize = 64 * 1024;

impl Node {
    /// Keeps a report; with `publish` sends it, signed, to every hub joined. Gives the pages' addresses.
    pub(crate) async fn keep_bench(
        &self,
        report: Box<BenchReport>,
        publish: bool,
    ) -> Result<Vec<String>, ControlError> {
        if let Some(breach) = report.breach() {
            return Err(ControlError::new(
                Code::BadRequest,
                format!("This is no report: {breach}."),
                "Nothing was kept.",
                "Measure with `idlewatt bench` of the engine's own version.",
            ));
        }
        self.store.add_bench(&report).await.map_err(|error| of_store(&error))?;
        self.shown.notify_one();
        if !publish {
            return Ok(Vec::new());
        }
        let known = self.identity.borrow().clone().ok_or_else(|| {
            not_published(
                Code::KeyringLocked,
                "this node's key, which signs it, is not there yet",
                "Unlock the keyring, then publish again.",
            )
        })?;
        let envelope = report.sign(&known.key);
        let hubs: Vec<NetworkRow> = self.networks.rows().into_iter().filter(|it| it.kind == "hub").collect();
        if hubs.is_empty() {
            return Err(not_published(
                Code::NotFound,
                "this node is in no hub",
                "Join one with `idlewatt join INVITE`, then publish again.",
            ));
        }
        let (mut pages, mut problems) = (Vec::new(), Vec::new());
        for hub in hubs {
            match send(&self.hubs, &hub, &envelope).await {
                Ok(page) => pages.push(page),
                Err(why) => problems.push(format!("{}: {}", hub.name, why.trim_end_matches('.'))),
            }
        }
        if problems.is_empty() {
            return Ok(pages);
        }
        let sent = if pages.is_empty() { String::new() } else { format!(" It is on {}.", pages.join(", ")) };
        Err(ControlError {
            why: format!("It is kept here.{sent}"),
            ..not_published(
                Code::HubDown,
                &problems.join("; "),
                "Publish again later; the same report is shown once.",
            )
        })
    }
}

fn not_published(code: Code, why: &str, action: &str) -> ControlError {
    let what = format!("The report was not published: {why}.");
    ControlError::new(code, what, "It is kept here.", action)
}

/// Sends it to the first of the hub's addresses that answers; the address of the page that shows it.
async fn send(hubs: &Hubs, hub: &NetworkRow, envelope: &Envelope) -> Result<String, String> {
    let mut why = "it has no address that may be used".to_owned();
    for url in addresses(hub) {
        match post(hubs, hub.key, &url, envelope).await {
            Err(Silence(silence)) => why = silence,
            Ok(answered) => return answered,
        }
    }
    Err(why)
}

/// Nobody answered: another address may.
struct Silence(String);

async fn post(
    hubs: &Hubs,
    key: PublicKey,
    hub: &Url,
    envelope: &Envelope,
) -> Result<Result<String, String>, Silence> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Words,
    }
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    let silent = |error: reqwest::Error| Silence(format!("it cannot be reached ({})", error.without_url()));
    let request = hubs.client(key, hub).map_err(silent)?.post(at(hub, "/energy/reports"));
    let mut answer = request.json(envelope).timeout(ANSWER).send().await.map_err(silent)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(Ok(at(hub, "/energy")));
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await
        && body.len() < ANSWER_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    let words = serde_json::from_slice::<Refusal>(&body).map(|it| sentence(&it.error.message));
    Ok(Err(match status.as_u16() {
        404 | 405 => "it publishes no such table: its version may be older".to_owned(),
        _ => words.unwrap_or_else(|_| format!("it answered {status}")),
    }))
}
