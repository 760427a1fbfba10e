//! Settling: from what a request came to, to one posting, one signed receipt and the word to its nodes.

use std::collections::HashMap;

use data_encoding::BASE64;
use idlewatt_hub_core::allowance::day_of;
use idlewatt_hub_core::ledger::{
    AccountName, Bill, Journal, Posting, PostingId, Purpose, Refused, Share, Tallies, bill,
};
use idlewatt_protocol::limits::MAX_BATCH;
use idlewatt_protocol::message::{Endpoint, Outcome, Posted};
use idlewatt_protocol::receipt::{
    Energy, Envelope, RECEIPT_TYPE, Receipt, ReceiptFile, Segment, Signed, sign_batch,
};
use idlewatt_protocol::{Artefact, Digest, Joined, Nonce, Price, PublicKey, RequestId, UnixMillis, Usage};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use serde::Deserialize;

use super::journal::{SqliteJournal, account_at};
use super::months::{self, Days};
use super::writer::{Waiting, Writer, now};
use super::{Reservation, StoreError};

/// What one answered request came to. The store adds the bill, the signature and the place in the chain.
#[derive(Debug)]
pub struct Settlement {
    /// What was set aside for it; names the request and its consumer's account.
    pub reservation: Reservation,
    /// The model that was asked for.
    pub model: String,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// How it ended.
    pub outcome: Outcome,
    /// Salt of the commitments.
    pub salt: Nonce,
    /// Over the body as the consumer sent it.
    pub request_commitment: Digest,
    /// Over the content as delivered.
    pub response_commitment: Digest,
    /// Who answered, in order; usage within the bounds of admission.
    pub segments: Vec<SegmentFacts>,
    /// Who got the request too and delivered nothing.
    pub also_asked: Vec<PublicKey>,
    /// The agreed price.
    pub price: Price,
    /// What is known of the artefact: `declared`.
    pub verification: String,
    /// When it was admitted.
    pub started: UnixMillis,
}

/// One node's part.
#[derive(Clone, Debug)]
pub struct SegmentFacts {
    /// The node.
    pub node: PublicKey,
    /// What it declared to serve.
    pub artefact: Artefact,
    /// How it went on from the segment before.
    pub joined: Joined,
    /// Tokens to be billed.
    pub usage: Usage,
    /// Its own word, checked by the gateway, or why there is none.
    pub statement: Signed,
}

/// A request that is settled, durably.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The receipt and its salt, for the consumer.
    pub file: ReceiptFile,
    /// What its nodes are told, each its own.
    pub postings: Vec<(PublicKey, Posted)>,
}

/// One settlement of a group, staged in the ledger.
struct Staged {
    waiting: Waiting,
    posting: Posting,
    receipt: Receipt,
    /// The account of each segment's node.
    hosts: Vec<AccountName>,
}

/// One settlement as it will be kept.
struct Billed {
    posting: Posting,
    receipt: Receipt,
    payload: Vec<u8>,
    hosts: Vec<AccountName>,
}

impl Writer {
    /// Settles the group with one signature and one write. What the disk refused stays in it.
    pub(super) fn settle(&mut self, group: &mut Vec<Waiting>) {
        while !group.is_empty() {
            let rest = group.split_off(group.len().min(MAX_BATCH));
            let mut refused = self.settle_batch(std::mem::replace(group, rest));
            if !refused.is_empty() {
                refused.append(group);
                *group = refused;
                return;
            }
        }
    }

    /// Gives back what the disk refused, and may take later.
    fn settle_batch(&mut self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let mut chain = self.last_receipt;
        let mut staged = Vec::with_capacity(batch.len());
        let mut payloads = Vec::with_capacity(batch.len());
        for waiting in batch {
            let reservation = &waiting.settlement.reservation;
            let before = settled(&self.db, reservation.request());
            let answer = match before {
                Ok(Some((account, settled))) if account == *reservation.account() => Ok(settled),
                Ok(Some(_)) => Err(Refused::OtherReservation(reservation.request().into()).into()),
                Ok(None) => match self.stage(&waiting, &mut chain) {
                    Ok(it) => {
                        let Billed { posting, receipt, payload, hosts } = it;
                        staged.push(Staged { waiting, posting, receipt, hosts });
                        payloads.push(payload);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = &answer {
                tracing::error!(request = %reservation.request(), %error, "an answered request was not settled");
            }
            let Waiting { settlement, reply, .. } = waiting;
            // Its reservation is given back before anyone hears of it.
            drop(settlement);
            let _ = reply.send(answer);
        }
        if staged.is_empty() {
            return Vec::new();
        }
        let envelopes = sign_batch(&self.state.hub_key, RECEIPT_TYPE, &payloads);
        let (settled, sequences) = self.word_to_nodes(&staged, envelopes);
        match self.keep(&staged, &settled, &sequences) {
            Ok(()) => {
                self.disk_refuses(None);
                self.last_receipt = chain;
                let mut ledger = self.state.ledger();
                for one in &staged {
                    ledger.commit(&one.posting);
                }
                drop(ledger);
                let mut nodes = self.state.nodes_mut();
                for (key, seq) in sequences {
                    if let Some(node) = nodes.get_mut(&key) {
                        node.posted_seq = seq;
                    }
                }
                drop(nodes);
                for (one, settled) in staged.into_iter().zip(settled) {
                    let (tokens, cost) = (tokens(&one.receipt), one.receipt.cost);
                    one.waiting.settlement.reservation.took(one.posting.at, tokens, cost);
                    // A consumer that is gone can still fetch its receipt.
                    let _ = one.waiting.reply.send(Ok(settled));
                }
                Vec::new()
            }
            Err(error) => {
                let mut ledger = self.state.ledger();
                for one in &staged {
                    ledger.roll_back(one.posting.id);
                }
                drop(ledger);
                let mut batch: Vec<Waiting> = staged.into_iter().map(|one| one.waiting).collect();
                // A broken constraint stays broken; anything else is the disk's, and passes.
                if error.sqlite_error_code() != Some(ErrorCode::ConstraintViolation) {
                    self.disk_refuses(Some(&error));
                    return batch;
                }
                // Strangers are settled together: whoever broke it is found by halves, and refused alone.
                if batch.len() > 1 {
                    let rest = batch.split_off(batch.len() / 2);
                    let mut refused = self.settle_batch(batch);
                    refused.append(&mut self.settle_batch(rest));
                    return refused;
                }
                for Waiting { settlement, reply, .. } in batch {
                    let request = settlement.reservation.request();
                    tracing::error!(%request, %error, "a settlement contradicts the database");
                    drop(settlement);
                    let _ = reply.send(Err(StoreError::Unreadable("settlements")));
                }
                Vec::new()
            }
        }
    }

    /// Bills one settlement, stages its posting and writes its receipt's payload, chained to the one before.
    fn stage(&self, waiting: &Waiting, chain: &mut Option<Digest>) -> Result<Billed, StoreError> {
        let settlement = &*waiting.settlement;
        let account = settlement.reservation.account();
        let mut shares = Vec::with_capacity(settlement.segments.len());
        for segment in &settlement.segments {
            let account = self.state.nodes().get(&segment.node).map(|node| node.account.clone());
            let account = account.ok_or(StoreError::UnknownNode(segment.node))?;
            shares.push(Share { account, usage: segment.usage });
        }
        let reserved = settlement.reservation.amount();
        let bill = bill(account, settlement.price, self.state.fee, reserved, &shares);
        let issued = now();
        let posting = Posting {
            id: PostingId::from(settlement.reservation.request()),
            at: issued,
            purpose: Purpose::Request,
            from: account.clone(),
            reserved,
            credits: bill.credits(&shares),
        };
        let receipt = self.receipt(settlement, &bill, issued, *chain);
        let payload = serde_json::to_vec(&receipt).map_err(|_| StoreError::Unreadable("a receipt"))?;
        self.state.ledger().stage(&posting)?;
        *chain = Some(Digest::of(&payload));
        let hosts = shares.into_iter().map(|share| share.account).collect();
        Ok(Billed { posting, receipt, payload, hosts })
    }

    fn receipt(
        &self,
        settlement: &Settlement,
        bill: &Bill,
        issued: UnixMillis,
        previous: Option<Digest>,
    ) -> Receipt {
        let segments = settlement.segments.iter().zip(&bill.earned).map(|(segment, earned)| Segment {
            node: segment.node,
            artefact: segment.artefact.clone(),
            joined: segment.joined,
            usage: segment.usage,
            earned: *earned,
            statement: segment.statement.clone(),
        });
        Receipt {
            id: settlement.reservation.request(),
            hub: PublicKey::from(&self.state.hub_key),
            consumer: self.state.pseudonym(settlement.reservation.account()),
            model: settlement.model.clone(),
            endpoint: settlement.endpoint,
            outcome: settlement.outcome,
            salt_digest: Digest::of(&settlement.salt.0),
            also_asked: settlement.also_asked.clone(),
            request_commitment: settlement.request_commitment,
            response_commitment: settlement.response_commitment,
            segments: segments.collect(),
            joined: Joined::weakest(settlement.segments.iter().map(|segment| segment.joined)),
            price: settlement.price,
            cost: bill.cost,
            fee: bill.fee,
            verification: settlement.verification.clone(),
            started: settlement.started,
            issued,
            previous,
        }
    }

    /// Numbers what each node is told; the numbers are taken only once they are kept.
    fn word_to_nodes(
        &self,
        staged: &[Staged],
        envelopes: Vec<Envelope>,
    ) -> (Vec<Settled>, HashMap<PublicKey, u64>) {
        let nodes = self.state.nodes();
        let mut sequences: HashMap<PublicKey, u64> = HashMap::new();
        let settled = staged.iter().zip(envelopes).map(|(one, envelope)| {
            let settlement = &*one.waiting.settlement;
            let mut told: Vec<(PublicKey, u64)> = Vec::with_capacity(settlement.segments.len());
            for segment in &settlement.segments {
                if told.iter().any(|(node, _)| *node == segment.node) {
                    continue;
                }
                let last = sequences
                    .entry(segment.node)
                    .or_insert_with(|| nodes.get(&segment.node).map_or(0, |node| node.posted_seq));
                *last += 1;
                told.push((segment.node, *last));
            }
            let postings = postings(&told, &one.receipt, &envelope);
            Settled { file: ReceiptFile { receipt: envelope, salt: Some(settlement.salt) }, postings }
        });
        (settled.collect(), sequences)
    }

    /// Everything of the group in one transaction.
    fn keep(
        &mut self,
        staged: &[Staged],
        settled: &[Settled],
        sequences: &HashMap<PublicKey, u64>,
    ) -> rusqlite::Result<()> {
        let tx = self.db.transaction()?;
        let moving: Vec<Posting> = staged
            .iter()
            .map(|one| &one.posting)
            .filter(|posting| !posting.credits.is_empty())
            .cloned()
            .collect();
        SqliteJournal(&tx).append(&moving)?;
        {
            let mut receipt = tx.prepare_cached(
                "INSERT INTO receipt (id, account, envelope, salt) VALUES (?1, ?2, ?3, ?4)",
            )?;
            let mut word = tx.prepare_cached("INSERT INTO node_posting VALUES (?1, ?2, ?3)")?;
            for (one, settled) in staged.iter().zip(settled) {
                let settlement = &*one.waiting.settlement;
                receipt.execute(params![
                    settlement.reservation.request().0,
                    settlement.reservation.account().as_str(),
                    json(&settled.file.receipt)?,
                    settlement.salt.0,
                ])?;
                let row = tx.last_insert_rowid();
                for (node, posted) in &settled.postings {
                    word.execute(params![node.0, i64::try_from(posted.seq).unwrap_or(i64::MAX), row])?;
                }
            }
            let mut last = tx.prepare_cached("UPDATE node SET posted_seq = ?2 WHERE key = ?1")?;
            for (node, seq) in sequences {
                last.execute(params![node.0, i64::try_from(*seq).unwrap_or(i64::MAX)])?;
            }
        }
        let (tallies, days) = sums(staged);
        months::add(&tx, &tallies)?;
        months::add_days(&tx, &days)?;
        tx.commit()
    }
}

/// What a group adds to the months of accounts and the days of keys.
fn sums(staged: &[Staged]) -> (Tallies, Days) {
    let (mut tallies, mut days) = (Tallies::default(), Days::new());
    for Staged { waiting, posting, receipt, hosts } in staged {
        tallies.post(posting);
        tallies.answer(&posting.from, receipt, hosts, &waiting.energy);
        let allowance = waiting.settlement.reservation.allowance();
        let day = days.entry((allowance, day_of(posting.at))).or_default();
        day.requests += 1;
        day.tokens += i64::from(tokens(receipt));
        day.spent += receipt.cost;
    }
    (tallies, days)
}

/// The tokens that a receipt bills: its prompt once, and every completion.
pub(super) fn tokens(receipt: &Receipt) -> u32 {
    let prompt = receipt.segments.first().map_or(0, |first| first.usage.prompt);
    receipt.segments.iter().fold(prompt, |sum, segment| sum.saturating_add(segment.usage.completion))
}

/// What the node of a segment says that it took.
pub(super) fn energy(statement: &Signed) -> Option<Energy> {
    #[derive(Deserialize)]
    struct Said {
        energy: Energy,
    }
    let Signed::Signed(envelope) = statement else { return None };
    let payload = BASE64.decode(envelope.payload.as_bytes()).ok()?;
    serde_json::from_slice(&payload).ok().map(|Said { energy }| energy)
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Whether the request has its receipt, of which this node was or will be told.
pub(super) fn is_posted(db: &Connection, request: RequestId, node: &PublicKey) -> Result<bool, StoreError> {
    let mut find = db.prepare_cached("SELECT envelope FROM receipt WHERE id = ?1")?;
    let envelope: Option<String> = find.query_row([request.0], |row| row.get(0)).optional()?;
    let Some(envelope) = envelope else { return Ok(false) };
    let (_, receipt) = kept(&envelope)?;
    Ok(receipt.segments.iter().any(|segment| segment.node == *node))
}

/// The receipt of a request, if it is this account's.
pub(super) fn receipt(
    db: &Connection,
    request: RequestId,
    account: &AccountName,
) -> Result<Option<ReceiptFile>, StoreError> {
    let settled = settled(db, request)?.filter(|(of, _)| of == account);
    Ok(settled.map(|(_, settled)| settled.file))
}

/// What was settled for a request, and whose it was.
fn settled(db: &Connection, request: RequestId) -> Result<Option<(AccountName, Settled)>, StoreError> {
    let mut find = db.prepare_cached("SELECT account, envelope, salt, seq FROM receipt WHERE id = ?1")?;
    let mut rows = find.query([request.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (envelope, receipt) = kept(&row.get::<_, String>(1)?)?;
    let mut told = db.prepare_cached("SELECT node, seq FROM node_posting WHERE receipt = ?1")?;
    let told = told.query_map([row.get::<_, i64>(3)?], |row| {
        Ok((PublicKey(row.get(0)?), row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    let postings = postings(&told.collect::<rusqlite::Result<Vec<_>>>()?, &receipt, &envelope);
    let file = ReceiptFile { receipt: envelope, salt: Some(Nonce(row.get(2)?)) };
    Ok(Some((account_at(row, 0)?, Settled { file, postings })))
}

/// An envelope as it was kept, and the receipt in it. This hub signed it: its signature is not checked again.
pub(super) fn kept(envelope: &str) -> Result<(Envelope, Receipt), StoreError> {
    let unreadable = || StoreError::Unreadable("a receipt");
    let envelope: Envelope = serde_json::from_str(envelope).map_err(|_| unreadable())?;
    let payload = BASE64.decode(envelope.payload.as_bytes()).map_err(|_| unreadable())?;
    let receipt = serde_json::from_slice(&payload).map_err(|_| unreadable())?;
    Ok((envelope, receipt))
}

/// What each node is told of a receipt, under the number it got.
fn postings(told: &[(PublicKey, u64)], receipt: &Receipt, envelope: &Envelope) -> Vec<(PublicKey, Posted)> {
    told.iter()
        .filter_map(|(node, seq)| Some((*node, Posted::of(*seq, node, receipt, envelope.clone())?)))
        .collect()
}

/// Digest of the newest receipt's payload.
pub(super) fn last_receipt(db: &Connection) -> rusqlite::Result<Option<Digest>> {
    let envelope: Option<String> = db
        .query_row("SELECT envelope FROM receipt ORDER BY seq DESC LIMIT 1", [], |row| row.get(0))
        .optional()?;
    Ok(envelope
        .and_then(|text| serde_json::from_str::<Envelope>(&text).ok())
        .and_then(|envelope| envelope.payload_digest()))
}
