//! Whether the connection is paid by volume, as NetworkManager knows or guesses it:
//! <https://networkmanager.dev/docs/api/latest/nm-dbus-types.html#NMMetered>.

use zbus::Connection;

use super::daemon::Daemon;
use crate::{Sight, Teller};

const NAME: &str = "org.freedesktop.NetworkManager";
const PATH: &str = "/org/freedesktop/NetworkManager";

/// Tells until the bus is lost, and why it is.
pub(super) async fn follow(bus: &Connection, teller: &Teller) -> String {
    let mut daemon = match Daemon::listen(bus, NAME, PATH).await {
        Ok(daemon) => daemon,
        Err(error) => return error.to_string(),
    };
    loop {
        match daemon.properties(PATH, NAME).await {
            Some(properties) => tell(properties.get("Metered"), teller),
            None => nobody(teller),
        }
        if daemon.next().await.is_none() {
            return "no more signals".to_owned();
        }
    }
}

pub(super) fn nobody(teller: &Teller) {
    teller.state(|state| state.metered = None);
    let unseen = Some("whether the connection is paid by volume: NetworkManager does not run");
    teller.sight(Sight { subject: "connection", reading: None, unseen });
}

fn tell(metered: Option<u32>, teller: &Teller) {
    let (metered, says) = match metered {
        Some(1) => (Some(true), "it is paid by volume"),
        Some(2) => (Some(false), "it is not paid by volume"),
        Some(3) => (Some(true), "it is paid by volume, as far as can be guessed"),
        Some(4) => (Some(false), "it is not paid by volume, as far as can be guessed"),
        _ => (None, "it is not known whether it is paid by volume"),
    };
    teller.state(|state| state.metered = metered);
    let reading = Some(format!("NetworkManager: {says}"));
    teller.sight(Sight { subject: "connection", reading, unseen: None });
}
