//! Invites: one link that carries where a hub is, which key it must show, and a single-use token.
//!
//! `idlewatt://join?hub=URL&key=HUB_KEY&token=TOKEN`. The link is a secret until it is used. Opening one always asks the
//! person before anything happens.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

use crate::id::PublicKey;

/// An invite to join a hub. Its `Debug` form hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The hub's address: `https`, or `http` to loopback only.
    pub hub: Url,
    /// The key that the hub must show.
    pub key: PublicKey,
    /// The single-use token.
    pub token: String,
}

/// Why a text is not an invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It is no such link.
    #[error("this is not an invite: one starts with idlewatt://join?hub=")]
    NotAnInvite,
    /// A part is missing.
    #[error("the invite has no {0}: it was cut off, copy the whole link")]
    Missing(&'static str),
    /// A part is malformed.
    #[error("the invite's {0} is malformed: it was altered or cut off, copy the whole link")]
    Malformed(&'static str),
    /// Plain HTTP to another machine.
    #[error(
        "the invite's hub {0} has no encryption: plain http is for this machine only, ask for an https invite"
    )]
    Unencrypted(String),
}

impl FromStr for Invite {
    type Err = InviteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text.trim()).map_err(|_| InviteError::NotAnInvite)?;
        if url.scheme() != "idlewatt" || url.host_str() != Some("join") {
            return Err(InviteError::NotAnInvite);
        }
        let part = |name: &'static str| {
            url.query_pairs()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
                .filter(|value| !value.is_empty())
                .ok_or(InviteError::Missing(name))
        };
        let hub = Url::parse(&part("hub")?).map_err(|_| InviteError::Malformed("hub"))?;
        check_hub_url(&hub)?;
        let key = part("key")?.parse().map_err(|_| InviteError::Malformed("key"))?;
        let token = part("token")?;
        if token.len() > 128 || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(InviteError::Malformed("token"));
        }
        Ok(Self { hub, key, token })
    }
}

/// Checks that a hub's address is `https`, or `http` to loopback, with nothing after its authority.
///
/// # Errors
/// When it is neither.
pub fn check_hub_url(hub: &Url) -> Result<(), InviteError> {
    let loopback = match hub.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Err(InviteError::Malformed("hub")),
    };
    if !hub.username().is_empty()
        || hub.password().is_some()
        || hub.query().is_some()
        || hub.fragment().is_some()
    {
        return Err(InviteError::Malformed("hub"));
    }
    match hub.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        "http" => Err(InviteError::Unencrypted(hub.to_string())),
        _ => Err(InviteError::Malformed("hub")),
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hub = self.hub.as_str().trim_end_matches('/');
        let query: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("hub", hub)
            .append_pair("key", &self.key.to_string())
            .append_pair("token", &self.token)
            .finish();
        write!(f, "idlewatt://join?{query}")
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("hub", &self.hub.as_str())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The public id of an invite: what a hello names so that the hub finds the token's hash.
#[must_use]
pub fn token_id(token: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"idlewatt.invite id\0");
    hash.update(token.as_bytes());
    HEXLOWER.encode(&hash.finalize()[..12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(hub: &str) -> Invite {
        Invite { hub: hub.parse().unwrap(), key: PublicKey([5; 32]), token: "tok-en_1".into() }
    }

    #[test]
    fn an_invite_reads_back() {
        for hub in ["http://127.0.0.1:4181", "https://hub.example", "http://[::1]:9", "http://localhost:1"] {
            let it = invite(hub);
            assert_eq!(it.to_string().parse(), Ok(it));
        }
    }

    #[test]
    fn a_bad_invite_says_what_is_wrong() {
        assert_eq!("hello".parse::<Invite>(), Err(InviteError::NotAnInvite));
        assert_eq!("https://join?hub=x".parse::<Invite>(), Err(InviteError::NotAnInvite));
        assert_eq!(
            "idlewatt://join?hub=http://127.0.0.1:1".parse::<Invite>(),
            Err(InviteError::Missing("key"))
        );
        let cut = invite("https://hub.example").to_string().replace("token=tok", "token=");
        assert!(cut.parse::<Invite>().is_ok());
        let plain = invite("http://hub.example").to_string();
        assert!(matches!(plain.parse::<Invite>(), Err(InviteError::Unencrypted(_))));
        let path = format!(
            "{}%2f..%2f",
            invite("https://hub.example").to_string().replace("token=tok-en_1", "token=")
        );
        assert_eq!(path.parse::<Invite>(), Err(InviteError::Malformed("token")));
    }

    #[test]
    fn debug_hides_the_token() {
        assert!(!format!("{:?}", invite("https://hub.example")).contains("tok-en"));
    }
}
