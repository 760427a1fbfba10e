//! Signing of statements: those of one moment together, kept on disk before they are sent.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use idlewatt_networks::host::NotKept;
use idlewatt_protocol::RequestId;
use idlewatt_protocol::limits::{BATCH_DELAY, MAX_BATCH};
use idlewatt_protocol::receipt::{Envelope, STATEMENT_TYPE, Statement, sign_batch};
use idlewatt_store::Store;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::clock;

/// Where statements are handed in. The signer ends when the last clone is gone.
#[derive(Clone, Debug)]
pub(crate) struct Signer(mpsc::Sender<Wanted>);

#[derive(Debug)]
struct Wanted {
    network: String,
    statement: Statement,
    done: oneshot::Sender<Result<Envelope, NotKept>>,
}

impl Signer {
    /// Starts the signer. `failed` is told when the disk does not keep a batch.
    pub(crate) fn start(
        key: Arc<SigningKey>,
        store: Store,
        failed: impl Fn(idlewatt_store::StoreError) + Send + Sync + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(MAX_BATCH);
        tokio::spawn(run(receiver, key, store, failed));
        Self(sender)
    }

    /// Signs a statement with others of the same moment, and gives it back once the disk has it.
    ///
    /// # Errors
    /// When it could not be kept.
    pub(crate) async fn sign(&self, network: &str, statement: Statement) -> Result<Envelope, NotKept> {
        let (done, signed) = oneshot::channel();
        let wanted = Wanted { network: network.to_owned(), statement, done };
        self.0.send(wanted).await.map_err(|_| NotKept)?;
        signed.await.unwrap_or(Err(NotKept))
    }
}

async fn run(
    mut wanted: mpsc::Receiver<Wanted>,
    key: Arc<SigningKey>,
    store: Store,
    failed: impl Fn(idlewatt_store::StoreError) + Send + Sync,
) {
    while let Some(first) = wanted.recv().await {
        let close = Instant::now() + BATCH_DELAY;
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(Some(next)) = timeout_at(close, wanted.recv()).await
        {
            batch.push(next);
        }
        sign(batch, &key, &store, &failed).await;
    }
}

async fn sign(
    batch: Vec<Wanted>,
    key: &SigningKey,
    store: &Store,
    failed: &(impl Fn(idlewatt_store::StoreError) + Send + Sync),
) {
    // A statement is plain numbers, names and digests: writing it as JSON cannot fail.
    let payloads: Vec<Vec<u8>> =
        batch.iter().map(|it| serde_json::to_vec(&it.statement).unwrap_or_default()).collect();
    let envelopes = sign_batch(key, STATEMENT_TYPE, &payloads);
    let mut networks: Vec<&str> = batch.iter().map(|it| it.network.as_str()).collect();
    networks.sort_unstable();
    networks.dedup();
    let mut lost: Vec<String> = Vec::new();
    for network in networks {
        let of_network = batch.iter().zip(&envelopes).filter(|(it, _)| it.network == network);
        let statements: Vec<(RequestId, Envelope)> =
            of_network.map(|(it, envelope)| (it.statement.request, envelope.clone())).collect();
        if let Err(error) = store.keep_statements(network, statements, clock::now().unix()).await {
            tracing::error!(%network, error = %error, "statements could not be kept");
            failed(error);
            lost.push(network.to_owned());
        }
    }
    for (it, envelope) in batch.into_iter().zip(envelopes) {
        let result = if lost.contains(&it.network) { Err(NotKept) } else { Ok(envelope) };
        // Whoever asked may be gone with its connection; the outbox has it.
        drop(it.done.send(result));
    }
}
