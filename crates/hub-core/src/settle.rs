//! What one answer comes to: the hub's own count of what it delivered, and whether a node's statement is believed.
//!
//! The hub reads the same events as the node with the same [`Reading`], so that both commit to the same text and agree on
//! what a cancelled answer holds. A statement that is forged or inflated ends the node's session and bills nothing; one
//! that merely covers something else than was delivered is set aside and the hub bills what it counted itself. Of energy
//! the hub has no count: it is the node's word, bounded by what any machine could have drawn ([`measured`]).
//!
//! Not here: money ([`crate::ledger`]) and receipts (the hub's store).

use idlewatt_protocol::message::Endpoint;
use idlewatt_protocol::receipt::{Energy, Envelope, Opener, STATEMENT_TYPE, Statement};
use idlewatt_protocol::usage::Reading;
use idlewatt_protocol::{
    Digest, Joined, Label, Millijoules, Nonce, PublicKey, RequestId, UnixMillis, Usage, UsageSource,
};
use sha2::{Digest as _, Sha256};

use crate::session::{Breach, Most};

/// Completion tokens that servers count and nobody sees: the end of text, and the tokens of a stop string.
pub const UNSEEN_TOKENS: u32 = 8;

/// Body bytes that the hub counts as one prompt token when no node says: a usual tokeniser's average for English.
const BYTES_A_TOKEN: u64 = 4;

/// More than one node draws, W: a whole rack of accelerators (NVIDIA's GB200 NVL72) takes about 120 kW.
const MOST_WATTS: i64 = 200_000;

/// Meters tell their energy a little late, ms: it may be that of a moment before.
const METERS_ARE_LATE_MS: i64 = 1_000;

/// The hub's own count of one answer, piece by piece as it is delivered.
#[derive(Clone, Debug)]
pub struct Tally {
    hash: Sha256,
    pieces: u32,
    most: u64,
}

impl Tally {
    /// Nothing delivered yet. Commitments are salted with the request's salt.
    #[must_use]
    pub fn new(salt: &Nonce) -> Self {
        Self { hash: Sha256::new_with_prefix(salt.0), pieces: 0, most: 0 }
    }

    /// One piece of `length` bytes was delivered.
    pub fn piece(&mut self, reading: &Reading, length: usize) {
        self.hash.update(reading.text.as_bytes());
        if reading.generated {
            self.pieces = self.pieces.saturating_add(1);
            let shown = if reading.hidden { length } else { reading.text.len() };
            self.most += shown as u64;
        }
    }

    /// A whole body without content of its own, an embedding, was delivered: all of it is committed to.
    pub fn whole(&mut self, body: &[u8]) {
        self.hash.update(body);
    }

    /// SHA-256(salt ‖ what was delivered).
    #[must_use]
    pub fn commitment(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Whether this many completion tokens can be in what was delivered: no more than its bytes, see
    /// [`UNSEEN_TOKENS`].
    #[must_use]
    pub fn can_hold(&self, completion: u32) -> bool {
        u64::from(completion) <= self.most + u64::from(UNSEEN_TOKENS)
    }

    /// What the hub bills without a node's word: one completion token a piece, the prompt from its bytes.
    fn counted(&self, body_bytes: u64, most: Most) -> Usage {
        Usage {
            prompt: u32::try_from(body_bytes / BYTES_A_TOKEN).unwrap_or(u32::MAX).min(most.prompt),
            completion: self.pieces.min(most.completion),
            source: UsageSource::Estimated,
        }
    }
}

/// What the hub knows of an answer when it settles it.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The endpoint that was asked.
    pub endpoint: Endpoint,
    /// Bytes of the body that the node got.
    pub body_bytes: u64,
    /// SHA-256(salt ‖ that body).
    pub request_commitment: Digest,
    /// The most tokens it may be billed for.
    pub most: Most,
    /// Bytes of the node's answer that reached the consumer, whole events.
    pub length: u64,
    /// The hub's own count of them.
    pub tally: Tally,
    /// How it went on from what another node delivered.
    pub joined: Joined,
}

impl Delivered {
    /// What the hub bills without a node's word.
    #[must_use]
    pub fn counted(&self) -> Usage {
        self.tally.counted(self.body_bytes, self.most)
    }
}

/// Opens a statement and checks who says it: the session's node, to this hub. One `opener` for a whole batch.
///
/// # Errors
/// When it is forged: a wrong signature, another signer, another node's, or for another hub.
pub fn open_statement(
    opener: &mut Opener,
    envelope: &Envelope,
    node: &PublicKey,
    hub: &PublicKey,
) -> Result<Statement, Breach> {
    let payload = opener
        .open(envelope, STATEMENT_TYPE, "a statement")
        .map_err(|error| Breach(format!("a forged statement ({error})")))?;
    let statement: Statement =
        serde_json::from_slice(&payload).map_err(|_| Breach("a statement that cannot be read".into()))?;
    if envelope.keyid != *node || statement.node != *node {
        return Err(Breach("a statement signed by, or for, another node".into()));
    }
    if statement.hub != *hub {
        return Err(Breach("a statement for another hub".into()));
    }
    Ok(statement)
}

/// Whether an authentic statement about `request` may go into its receipt.
///
/// `Ok(Err(why))` when it may not, and the hub's own count is billed instead.
///
/// # Errors
/// When it claims more tokens than the answer can hold.
pub fn believe(
    statement: &Statement,
    request: RequestId,
    delivered: &Delivered,
) -> Result<Result<(), &'static str>, Breach> {
    delivered.most.holds(statement.usage)?;
    if statement.request != request || statement.endpoint != delivered.endpoint {
        return Ok(Err("the node's statement is about another request"));
    }
    if statement.joined != delivered.joined {
        return Ok(Err("the node's statement joins its part otherwise"));
    }
    if statement.length != delivered.length {
        return Ok(Err("the node's statement covers another part than was delivered"));
    }
    if !delivered.tally.can_hold(statement.usage.completion) {
        return Err(Breach(format!(
            "{} completion tokens claimed for fewer bytes of text",
            statement.usage.completion
        )));
    }
    if statement.request_commitment != delivered.request_commitment {
        return Ok(Err("the node's statement commits to another request"));
    }
    // The hub may have had to pin an embedding's model name, so that its bytes are not the node's.
    if delivered.endpoint != Endpoint::Embeddings
        && statement.response_commitment != delivered.tally.commitment()
    {
        return Ok(Err("the node's statement commits to another answer"));
    }
    Ok(Ok(()))
}

/// What a node says that it measured for a request between two moments of the hub's clock. `None` where it did not
/// measure, or says more than 200 kW over that time: then it is not known.
#[must_use]
pub fn measured(energy: &Energy, from: UnixMillis, until: UnixMillis) -> Option<Millijoules> {
    let took = until.0.saturating_sub(from.0).max(0).saturating_add(METERS_ARE_LATE_MS);
    let most = MOST_WATTS.saturating_mul(took);
    energy.total_mj.filter(|total| energy.label == Label::Measured && (0..=most).contains(&total.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use idlewatt_protocol::Artefact;
    use idlewatt_protocol::message::Outcome;
    use idlewatt_protocol::receipt::{Timings, commitment, sign_batch};

    const SALT: Nonce = Nonce([4; 32]);
    const MOST: Most = Most { prompt: 552, completion: 100 };
    const REQUEST: RequestId = RequestId([3; 16]);

    fn node() -> SigningKey {
        SigningKey::from_bytes(&[1; 32])
    }

    fn hub() -> PublicKey {
        PublicKey([2; 32])
    }

    fn delivered() -> Delivered {
        let mut tally = Tally::new(&SALT);
        for text in ["Hel", "lo"] {
            let json = format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#);
            tally.piece(&Reading::of(json.as_bytes()).unwrap(), json.len());
        }
        Delivered {
            endpoint: Endpoint::ChatCompletions,
            body_bytes: 40,
            request_commitment: commitment(&SALT, b"in"),
            most: MOST,
            length: 90,
            tally,
            joined: Joined::Single,
        }
    }

    fn statement() -> Statement {
        Statement {
            request: REQUEST,
            node: PublicKey::from(&node()),
            hub: hub(),
            artefact: Artefact {
                model: "m".into(),
                quantisation: None,
                digest: None,
                engine: "e".into(),
                engine_build: None,
            },
            endpoint: Endpoint::ChatCompletions,
            request_commitment: commitment(&SALT, b"in"),
            response_commitment: commitment(&SALT, b"Hello"),
            outcome: Outcome::Complete,
            length: 90,
            joined: Joined::Single,
            usage: Usage { prompt: 12, completion: 3, source: UsageSource::Server },
            started: UnixMillis(1),
            timings: Timings::default(),
            energy: Energy::default(),
        }
    }

    fn sign(key: &SigningKey, statement: &Statement) -> Envelope {
        sign_batch(key, STATEMENT_TYPE, &[serde_json::to_vec(statement).unwrap()]).remove(0)
    }

    #[test]
    fn an_honest_statement_is_believed() {
        let envelope = sign(&node(), &statement());
        let opened =
            open_statement(&mut Opener::default(), &envelope, &PublicKey::from(&node()), &hub()).unwrap();
        assert_eq!(believe(&opened, REQUEST, &delivered()), Ok(Ok(())));
    }

    #[test]
    fn forged_statements_are_breaches() {
        let me = PublicKey::from(&node());
        let other = SigningKey::from_bytes(&[9; 32]);
        assert!(open_statement(&mut Opener::default(), &sign(&other, &statement()), &me, &hub()).is_err());
        let theirs = Statement { node: PublicKey::from(&other), ..statement() };
        assert!(open_statement(&mut Opener::default(), &sign(&node(), &theirs), &me, &hub()).is_err());
        assert!(
            open_statement(&mut Opener::default(), &sign(&node(), &statement()), &me, &PublicKey([5; 32]))
                .is_err()
        );
        let mut bent = sign(&node(), &statement());
        bent.payload = sign(&node(), &Statement { length: 1, ..statement() }).payload;
        assert!(open_statement(&mut Opener::default(), &bent, &me, &hub()).is_err());
    }

    #[test]
    fn more_tokens_than_bytes_or_than_allowed_are_breaches() {
        let usage = |prompt, completion| Statement {
            usage: Usage { prompt, completion, source: UsageSource::Server },
            ..statement()
        };
        assert_eq!(believe(&usage(12, 5 + UNSEEN_TOKENS), REQUEST, &delivered()), Ok(Ok(())));
        assert!(believe(&usage(12, 6 + UNSEEN_TOKENS), REQUEST, &delivered()).is_err());
        assert!(believe(&usage(12, 101), REQUEST, &delivered()).is_err());
        assert!(believe(&usage(553, 1), REQUEST, &delivered()).is_err());
    }

    #[test]
    fn a_statement_about_something_else_is_set_aside() {
        for other in [
            Statement { request: RequestId([9; 16]), ..statement() },
            Statement { length: 91, ..statement() },
            Statement { joined: Joined::Text, ..statement() },
            Statement { request_commitment: commitment(&SALT, b"other"), ..statement() },
            Statement { response_commitment: commitment(&SALT, b"Hell"), ..statement() },
        ] {
            assert!(believe(&other, REQUEST, &delivered()).unwrap().is_err());
        }
    }

    #[test]
    fn the_hub_counts_pieces_and_prompt_bytes() {
        let usage = delivered().tally.counted(40, MOST);
        assert_eq!((usage.prompt, usage.completion), (10, 2));
        assert_eq!(delivered().tally.counted(40, Most { completion: 1, ..MOST }).completion, 1);
    }

    #[test]
    fn reasoning_counts_by_the_length_of_its_event() {
        let json = br#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#;
        let mut tally = Tally::new(&SALT);
        tally.piece(&Reading::of(json).unwrap(), json.len());
        assert!(tally.can_hold(u32::try_from(json.len()).unwrap()));
        assert_eq!(tally.commitment(), commitment(&SALT, b""));
    }
}
