//! Invites: one link that carries where a hub is, which key it must show, and a single-use token.
//!
//! Two forms say the same. `idlewatt://join?hub=URL&hub=URL&key=HUB_KEY&token=TOKEN` opens the app; the hub's addresses
//! come best first. `https://HOST/join#hub=URL&key=HUB_KEY&token=TOKEN` opens the hub's own page, on a phone that scanned
//! it for example: what is behind the `#` stays in the browser. Either is a secret until it is used, and opening one
//! always asks the person before anything happens.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use url::{Host, Url, form_urlencoded};

use crate::id::PublicKey;

/// Most addresses of one hub, in an invite or a welcome.
pub const MAX_ADDRESSES: usize = 16;

/// Longest invite, bytes: sixteen long addresses, a key and a token fit.
pub const MAX_INVITE: usize = 8 * 1024;

/// The page of a hub at which the web form of an invite opens.
const PAGE: &str = "/join";

/// An invite to join a hub. Its `Debug` form hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The hub's addresses, best first, at least one: `https`, or `http` to loopback only.
    pub hubs: Vec<Url>,
    /// The key that the hub must show.
    pub key: PublicKey,
    /// The single-use token.
    pub token: String,
}

/// Why a text is not an invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It is no such link.
    #[error("this is not an invite: one starts with idlewatt://join?hub=, or is a hub's address with /join#")]
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
        let text = text.trim();
        if text.len() > MAX_INVITE {
            return Err(InviteError::Malformed("length"));
        }
        let url = Url::parse(text).map_err(|_| InviteError::NotAnInvite)?;
        let (page, parts) = match (url.scheme(), url.fragment()) {
            ("idlewatt", _) if url.host_str() == Some("join") => (None, url.query().unwrap_or_default()),
            ("http" | "https", Some(fragment)) => {
                let path = url.path().strip_suffix(PAGE).ok_or(InviteError::NotAnInvite)?;
                let mut hub = url.clone();
                hub.set_fragment(None);
                hub.set_path(path);
                (Some(hub), fragment)
            }
            _ => return Err(InviteError::NotAnInvite),
        };
        let every = |name: &'static str| {
            form_urlencoded::parse(parts.as_bytes()).filter(move |(key, _)| key == name).map(|(_, it)| it)
        };
        let part = |name| every(name).find(|value| !value.is_empty()).ok_or(InviteError::Missing(name));
        let told = every("hub").filter(|hub| !hub.is_empty()).map(|hub| Url::parse(&hub));
        let hubs = page.map(Ok).into_iter().chain(told).take(MAX_ADDRESSES).map(|hub| {
            let mut hub = hub.map_err(|_| InviteError::Malformed("hub"))?;
            check_hub_url(&hub)?;
            let path = hub.path().trim_end_matches('/').to_owned();
            hub.set_path(&path);
            Ok(hub)
        });
        let hubs: Vec<Url> = hubs.collect::<Result<_, InviteError>>()?;
        if hubs.is_empty() {
            return Err(InviteError::Missing("hub"));
        }
        let key = part("key")?.parse().map_err(|_| InviteError::Malformed("key"))?;
        let token = part("token")?.into_owned();
        if token.len() > 128 || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(InviteError::Malformed("token"));
        }
        Ok(Self { hubs, key, token })
    }
}

impl Invite {
    /// The form that opens the hub's own page; `None` where the invite has no address.
    #[must_use]
    pub fn page(&self) -> Option<Url> {
        let (first, others) = self.hubs.split_first()?;
        let mut page = first.clone();
        page.set_path(&format!("{}{PAGE}", first.path().trim_end_matches('/')));
        page.set_fragment(Some(&self.parts(others)));
        Some(page)
    }

    fn parts(&self, hubs: &[Url]) -> String {
        let mut parts = form_urlencoded::Serializer::new(String::new());
        for hub in hubs {
            parts.append_pair("hub", hub.as_str().trim_end_matches('/'));
        }
        parts.append_pair("key", &self.key.to_string()).append_pair("token", &self.token).finish()
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
        write!(f, "idlewatt://join?{}", self.parts(&self.hubs))
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hubs: Vec<&str> = self.hubs.iter().map(Url::as_str).collect();
        f.debug_struct("Invite").field("hubs", &hubs).field("key", &self.key).finish_non_exhaustive()
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
        Invite { hubs: vec![hub.parse().unwrap()], key: PublicKey([5; 32]), token: "tok-en_1".into() }
    }

    #[test]
    fn an_invite_reads_back() {
        for hub in ["http://127.0.0.1:4181", "https://hub.example", "http://[::1]:9", "http://localhost:1"] {
            let it = invite(hub);
            assert_eq!(it.page().unwrap().as_str().parse(), Ok(it.clone()));
            assert_eq!(it.to_string().parse(), Ok(it));
        }
    }

    #[test]
    fn every_address_of_the_hub_is_carried_in_order_in_both_forms() {
        let hubs = ["https://192.168.1.7:4182", "https://[fd00::7]:4182", "https://hub.example/a/b"];
        let it = Invite { hubs: hubs.iter().map(|it| it.parse().unwrap()).collect(), ..invite(hubs[0]) };
        let page = it.page().unwrap();
        assert!(page.as_str().starts_with("https://192.168.1.7:4182/join#hub="), "{page}");
        assert_eq!(page.query(), None, "nothing of the invite is sent to the hub by opening its page");
        assert_eq!(page.as_str().parse(), Ok(it.clone()));
        assert_eq!(it.to_string().parse(), Ok(it.clone()));
        let behind_a_path = Invite { hubs: vec![it.hubs[2].clone()], ..it };
        let page = behind_a_path.page().unwrap();
        assert!(page.as_str().starts_with("https://hub.example/a/b/join#key="), "{page}");
        assert_eq!(page.as_str().parse::<Invite>().unwrap().hubs[0].as_str(), "https://hub.example/a/b");
    }

    #[test]
    fn one_unencrypted_address_spoils_an_invite() {
        let text = invite("https://hub.example").to_string();
        let text = text.replace("&key", "&hub=http%3A%2F%2F192.168.1.7%3A4181&key");
        assert!(matches!(text.parse::<Invite>(), Err(InviteError::Unencrypted(_))));
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
