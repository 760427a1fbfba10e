//! Says by multicast DNS that a hub is here (`_idlewatt._tcp`), and answers for its name, so that it is found again where
//! the router gives it another address. Nothing secret is said: a name, a port, and the beginning of the hub's key.

use std::net::SocketAddr;

use idlewatt_protocol::PublicKey;
use mdns_sd::{ServiceDaemon, ServiceInfo};

/// What a hub is announced as.
const SERVICE: &str = "_idlewatt._tcp.local.";
/// How often the library looks for new addresses of this machine, seconds.
const LOOK: u32 = 30;

/// An announcement, taken back on drop.
pub(crate) struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

impl Announcement {
    /// The name that a hub with this key answers to.
    pub(crate) fn host(key: &PublicKey) -> String {
        format!("idlewatt-{}.local", key.short())
    }

    /// Announces a hub; `None`, with a word in the log, where this machine cannot.
    pub(crate) fn begin(key: &PublicKey, listen: SocketAddr) -> Option<Self> {
        let begun = || -> mdns_sd::Result<Self> {
            let daemon = ServiceDaemon::new()?;
            daemon.set_ip_check_interval(LOOK)?;
            let (instance, host) = (format!("Idlewatt {}", key.short()), format!("{}.", Self::host(key)));
            let facts = [("v", "1".to_owned()), ("key", key.short())];
            let ip = if listen.ip().is_unspecified() { String::new() } else { listen.ip().to_string() };
            let mut info =
                ServiceInfo::new(SERVICE, &instance, &host, ip.as_str(), listen.port(), &facts[..])?;
            if ip.is_empty() {
                info = info.enable_addr_auto();
            }
            let name = info.get_fullname().to_owned();
            daemon.register(info)?;
            Ok(Self { daemon, name })
        };
        begun()
            .inspect_err(|error| tracing::warn!(%error, "the hub cannot be announced in this network"))
            .ok()
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Listeners forget a hub that says goodbye; without it they do so after two minutes.
        if let Ok(said) = self.daemon.unregister(&self.name) {
            let _ = said.recv_timeout(std::time::Duration::from_millis(500));
        }
        let _ = self.daemon.shutdown();
    }
}
