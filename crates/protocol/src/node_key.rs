//! How a node gets an API key of the account that it earns for, so that its host can spend what the node earned.
//!
//! The node makes the key and keeps it; it sends the hub the key's hash, in a statement signed with the node's own key
//! that names the hub (`POST /node/v1/keys`). The hub never sees the key before it is used, its answer holds no secret,
//! and the statement is worth nothing to anybody else: it cannot be altered, and no other hub takes it. Saying it twice
//! changes nothing, and a key that was revoked never comes back, so that nothing is won by replaying one either.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::id::{Digest, PublicKey};
use crate::receipt::{Envelope, VerifyError, sign_batch};
use crate::units::UnixMillis;

/// Payload type of a signed [`NodeKey`].
pub const NODE_KEY_TYPE: &str = "application/vnd.idlewatt.node-key.v1+json";

/// What every API key of a hub starts with.
pub const KEY_PREFIX: &str = "iw-";

/// Characters of a key, its prefix included, that are kept and shown to recognise it.
pub const KEY_SHOWN: usize = 9;

/// The key of a node on a hub that it joined at this moment: made from the node's own, so that it is kept wherever that one
/// is, and nowhere else. Joining again makes another one.
#[must_use]
pub fn key_for(node: &SigningKey, hub: &PublicKey, joined: UnixMillis) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(node.as_bytes()) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.update(b"idlewatt.node-key.v1\0");
    mac.update(&hub.0);
    mac.update(&joined.0.to_be_bytes());
    format!("{KEY_PREFIX}{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
}

/// What a node says of an API key that it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKey {
    /// To which hub.
    pub hub: PublicKey,
    /// SHA-256 of the key.
    pub hash: Digest,
    /// The key's first [`KEY_SHOWN`] characters.
    pub shown: String,
    /// Whether the key is to hold, in place of the one before; otherwise it is to be revoked.
    pub holds: bool,
}

impl NodeKey {
    /// What is said of `key`.
    #[must_use]
    pub fn of(key: &str, hub: PublicKey, holds: bool) -> Self {
        let shown = key.chars().take(KEY_SHOWN).collect();
        Self { hub, hash: Digest::of(key.as_bytes()), shown, holds }
    }

    /// Signs it.
    #[must_use]
    pub fn sign(&self, node: &SigningKey) -> Envelope {
        // Plain names: writing them as JSON cannot fail.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        sign_batch(node, NODE_KEY_TYPE, &[payload]).swap_remove(0)
    }

    /// What an envelope says, once its signature was checked: the word of the node [`Envelope::keyid`].
    ///
    /// # Errors
    /// When the envelope is malformed, altered, or of another kind.
    pub fn open(envelope: &Envelope) -> Result<Self, VerifyError> {
        let it: Self = envelope.read(NODE_KEY_TYPE, "the key")?;
        let random = it.shown.strip_prefix(KEY_PREFIX);
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if it.shown.len() == KEY_SHOWN && random.is_some_and(|random| random.bytes().all(plain)) {
            Ok(it)
        } else {
            Err(VerifyError::Contradiction("the key does not look like one".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_of_one_node_one_hub_and_one_joining() {
        let (node, hub) = (SigningKey::from_bytes(&[7; 32]), PublicKey([1; 32]));
        let key = key_for(&node, &hub, UnixMillis(5));
        assert_eq!(key, key_for(&node, &hub, UnixMillis(5)));
        assert_ne!(key, key_for(&node, &hub, UnixMillis(6)));
        assert_ne!(key, key_for(&node, &PublicKey([2; 32]), UnixMillis(5)));
        assert_ne!(key, key_for(&SigningKey::from_bytes(&[8; 32]), &hub, UnixMillis(5)));
        assert!(NodeKey::open(&NodeKey::of(&key, hub, true).sign(&node)).is_ok());
    }

    #[test]
    fn a_signed_key_opens_and_says_nothing_of_the_key_itself() {
        let node = SigningKey::from_bytes(&[7; 32]);
        let key = "iw-abcdefghijklmnop";
        let said = NodeKey::of(key, PublicKey([1; 32]), true);
        let envelope = said.sign(&node);
        assert_eq!(NodeKey::open(&envelope).as_ref(), Ok(&said));
        assert_eq!((envelope.keyid, said.shown.as_str()), (PublicKey::from(&node), "iw-abcdef"));
        let elsewhere = NodeKey { hub: PublicKey([2; 32]), ..said.clone() }.sign(&node);
        let moved = Envelope { payload: elsewhere.payload, ..envelope };
        assert!(NodeKey::open(&moved).is_err(), "it is for one hub");
        for shown in ["iw-", "abcdefghi", "iw-abc\n\x1b[", "iw-abcdefg"] {
            let odd = NodeKey { shown: shown.to_owned(), ..said.clone() };
            assert!(NodeKey::open(&odd.sign(&node)).is_err(), "{shown:?}");
        }
    }
}
