//! What feeds the machine: UPower tells, else `/sys/class/power_supply` is read.

use std::convert::Infallible;
use std::future::pending;
use std::path::Path;

use idlewatt_core::machine::Supply;
use idlewatt_devices::{Places, supply};
use zbus::Connection;

use super::daemon::Daemon;
use crate::until_due;
use crate::{Sight, Teller};

const NAME: &str = "org.freedesktop.UPower";
const PATH: &str = "/org/freedesktop/UPower";
/// All batteries of the machine together.
const DISPLAY: &str = "/org/freedesktop/UPower/devices/DisplayDevice";
const SUBJECT: &str = "power supply";

/// Tells until the bus is lost, and why it is.
pub(super) async fn follow(bus: &Connection, sysfs: &Path, teller: &Teller) -> String {
    let mut daemon = match Daemon::listen(bus, NAME, PATH).await {
        Ok(daemon) => daemon,
        Err(error) => return error.to_string(),
    };
    loop {
        let told = told(&daemon).await;
        if let Some(supply) = told {
            tell(Some(supply), "UPower", teller);
        }
        let reading = async {
            match told {
                Some(_) => pending().await,
                None => read(sysfs, teller).await,
            }
        };
        let news = tokio::select! {
            never = reading => match never {},
            news = daemon.next() => news,
        };
        if news.is_none() {
            return "no more signals".to_owned();
        }
    }
}

async fn told(daemon: &Daemon) -> Option<Supply> {
    let upower = daemon.properties(PATH, NAME).await?;
    if !upower.get::<bool>("OnBattery")? {
        return Some(Supply::Mains);
    }
    let display = daemon.properties(DISPLAY, "org.freedesktop.UPower.Device").await;
    let percent = display.filter(|it| it.get("IsPresent") != Some(false)).and_then(|it| it.get("Percentage"));
    Some(Supply::Battery { percent: percent.and_then(whole) })
}

/// Reads for as long as it is polled.
pub(super) async fn read(sysfs: &Path, teller: &Teller) -> Infallible {
    loop {
        let places = Places { sysfs: sysfs.to_owned(), ..Places::default() };
        // A battery may take its time to answer.
        let found = tokio::task::spawn_blocking(move || supply(&places)).await.ok().flatten();
        if found.is_none() {
            let reading = Some("the machine has no battery".to_owned());
            let unseen = Some("a battery that stands outside the machine");
            teller.state(|state| state.supply = Some(Supply::Mains));
            teller.sight(Sight { subject: SUBJECT, reading, unseen });
            return pending().await;
        }
        tell(found, "the battery's own gauge, read while something is shared", teller);
        until_due(teller).await;
    }
}

fn tell(supply: Option<Supply>, source: &str, teller: &Teller) {
    let says = match supply {
        Some(Supply::Battery { percent: Some(percent) }) => format!("on battery, {percent} % full"),
        Some(Supply::Battery { percent: None }) => "on battery".to_owned(),
        Some(Supply::Mains) | None => "on the mains".to_owned(),
    };
    teller.state(|state| state.supply = supply);
    teller.sight(Sight { subject: SUBJECT, reading: Some(format!("{source}: {says}")), unseen: None });
}

fn whole(percent: f64) -> Option<u8> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within 0 to 100")]
    let whole = (0.0..=100.0).contains(&percent).then_some(percent.round() as u8);
    whole
}
