//! The mutual handshake of a node session.
//!
//! Both sides sign one transcript that names the purpose, the version, both keys, both nonces and everything in the
//! hello, so that nothing can be replayed, downgraded or moved to another session. On a first join the node also proves
//! that it holds the invite's token with an HMAC over the same transcript; the token itself never crosses the wire.
//! The node pins the hub's key from the invite.

use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::id::{Digest, Nonce, PublicKey, SignatureBytes};
use crate::limits::PROTOCOL_VERSION;
use crate::message::{Challenge, Hello, InviteProof, Resume, Welcome};

const NODE_DOMAIN: &[u8] = b"idlewatt.node.v1 hello";
const HUB_DOMAIN: &[u8] = b"idlewatt.node.v1 welcome";
const TOKEN_DOMAIN: &[u8] = b"idlewatt.node.v1 token";

/// The bytes that both sides sign. Every part is preceded by its length, so no two transcripts share bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// The transcript of a challenge and the hello that answers it.
    #[must_use]
    pub fn new(challenge: &Challenge, hello: &Hello) -> Self {
        let versions: Vec<u8> = challenge.versions.iter().flat_map(|version| version.to_be_bytes()).collect();
        let parts: [&[u8]; 9] = [
            &versions,
            &hello.version.to_be_bytes(),
            &challenge.hub_key.0,
            &challenge.nonce.0,
            &hello.node_key.0,
            &hello.node_nonce.0,
            hello.agent.as_bytes(),
            hello.name.as_deref().unwrap_or_default().as_bytes(),
            hello.invite.as_ref().map_or(&[], |invite| invite.id.as_bytes()),
        ];
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        bytes.extend_from_slice(&hello.posted_through.to_be_bytes());
        // Last, and only where it is there: a hello without it has the transcript it always had.
        if let Some(resume) = &hello.resume {
            bytes.extend_from_slice(&resume.epoch.to_be_bytes());
            for stream in &resume.streams {
                bytes.extend_from_slice(&stream.stream.to_be_bytes());
                bytes.extend_from_slice(&stream.body.to_be_bytes());
            }
        }
        Self(bytes)
    }

    fn under(&self, domain: &[u8], suffix: &[u8]) -> Vec<u8> {
        [domain, &[0], &self.0, suffix].concat()
    }
}

/// What a node brings to a handshake.
#[derive(Debug)]
pub struct NodeSide<'a> {
    /// The node's secret key.
    pub key: &'a SigningKey,
    /// The hub's key as the invite pinned it.
    pub hub_key: PublicKey,
    /// The invite's token, on a first join.
    pub token: Option<&'a str>,
    /// Name and version of the program.
    pub agent: &'a str,
    /// The name that the host gave this node.
    pub name: Option<&'a str>,
    /// The last posting kept durably.
    pub posted_through: u64,
    /// What is left of a lost session.
    pub resume: Option<Resume>,
}

/// Why a node does not trust a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HubDistrusted {
    /// The key is not the one pinned.
    #[error("the hub shows another key than the one this node was invited to")]
    OtherKey,
    /// The signature is wrong.
    #[error("the hub could not prove that it holds its key")]
    BadSignature,
    /// No version in common.
    #[error("the hub speaks none of this node's protocol versions")]
    Version,
}

impl NodeSide<'_> {
    /// Answers a challenge with a signed hello.
    ///
    /// # Errors
    /// When the hub is not the pinned one or speaks no common version.
    pub fn answer(&self, challenge: &Challenge, node_nonce: Nonce) -> Result<Hello, HubDistrusted> {
        if challenge.hub_key != self.hub_key {
            return Err(HubDistrusted::OtherKey);
        }
        if !challenge.versions.contains(&PROTOCOL_VERSION) {
            return Err(HubDistrusted::Version);
        }
        let mut hello = Hello {
            version: PROTOCOL_VERSION,
            node_key: PublicKey::from(self.key),
            node_nonce,
            agent: self.agent.to_owned(),
            name: self.name.map(str::to_owned),
            signature: SignatureBytes([0; 64]),
            invite: self
                .token
                .map(|token| InviteProof { id: crate::invite::token_id(token), hmac: Digest([0; 32]) }),
            posted_through: self.posted_through,
            resume: self.resume.clone(),
        };
        let transcript = Transcript::new(challenge, &hello);
        hello.signature = SignatureBytes(self.key.sign(&transcript.under(NODE_DOMAIN, &[])).to_bytes());
        if let (Some(proof), Some(token)) = (&mut hello.invite, self.token) {
            proof.hmac = token_mac(&transcript, &hash_token(token));
        }
        Ok(hello)
    }

    /// Checks that the hub signed this very session.
    ///
    /// # Errors
    /// When its signature is wrong.
    pub fn check_welcome(
        &self,
        challenge: &Challenge,
        hello: &Hello,
        welcome: &Welcome,
    ) -> Result<(), HubDistrusted> {
        let signed = Transcript::new(challenge, hello).under(HUB_DOMAIN, &welcome.epoch.to_be_bytes());
        if self.hub_key.verifies(&signed, &welcome.signature.0) {
            Ok(())
        } else {
            Err(HubDistrusted::BadSignature)
        }
    }
}

/// Hub: whether the hello was signed by the key it names, for this challenge.
#[must_use]
pub fn hello_is_signed(challenge: &Challenge, hello: &Hello) -> bool {
    let signed = Transcript::new(challenge, hello).under(NODE_DOMAIN, &[]);
    hello.node_key.verifies(&signed, &hello.signature.0)
}

/// Hub: whether the hello proves an invite's token, of which the hub keeps only the hash.
#[must_use]
pub fn token_is_proven(challenge: &Challenge, hello: &Hello, token_hash: &Digest) -> bool {
    hello.invite.as_ref().is_some_and(|proof| {
        let expected = token_mac(&Transcript::new(challenge, hello), token_hash);
        expected.0.ct_eq(&proof.hmac.0).into()
    })
}

/// Hub: the signature of a welcome.
#[must_use]
pub fn sign_welcome(key: &SigningKey, challenge: &Challenge, hello: &Hello, epoch: u64) -> SignatureBytes {
    let signed = Transcript::new(challenge, hello).under(HUB_DOMAIN, &epoch.to_be_bytes());
    SignatureBytes(key.sign(&signed).to_bytes())
}

/// What a hub keeps of an invite's token.
#[must_use]
pub fn hash_token(token: &str) -> Digest {
    Digest(Sha256::digest(token.as_bytes()).into())
}

fn token_mac(transcript: &Transcript, token_hash: &Digest) -> Digest {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&token_hash.0) else {
        unreachable!("HMAC takes a key of any length")
    };
    mac.update(&transcript.under(TOKEN_DOMAIN, &[]));
    Digest(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Parties {
        hub: SigningKey,
        node: SigningKey,
        challenge: Challenge,
    }

    fn parties() -> Parties {
        let hub = SigningKey::from_bytes(&[1; 32]);
        let challenge =
            Challenge { nonce: Nonce([3; 32]), versions: vec![1], hub_key: PublicKey::from(&hub) };
        Parties { node: SigningKey::from_bytes(&[2; 32]), challenge, hub }
    }

    fn side<'a>(parties: &'a Parties, token: Option<&'a str>) -> NodeSide<'a> {
        NodeSide {
            key: &parties.node,
            hub_key: PublicKey::from(&parties.hub),
            token,
            agent: "t/1",
            name: None,
            posted_through: 7,
            resume: None,
        }
    }

    #[test]
    fn both_sides_prove_themselves() {
        let parties = parties();
        let node = side(&parties, Some("secret"));
        let hello = node.answer(&parties.challenge, Nonce([4; 32])).unwrap();
        assert!(hello_is_signed(&parties.challenge, &hello));
        assert!(token_is_proven(&parties.challenge, &hello, &hash_token("secret")));
        assert!(!token_is_proven(&parties.challenge, &hello, &hash_token("other")));
        let signature = sign_welcome(&parties.hub, &parties.challenge, &hello, 9);
        let mut welcome = Welcome {
            epoch: 9,
            signature,
            heartbeat_s: 20,
            account: "a".into(),
            hub_name: "h".into(),
            urls: vec![],
            resumed: vec![],
        };
        assert_eq!(node.check_welcome(&parties.challenge, &hello, &welcome), Ok(()));
        welcome.epoch = 10;
        assert_eq!(
            node.check_welcome(&parties.challenge, &hello, &welcome),
            Err(HubDistrusted::BadSignature)
        );
    }

    #[test]
    fn a_hello_cannot_be_replayed_downgraded_or_altered() {
        let parties = parties();
        let hello = side(&parties, None).answer(&parties.challenge, Nonce([4; 32])).unwrap();
        let replayed = Challenge { nonce: Nonce([5; 32]), ..parties.challenge.clone() };
        assert!(!hello_is_signed(&replayed, &hello));
        let downgraded = Challenge { versions: vec![0, 1], ..parties.challenge.clone() };
        assert!(!hello_is_signed(&downgraded, &hello));
        let altered = Hello { posted_through: 0, ..hello.clone() };
        assert!(!hello_is_signed(&parties.challenge, &altered));
        let renamed = Hello { agent: "t/".into(), name: Some("1".into()), ..hello };
        assert!(!hello_is_signed(&parties.challenge, &renamed));
    }

    #[test]
    fn another_hub_is_not_answered() {
        let parties = parties();
        let other = Challenge { hub_key: PublicKey([8; 32]), ..parties.challenge.clone() };
        assert_eq!(side(&parties, None).answer(&other, Nonce([4; 32])), Err(HubDistrusted::OtherKey));
    }
}
