//! Segment statements and receipts: who said what about one request, signed so that it can be checked offline.
//!
//! A node signs a [`Statement`] for each segment it produced; the hub signs exactly one [`Receipt`] a request, which
//! embeds each statement as it came. Both travel in a DSSE envelope (payload as exact bytes, pre-authentication
//! encoding), with one addition: the signature covers the root of a Merkle tree over up to 256 envelopes, and each
//! envelope carries its path, because signing and checking each alone would take half of a hub's processor.
//!
//! A receipt proves who said what. It does not prove which model ran.

use data_encoding::{BASE64, HEXLOWER};
use ed25519_dalek::{Signer, SigningKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::artefact::Artefact;
use crate::continuation::Joined;
use crate::id::{Digest, Nonce, PublicKey, RequestId, SignatureBytes};
use crate::limits::MAX_BATCH;
use crate::message::{Endpoint, Outcome};
use crate::units::{Label, MicroCredits, Millijoules, Price, UnixMillis};
use crate::usage::Usage;

/// Payload type of a [`Statement`].
pub const STATEMENT_TYPE: &str = "application/vnd.idlewatt.statement.v1+json";
/// Payload type of a [`Receipt`].
pub const RECEIPT_TYPE: &str = "application/vnd.idlewatt.receipt.v1+json";
/// Payload type of what is signed: the 32 bytes of a Merkle root.
const ROOT_TYPE: &str = "application/vnd.idlewatt.merkle-root.v1";

/// Energy of one request, with how it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Energy {
    /// Above what the loaded, idle machine would have used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub marginal_mj: Option<Millijoules>,
    /// With its share of the idle energy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub total_mj: Option<Millijoules>,
    /// At the wall, where a plug calibrates it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub wall_mj: Option<Millijoules>,
    /// Half width of the error, where measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub error_mj: Option<Millijoules>,
    /// How it is known.
    pub label: Label,
}

/// When the parts of an answer happened, milliseconds since the node took the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Timings {
    /// First piece of the answer; `None` when none came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub first_token_ms: Option<u32>,
    /// Last piece.
    pub total_ms: u32,
}

/// What a node says of the segment that it produced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Statement {
    /// The request.
    pub request: RequestId,
    /// Who says it.
    pub node: PublicKey,
    /// For which hub.
    pub hub: PublicKey,
    /// What answered, as declared.
    pub artefact: Artefact,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// SHA-256(salt ‖ the body that the node received).
    pub request_commitment: Digest,
    /// SHA-256(salt ‖ the concatenated content of the answer's delivered pieces; an embedding's whole body).
    pub response_commitment: Digest,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the answer that this covers.
    pub length: u64,
    /// How it went on from what another node delivered; `single` where it began the answer.
    #[serde(default, skip_serializing_if = "Joined::is_single")]
    pub joined: Joined,
    /// Tokens. The prompt of a continued answer is what the server read: what was delivered before is in it.
    pub usage: Usage,
    /// When.
    pub started: UnixMillis,
    /// How long.
    pub timings: Timings,
    /// Joules.
    pub energy: Energy,
}

/// One node's part in a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Segment {
    /// The node.
    pub node: PublicKey,
    /// What it declared to serve.
    pub artefact: Artefact,
    /// How it was joined to the segment before; `single` for the first.
    #[serde(default, skip_serializing_if = "Joined::is_single")]
    pub joined: Joined,
    /// Tokens as stated, or as counted where there is no statement. The prompt of a later segment holds what was delivered
    /// before; the consumer pays for neither again.
    pub usage: Usage,
    /// What the node's account earned.
    pub earned: MicroCredits,
    /// The node's own signed word, or why there is none.
    pub statement: Signed,
}

/// A node's statement, or why it is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum Signed {
    /// Verbatim.
    Signed(Envelope),
    /// None came; the usage is what the hub counted.
    Unsigned(String),
}

/// What the hub says of one request. Its id is the request's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct Receipt {
    /// The request.
    pub id: RequestId,
    /// The hub.
    pub hub: PublicKey,
    /// A pseudonym of the consumer's account: the same for the same account on this hub, and nothing else.
    pub consumer: String,
    /// The model that was asked for.
    pub model: String,
    /// Which endpoint.
    pub endpoint: Endpoint,
    /// How it ended.
    pub outcome: Outcome,
    /// SHA-256 of the salt, so that a file with another salt is refused.
    pub salt_digest: Digest,
    /// SHA-256(salt ‖ the body as the consumer sent it).
    pub request_commitment: Digest,
    /// SHA-256(salt ‖ the concatenated content as the hub delivered it; an embedding's whole body).
    pub response_commitment: Digest,
    /// Who answered, in order.
    pub segments: Vec<Segment>,
    /// Nodes that got the request too and delivered nothing of the answer: they failed before its first byte, or another
    /// began sooner. They are paid nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "ts", ts(optional, as = "Option<Vec<PublicKey>>"))]
    pub also_asked: Vec<PublicKey>,
    /// How segments were joined: `text` where one of them was joined by its text.
    pub joined: Joined,
    /// The agreed price.
    pub price: Price,
    /// What the consumer paid.
    pub cost: MicroCredits,
    /// The hub's part of it.
    pub fee: MicroCredits,
    /// What is known of the artefact: `declared`, or `spot-checked` with how often and when.
    pub verification: String,
    /// When the request was admitted.
    pub started: UnixMillis,
    /// When this was written.
    pub issued: UnixMillis,
    /// Digest of the payload of the receipt before this one on the same hub; `None` for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub previous: Option<Digest>,
}

/// A receipt as a file: the envelope, and the salt with which its holder can recompute the commitments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    /// The signed receipt.
    pub receipt: Envelope,
    /// The salt; only the consumer gets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "string"))]
    pub salt: Option<Nonce>,
}

/// A DSSE envelope with a Merkle path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What the payload is.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The exact bytes, base64.
    pub payload: String,
    /// Position under the root.
    pub index: u32,
    /// Sibling hashes from the leaf up, hexadecimal; a level without a sibling is left out by the tree's shape.
    pub path: Vec<String>,
    /// Leaves under the root.
    pub leaves: u32,
    /// The signer.
    pub keyid: PublicKey,
    /// Signature over the root.
    #[cfg_attr(feature = "ts", ts(type = "string"))]
    pub sig: SignatureBytes,
}

/// Why an envelope or a receipt is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not the form of an envelope.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// Another kind of payload.
    #[error("the payload is a {found:?}, not a {expected}")]
    Type {
        /// What came.
        found: String,
        /// What was wanted.
        expected: &'static str,
    },
    /// The signature does not fit.
    #[error("the signature of {0} does not fit: the file was altered, or another key signed it")]
    Signature(&'static str),
    /// Signed by another than expected.
    #[error("{0} is signed by another key than the one it names")]
    Signer(&'static str),
    /// Parts contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Signs a batch of payloads with one signature; the envelopes come back in order.
///
/// # Panics
/// Never for 1 to [`MAX_BATCH`] payloads; an empty batch gives an empty list.
#[must_use]
pub fn sign_batch(key: &SigningKey, payload_type: &str, payloads: &[Vec<u8>]) -> Vec<Envelope> {
    debug_assert!(payloads.len() <= MAX_BATCH, "a batch holds at most 256");
    let leaves: Vec<[u8; 32]> = payloads.iter().map(|payload| leaf(payload_type, payload)).collect();
    let levels = levels(leaves);
    let Some(root) = levels.last().and_then(|top| top.first()) else { return Vec::new() };
    let sig = SignatureBytes(key.sign(&pre_authentication(ROOT_TYPE, root)).to_bytes());
    let keyid = PublicKey::from(key);
    let count = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
    payloads
        .iter()
        .zip(0u32..)
        .map(|(payload, index)| Envelope {
            payload_type: payload_type.to_owned(),
            payload: BASE64.encode(payload),
            index,
            path: path_of(&levels, index as usize),
            leaves: count,
            keyid,
            sig,
        })
        .collect()
}

impl Envelope {
    /// The payload's exact bytes, once the signature of the key it names has been checked.
    ///
    /// # Errors
    /// When the envelope is malformed, of another type, or the signature does not fit.
    pub fn open(&self, payload_type: &'static str, what: &'static str) -> Result<Vec<u8>, VerifyError> {
        Opener::default().open(self, payload_type, what)
    }

    /// Like [`open`](Self::open), read as JSON.
    ///
    /// # Errors
    /// As `open`, and when the payload is not the type's JSON.
    pub fn read<T: DeserializeOwned>(
        &self,
        payload_type: &'static str,
        what: &'static str,
    ) -> Result<T, VerifyError> {
        let payload = self.open(payload_type, what)?;
        serde_json::from_slice(&payload).map_err(|_| VerifyError::Malformed(what))
    }

    /// Digest of the payload, without any check.
    #[must_use]
    pub fn payload_digest(&self) -> Option<Digest> {
        BASE64.decode(self.payload.as_bytes()).ok().map(|payload| Digest::of(&payload))
    }

    /// Hashes up from the leaf; `None` when the path does not have the tree's shape.
    fn root(&self, leaf: [u8; 32]) -> Option<[u8; 32]> {
        let mut width = usize::try_from(self.leaves).ok().filter(|n| (1..=MAX_BATCH).contains(n))?;
        let mut index = usize::try_from(self.index).ok().filter(|i| *i < width)?;
        let mut hash = leaf;
        let mut path = self.path.iter();
        while width > 1 {
            let sibling = index ^ 1;
            if sibling < width {
                let other: [u8; 32] = HEXLOWER.decode(path.next()?.as_bytes()).ok()?.try_into().ok()?;
                hash = if sibling < index { node(&other, &hash) } else { node(&hash, &other) };
            }
            index /= 2;
            width = width.div_ceil(2);
        }
        path.next().is_none().then_some(hash)
    }
}

/// Opens the envelopes of one batch and checks the signature of their common root only once.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    /// The root that was found to be signed last, by whom.
    signed: Option<([u8; 32], PublicKey, SignatureBytes)>,
}

impl Opener {
    /// As [`Envelope::open`].
    ///
    /// # Errors
    /// As `Envelope::open`.
    pub fn open(
        &mut self,
        envelope: &Envelope,
        payload_type: &'static str,
        what: &'static str,
    ) -> Result<Vec<u8>, VerifyError> {
        if envelope.payload_type != payload_type {
            return Err(VerifyError::Type { found: envelope.payload_type.clone(), expected: payload_type });
        }
        let payload = BASE64.decode(envelope.payload.as_bytes()).map_err(|_| VerifyError::Malformed(what))?;
        let root = envelope.root(leaf(payload_type, &payload)).ok_or(VerifyError::Malformed(what))?;
        let signed = (root, envelope.keyid, envelope.sig);
        if self.signed == Some(signed)
            || envelope.keyid.verifies(&pre_authentication(ROOT_TYPE, &root), &envelope.sig.0)
        {
            self.signed = Some(signed);
            Ok(payload)
        } else {
            Err(VerifyError::Signature(what))
        }
    }
}

/// A receipt whose every signature and figure has been checked.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The receipt.
    pub receipt: Receipt,
    /// The statements that its segments carry, `None` where unsigned.
    pub statements: Vec<Option<Statement>>,
}

impl ReceiptFile {
    /// Checks the receipt as [`Envelope::verify_receipt`] does, and that the salt is its own.
    ///
    /// # Errors
    /// On the first thing that does not fit.
    pub fn verify(&self) -> Result<Verified, VerifyError> {
        let verified = self.receipt.verify_receipt()?;
        if self.salt.is_some_and(|salt| Digest::of(&salt.0) != verified.receipt.salt_digest) {
            return Err(VerifyError::Contradiction("the salt is not the one of this receipt".into()));
        }
        Ok(verified)
    }
}

impl Envelope {
    /// Checks everything of a receipt that can be checked offline: the hub's signature, each node's, and that their
    /// figures agree. Which key is the right hub's is for the caller to compare with what it knows.
    ///
    /// # Errors
    /// On the first thing that does not fit.
    pub fn verify_receipt(&self) -> Result<Verified, VerifyError> {
        let receipt: Receipt = self.read(RECEIPT_TYPE, "the receipt")?;
        if self.keyid != receipt.hub {
            return Err(VerifyError::Signer("the receipt"));
        }
        let mut statements = Vec::with_capacity(receipt.segments.len());
        for segment in &receipt.segments {
            let Signed::Signed(envelope) = &segment.statement else {
                statements.push(None);
                continue;
            };
            let statement: Statement = envelope.read(STATEMENT_TYPE, "a node's statement")?;
            if envelope.keyid != statement.node || statement.node != segment.node {
                return Err(VerifyError::Signer("a node's statement"));
            }
            if statement.request != receipt.id || statement.hub != receipt.hub {
                return Err(VerifyError::Contradiction("a node's statement is about another request".into()));
            }
            if statement.usage != segment.usage {
                return Err(VerifyError::Contradiction(
                    "the receipt bills other tokens than the node stated".into(),
                ));
            }
            if statement.joined != segment.joined {
                return Err(VerifyError::Contradiction(
                    "the receipt joins a segment otherwise than its node stated".into(),
                ));
            }
            statements.push(Some(statement));
        }
        if receipt.joined != Joined::weakest(receipt.segments.iter().map(|segment| segment.joined)) {
            return Err(VerifyError::Contradiction(
                "the receipt joins its segments otherwise as a whole".into(),
            ));
        }
        let earned: i128 = receipt.segments.iter().map(|segment| i128::from(segment.earned.0)).sum();
        if earned + i128::from(receipt.fee.0) != i128::from(receipt.cost.0) {
            return Err(VerifyError::Contradiction(
                "what was paid is not what was earned and the fee".into(),
            ));
        }
        Ok(Verified { receipt, statements })
    }
}

/// SHA-256(salt ‖ bytes).
#[must_use]
pub fn commitment(salt: &Nonce, bytes: &[u8]) -> Digest {
    Digest::of_parts(&[&salt.0, bytes])
}

/// [`commitment`] over bytes that come piece by piece.
#[derive(Clone, Debug)]
pub struct Commitment(Sha256);

impl Commitment {
    /// Over nothing yet.
    #[must_use]
    pub fn new(salt: &Nonce) -> Self {
        Self(Sha256::new().chain_update(salt.0))
    }

    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The commitment over all bytes added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// DSSE's pre-authentication encoding.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

fn leaf(payload_type: &str, payload: &[u8]) -> [u8; 32] {
    Digest::of_parts(&[&[0], &pre_authentication(payload_type, payload)]).0
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Digest::of_parts(&[&[1], left, right]).0
}

/// All levels of the tree, leaves first. A last hash without a sibling moves up as it is.
fn levels(leaves: Vec<[u8; 32]>) -> Vec<Vec<[u8; 32]>> {
    let mut levels = vec![leaves];
    while let Some(level) = levels.last().filter(|level| level.len() > 1) {
        let next = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => node(left, right),
                [alone] => *alone,
                _ => [0; 32],
            })
            .collect();
        levels.push(next);
    }
    levels
}

fn path_of(levels: &[Vec<[u8; 32]>], mut index: usize) -> Vec<String> {
    let mut path = Vec::new();
    for level in levels {
        if let Some(sibling) = level.get(index ^ 1) {
            path.push(HEXLOWER.encode(sibling));
        }
        index /= 2;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Posted;
    use crate::usage::UsageSource;
    use proptest::prelude::*;

    fn artefact() -> Artefact {
        Artefact {
            model: "m".into(),
            quantisation: None,
            digest: None,
            engine: "e".into(),
            engine_build: None,
        }
    }

    fn file() -> ReceiptFile {
        let (node, hub) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let id = RequestId([3; 16]);
        let usage = Usage { prompt: 5, completion: 7, source: UsageSource::Server };
        let salt = Nonce([4; 32]);
        let statement = Statement {
            request: id,
            node: PublicKey::from(&node),
            hub: PublicKey::from(&hub),
            artefact: artefact(),
            endpoint: Endpoint::ChatCompletions,
            request_commitment: commitment(&salt, b"in"),
            response_commitment: commitment(&salt, b"out"),
            outcome: Outcome::Complete,
            length: 3,
            joined: Joined::Single,
            usage,
            started: UnixMillis(1),
            timings: Timings::default(),
            energy: Energy::default(),
        };
        let other = b"{}".to_vec();
        let batch = [other.clone(), serde_json::to_vec(&statement).unwrap(), other];
        let signed = sign_batch(&node, STATEMENT_TYPE, &batch).swap_remove(1);
        let receipt = Receipt {
            id,
            hub: PublicKey::from(&hub),
            consumer: "c".into(),
            model: "m".into(),
            endpoint: Endpoint::ChatCompletions,
            outcome: Outcome::Complete,
            salt_digest: Digest::of(&salt.0),
            also_asked: Vec::new(),
            request_commitment: statement.request_commitment,
            response_commitment: statement.response_commitment,
            segments: vec![Segment {
                node: PublicKey::from(&node),
                artefact: artefact(),
                joined: Joined::Single,
                usage,
                earned: MicroCredits(11),
                statement: Signed::Signed(signed),
            }],
            joined: Joined::Single,
            price: Price(1_000_000),
            cost: MicroCredits(12),
            fee: MicroCredits(1),
            verification: "declared".into(),
            started: UnixMillis(1),
            issued: UnixMillis(2),
            previous: None,
        };
        let envelope = sign_batch(&hub, RECEIPT_TYPE, &[serde_json::to_vec(&receipt).unwrap()]).remove(0);
        ReceiptFile { receipt: envelope, salt: Some(salt) }
    }

    #[test]
    fn a_receipt_verifies_offline() {
        let verified = file().verify().unwrap();
        assert_eq!(verified.statements[0].as_ref().unwrap().usage.completion, 7);
    }

    /// Whatever byte of the file is changed, it is refused: as JSON, as an envelope, by its salt or by its signature.
    #[test]
    fn any_flipped_byte_is_caught() {
        let bytes = serde_json::to_vec(&file()).unwrap();
        for i in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[i] ^= 1;
            let still_good =
                serde_json::from_slice::<ReceiptFile>(&flipped).is_ok_and(|file| file.verify().is_ok());
            assert!(!still_good, "flipping byte {i} went unseen");
        }
    }

    #[test]
    fn a_posting_is_borne_out_by_its_receipt_or_not_at_all() {
        let envelope = file().receipt;
        let receipt = envelope.verify_receipt().unwrap().receipt;
        let (node, hub) = (receipt.segments[0].node, receipt.hub);
        let posted = Posted::of(4, &node, &receipt, envelope.clone()).unwrap();
        assert_eq!((posted.earned, posted.signed), (MicroCredits(11), true));
        assert!(posted.is_borne_out(&node, &hub));
        assert!(!posted.is_borne_out(&hub, &hub), "another node");
        assert!(!posted.is_borne_out(&node, &node), "another hub");
        assert!(!Posted { earned: MicroCredits(12), ..posted.clone() }.is_borne_out(&node, &hub));
        assert!(!Posted { request: RequestId([9; 16]), ..posted }.is_borne_out(&node, &hub));
        assert_eq!(Posted::of(4, &hub, &receipt, envelope), None);
    }

    #[test]
    fn a_hub_cannot_bill_other_tokens_than_the_node_stated() {
        let hub = SigningKey::from_bytes(&[2; 32]);
        let mut receipt = file().verify().unwrap().receipt;
        receipt.segments[0].usage.completion += 1;
        let envelope = sign_batch(&hub, RECEIPT_TYPE, &[serde_json::to_vec(&receipt).unwrap()]).remove(0);
        let error = ReceiptFile { receipt: envelope, salt: None }.verify().unwrap_err();
        assert!(matches!(error, VerifyError::Contradiction(_)), "{error}");
    }

    proptest! {
        #[test]
        fn every_envelope_of_every_batch_opens_and_no_other_payload_does(count in 1usize..=MAX_BATCH, pick: prop::sample::Index) {
            let key = SigningKey::from_bytes(&[7; 32]);
            let payloads: Vec<Vec<u8>> = (0..count).map(|i| i.to_string().into_bytes()).collect();
            let envelopes = sign_batch(&key, STATEMENT_TYPE, &payloads);
            let i = pick.index(count);
            let mut opener = Opener::default();
            for (envelope, payload) in envelopes.iter().zip(&payloads) {
                prop_assert_eq!(opener.open(envelope, STATEMENT_TYPE, "x"), Ok(payload.clone()));
            }
            let mut forged = envelopes[i].clone();
            forged.sig.0[0] ^= 1;
            prop_assert!(opener.open(&forged, STATEMENT_TYPE, "x").is_err());
            prop_assert_eq!(envelopes[i].open(STATEMENT_TYPE, "x"), Ok(payloads[i].clone()));
            let mut other = envelopes[i].clone();
            other.payload = BASE64.encode(b"forged");
            prop_assert!(other.open(STATEMENT_TYPE, "x").is_err());
            if count > 1 {
                let mut moved = envelopes[i].clone();
                moved.index = (moved.index + 1) % moved.leaves;
                prop_assert!(moved.open(STATEMENT_TYPE, "x").is_err());
            }
        }
    }
}
