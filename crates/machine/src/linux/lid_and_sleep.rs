//! The lid, sleep and being kept awake, all of them logind's:
//! <https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html>.
//!
//! Before it sleeps, logind waits for those who asked for it, until they let go or `InhibitDelayMaxSec` is over.

use std::future::pending;
use std::path::Path;

use idlewatt_devices::{Places, supply};
use zbus::Connection;
use zbus::zvariant::OwnedFd;

use super::daemon::{Daemon, Properties};
use crate::until_due;
use crate::{Brake, KeepAwake, Sight, Teller};

const NAME: &str = "org.freedesktop.login1";
const PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// Holds until it is dropped.
#[derive(Debug)]
pub(crate) struct Inhibitor(#[expect(dead_code, reason = "logind sees when it is closed")] OwnedFd);

/// Tells until the bus is lost, and why it is.
pub(super) async fn follow(bus: &Connection, sysfs: &Path, teller: &Teller) -> String {
    // UPower tells of a lid where logind does not.
    let listened = tokio::try_join!(
        Daemon::listen(bus, NAME, PATH),
        Daemon::listen(bus, "org.freedesktop.UPower", "/org/freedesktop/UPower"),
    );
    let (mut logind, mut upower) = match listened {
        Ok(listened) => listened,
        Err(error) => return error.to_string(),
    };
    let places = Places { sysfs: sysfs.to_owned(), ..Places::default() };
    let portable = tokio::task::spawn_blocking(move || supply(&places).is_some()).await.unwrap_or_default();
    let mut wished = teller.wished.clone();
    let kept_awake = Brake::default();
    let (mut asked, mut there) = (false, false);
    loop {
        let properties = logind.properties(PATH, MANAGER).await;
        tell(properties.as_ref(), teller);
        let came = properties.is_some() && !there;
        there = properties.is_some();
        if came {
            brake(&logind, teller).await;
        }
        let awake = wished.borrow_and_update().awake;
        if awake != asked || came {
            kept_awake.hold(keep(&logind, awake, teller).await);
            asked = awake;
        }
        // No version of logind tells of a screen that is put in, and old ones do not tell of the lid.
        let due = async { if portable { until_due(teller).await } else { pending().await } };
        let news = tokio::select! {
            news = logind.next() => news,
            news = upower.next() => news,
            () = due => continue,
            changed = wished.changed() => match changed {
                Ok(()) => continue,
                Err(_) => pending().await,
            },
        };
        let Some(news) = news else {
            nobody(teller);
            return "no more signals".to_owned();
        };
        if news.header().member().is_some_and(|it| it == "PrepareForSleep")
            && let Ok(going) = news.body().deserialize::<bool>()
        {
            teller.state(|state| state.going_to_sleep = going);
            if !going {
                brake(&logind, teller).await;
                teller.jumped();
            }
        }
    }
}

/// Nobody tells of lid and sleep, or keeps the machine awake.
pub(super) fn nobody(teller: &Teller) {
    teller.brake.release();
    tell(None, teller);
}

fn tell(properties: Option<&Properties>, teller: &Teller) {
    let Some(properties) = properties else {
        teller.state(|state| {
            state.lid_closed = None;
            state.going_to_sleep = false;
        });
        teller.sight(Sight {
            subject: "lid",
            reading: None,
            unseen: Some("the lid: logind does not answer"),
        });
        let unseen = Some("that the machine is about to sleep: logind does not answer");
        teller.sight(Sight { subject: "sleep", reading: None, unseen });
        return;
    };
    let (closed, docked) = (properties.get::<bool>("LidClosed"), properties.get("Docked").unwrap_or(false));
    teller.state(|state| state.lid_closed = closed.map(|closed| closed && !docked));
    let says = match (closed, docked) {
        (Some(true), true) => "closed, and another screen is used",
        (Some(true), false) => "closed",
        (Some(false), _) => "open, or there is none",
        (None, _) => "not known",
    };
    teller.sight(Sight { subject: "lid", reading: Some(format!("logind: {says}")), unseen: None });
}

/// Asks logind to wait before it sleeps.
async fn brake(logind: &Daemon, teller: &Teller) {
    let inhibitor = inhibit(logind, "sleep", "requests are handed back first", "delay").await;
    let reading = match &inhibitor {
        Ok(_) => {
            "logind tells before the machine sleeps, and waits until requests are handed back".to_owned()
        }
        Err(error) => format!("logind tells before the machine sleeps, but does not wait ({error})"),
    };
    teller.brake.hold(inhibitor.ok());
    teller.sight(Sight { subject: "sleep", reading: Some(reading), unseen: None });
}

/// Keeps the machine awake, or lets it sleep.
async fn keep(logind: &Daemon, awake: bool, teller: &Teller) -> Option<Inhibitor> {
    if !awake {
        teller.held(KeepAwake::Released);
        return None;
    }
    match inhibit(logind, "sleep:idle", "the GPU is being shared", "block").await {
        Ok(inhibitor) => {
            teller.held(KeepAwake::Held);
            Some(inhibitor)
        }
        Err(error) => {
            teller.held(KeepAwake::Refused { why: error.to_string() });
            None
        }
    }
}

async fn inhibit(logind: &Daemon, what: &str, why: &str, mode: &str) -> zbus::Result<Inhibitor> {
    logind.call(PATH, MANAGER, "Inhibit", &(what, "Idlewatt", why, mode)).await.map(Inhibitor)
}
