//! Names and keys: request ids, Ed25519 public keys, digests and nonces, with one text form each.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// Why a text is not the name or key it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseIdError {
    text: String,
    expected: &'static str,
}

fn malformed(text: &str, expected: &'static str) -> ParseIdError {
    // Whatever came may be a secret pasted into the wrong field: keep only enough to recognise it.
    ParseIdError { text: text.chars().take(12).collect(), expected }
}

macro_rules! text_form {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(de)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    };
}

/// The id of one request, allocated by the hub at admission: `req_` and 32 hexadecimal digits. The receipt's id too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "string"))]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "req_{}", HEXLOWER.encode(&self.0))
    }
}

impl FromStr for RequestId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("req_")
            .and_then(|hex| HEXLOWER.decode(hex.as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| malformed(text, "a request id (req_ and 32 hexadecimal digits)"))
    }
}
text_form!(RequestId);

/// An Ed25519 public key of a node or a hub: 43 characters of unpadded base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "string"))]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Whether `signature` over `message` was made with this key's secret half. Weak keys and malleable signatures
    /// are refused.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }

    /// A short name for people and headers: the first 12 hexadecimal digits of the key's SHA-256.
    #[must_use]
    pub fn short(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0)[..6])
    }
}

impl From<&ed25519_dalek::SigningKey> for PublicKey {
    fn from(key: &ed25519_dalek::SigningKey) -> Self {
        Self(key.verifying_key().to_bytes())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        BASE64URL_NOPAD
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| malformed(text, "a public key (43 characters of base64url)"))
    }
}
text_form!(PublicKey);

/// A SHA-256 digest: `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS), ts(type = "string"))]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of all parts, one after the other.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Digest {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix("sha256:")
            .and_then(|hex| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| malformed(text, "a digest (sha256: and 64 hexadecimal digits)"))
    }
}
text_form!(Digest);

/// 32 random bytes, used once: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 32]);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl FromStr for Nonce {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HEXLOWER
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| malformed(text, "a nonce (64 hexadecimal digits)"))
    }
}
text_form!(Nonce);

/// 64 bytes of an Ed25519 signature: 86 characters of unpadded base64url.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SignatureBytes(pub [u8; 64]);

impl fmt::Display for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl FromStr for SignatureBytes {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        BASE64URL_NOPAD
            .decode(text.as_bytes())
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| malformed(text, "a signature (86 characters of base64url)"))
    }
}
text_form!(SignatureBytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_reads_back_what_it_writes() {
        let id = RequestId([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        let key = PublicKey([9; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }

    #[test]
    fn an_error_never_repeats_a_whole_secret() {
        let error = "idlewatt-secret-that-must-not-leak".parse::<PublicKey>().unwrap_err();
        assert!(!error.to_string().contains("must-not-leak"));
    }
}
