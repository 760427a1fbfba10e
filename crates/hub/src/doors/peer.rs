//! Who is behind a connection or a request, and how much of the hub one address may hold.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use axum::http::HeaderMap;

use crate::hub::lock;

/// Where a request comes from: an extension of every request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The client's own address: that of the connection, or what a trusted proxy says.
    pub(crate) address: IpAddr,
    /// Whether it came through the hub's own encrypted door.
    pub(crate) encrypted: bool,
    /// Its place, given back when the last one drops it. A node's session gives it back once the node has joined.
    #[expect(dead_code, reason = "held, never read")]
    pub(crate) ticket: Arc<Ticket>,
}

/// A network in CIDR form, or one address: `10.0.0.0/8`, `fd00::/8`, `192.168.1.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// A text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: write it like 10.0.0.0/8, fd00::/8 or 192.168.1.7")]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotANetwork(text.to_owned());
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    /// Whether this address is in it. An IPv4 address that comes in IPv6's clothes is the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differs = network.to_bits() ^ address.to_bits();
                differs.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

pub(super) fn is_in(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// The client's address: the connection's, unless that is a trusted proxy's. Then it is the last address of
/// `x-forwarded-for` that is not a trusted proxy's too; what stands before it anybody may have written.
pub(super) fn client(proxies: &[Network], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_in(proxies, peer) {
        return peer;
    }
    let mut client = peer;
    let lines = headers.get_all("x-forwarded-for");
    let told: Vec<&str> =
        lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')).collect();
    for text in told.into_iter().rev() {
        let Ok(address) = text.trim().parse::<IpAddr>() else { return client };
        client = address.to_canonical();
        if !is_in(proxies, client) {
            return client;
        }
    }
    client
}

/// How many places each address has.
#[derive(Debug, Default)]
pub(crate) struct Crowd(Mutex<HashMap<IpAddr, usize>>);

impl Crowd {
    /// A place for this address, unless it has `most`.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Ticket> {
        let address = household(address);
        let mut places = lock(&self.0);
        let taken = places.entry(address).or_default();
        if *taken >= most {
            return None;
        }
        *taken += 1;
        Some(Ticket(Some((Arc::clone(self), address))))
    }
}

/// A place, given back on drop.
#[derive(Debug)]
pub(crate) struct Ticket(Option<(Arc<Crowd>, IpAddr)>);

impl Ticket {
    pub(super) fn uncounted() -> Self {
        Self(None)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let Some((crowd, address)) = self.0.take() else { return };
        let mut places = lock(&crowd.0);
        if let Some(taken) = places.get_mut(&address) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&address);
            }
        }
    }
}

/// Of IPv6 the network that a household is given: its 2⁶⁴ addresses are one peer's.
fn household(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.168.1.7", "192.168.1.7", "192.168.1.6"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(ip(inside)), "{network:?} {inside}");
            assert!(!network.contains(ip(outside)), "{network:?} {outside}");
        }
        for wrong in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "host", "10.0.0.0/-1", "10.0.0.0/"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_forwarded_address_is_believed_from_a_trusted_proxy_only() {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        let of = |peer: &str, lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
            }
            client(&proxies, ip(peer), &headers).to_string()
        };
        assert_eq!(of("203.0.113.5", &["198.51.100.1"]), "203.0.113.5");
        assert_eq!(of("127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("::ffff:127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("127.0.0.1", &[]), "127.0.0.1");
        // What the client itself wrote stands left of what the proxies wrote.
        assert_eq!(of("127.0.0.1", &["6.6.6.6, 198.51.100.1, 10.0.0.9"]), "198.51.100.1");
        assert_eq!(of("127.0.0.1", &["6.6.6.6", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(of("127.0.0.1", &["6.6.6.6, unknown, 10.0.0.9"]), "10.0.0.9");
    }

    #[test]
    fn one_household_has_so_many_places_and_gets_them_back() {
        let crowd = Arc::new(Crowd::default());
        let first = crowd.enter(ip("2001:db8::1"), 2).unwrap();
        let _second = crowd.enter(ip("2001:db8::2"), 2).unwrap();
        assert!(crowd.enter(ip("2001:db8::3"), 2).is_none());
        assert!(crowd.enter(ip("2001:db8:0:1::3"), 2).is_some());
        drop(first);
        let third = crowd.enter(ip("2001:db8::3"), 2);
        assert!(third.is_some());
        drop((third, _second));
        assert!(lock(&crowd.0).is_empty());
    }
}
