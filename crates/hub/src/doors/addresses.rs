//! The addresses at which others may reach this hub, best first: this machine's in its own networks, those of a Tailscale
//! interface, the name that it announces, and the public name that its operator gave.

use std::net::{IpAddr, SocketAddr};

use idlewatt_protocol::invite::MAX_ADDRESSES;
use url::Url;

/// Interfaces that lead to this machine's own guests only.
const WITHIN: [&str; 8] = ["docker", "br-", "veth", "virbr", "vmnet", "vboxnet", "lxc", "podman"];

/// Where the hub is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// From this machine.
    pub(crate) near: Url,
    /// From elsewhere, best first; empty when it is for this machine only.
    pub(crate) far: Vec<Url>,
}

impl Addresses {
    pub(crate) fn new(
        plain: SocketAddr,
        encrypted: Option<SocketAddr>,
        name: Option<&str>,
        public: Option<Url>,
    ) -> Self {
        let near = url("http", &plain.to_string());
        let ips = encrypted.map_or_else(Vec::new, own);
        let port = encrypted.map_or(0, |address| address.port());
        let mut far: Vec<Url> =
            ips.iter().filter_map(|ip| url("https", &SocketAddr::new(*ip, port).to_string())).collect();
        far.extend(name.filter(|_| port > 0).and_then(|name| url("https", &format!("{name}:{port}"))));
        // A public name stays even where there are more addresses than an invite takes.
        far.truncate(MAX_ADDRESSES - 1);
        far.extend(public.clone());
        // Behind a proxy every peer looks near, and only its name is of use.
        let near = match public {
            Some(public) if encrypted.is_none() => public,
            _ => near.unwrap_or_else(|| unreachable!("a socket address makes a URL")),
        };
        Self { near, far }
    }

    /// What an invite or a welcome says.
    pub(crate) fn told(&self, is_near: bool) -> Vec<Url> {
        let near = (is_near || self.far.is_empty()).then_some(&self.near);
        let far = self.far.iter().filter(|url| Some(*url) != near);
        near.into_iter().chain(far).take(MAX_ADDRESSES).cloned().collect()
    }
}

fn url(scheme: &str, authority: &str) -> Option<Url> {
    Url::parse(&format!("{scheme}://{authority}")).ok()
}

/// This machine's addresses of which `listen` takes connections, those of its own networks first.
pub(crate) fn own(listen: SocketAddr) -> Vec<IpAddr> {
    if !listen.ip().is_unspecified() {
        return vec![listen.ip()];
    }
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "this machine's addresses cannot be listed");
        Vec::new()
    });
    let of_use = found.into_iter().filter(|it| {
        !it.is_loopback() && !it.is_link_local() && !WITHIN.iter().any(|name| it.name.starts_with(name))
    });
    let mut ips: Vec<IpAddr> =
        of_use.map(|it| it.ip()).filter(|ip| ip.is_ipv4() || listen.is_ipv6()).collect();
    ips.sort_by_key(|ip| (rank(*ip), *ip));
    ips.dedup();
    ips
}

/// Private networks, then public addresses, then those of Tailscale (100.64.0.0/10 and fd7a:115c:a1e0::/48), which reach
/// everywhere but on a way that may be longer.
fn rank(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) if ip.is_private() => 0,
        IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64 => 4,
        IpAddr::V6(ip) if ip.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0] => 5,
        IpAddr::V6(ip) if ip.is_unique_local() => 1,
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(addresses: &Addresses, is_near: bool) -> Vec<String> {
        addresses.told(is_near).iter().map(Url::to_string).collect()
    }

    #[test]
    fn who_is_elsewhere_is_never_sent_to_its_own_loopback() {
        let plain = "127.0.0.1:4181".parse().unwrap();
        let alone = Addresses::new(plain, None, None, None);
        assert_eq!(told(&alone, false), ["http://127.0.0.1:4181/"]);
        let lan = "192.168.1.7:4182".parse().unwrap();
        let public: Url = "https://hub.example".parse().unwrap();
        let open = Addresses::new(plain, Some(lan), Some("idlewatt-ab.local"), Some(public.clone()));
        let far = ["https://192.168.1.7:4182/", "https://idlewatt-ab.local:4182/", "https://hub.example/"];
        assert_eq!(told(&open, false), far);
        assert_eq!(told(&open, true), [&["http://127.0.0.1:4181/"][..], &far].concat());
        let behind_a_proxy = Addresses::new(plain, None, None, Some(public));
        assert_eq!(told(&behind_a_proxy, true), ["https://hub.example/"]);
    }

    #[test]
    fn the_nearest_network_comes_first_and_tailscale_last() {
        let mut ips: Vec<IpAddr> =
            ["fd7a:115c:a1e0::5", "100.64.1.2", "203.0.113.4", "192.168.1.7", "fd00::1"]
                .map(|ip| ip.parse().unwrap())
                .to_vec();
        ips.sort_by_key(|ip| rank(*ip));
        let sorted: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        assert_eq!(sorted, ["192.168.1.7", "fd00::1", "203.0.113.4", "100.64.1.2", "fd7a:115c:a1e0::5"]);
    }
}
