//! GNOME on Wayland: Mutter tells over D-Bus when input stops and when it comes back.

use std::future::pending;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use idlewatt_core::presence::PresenceReading;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::{Connection, Proxy};

use crate::teller::Teller;
use crate::{Sight, reading};

const MUTTER: &str = "org.gnome.Mutter.IdleMonitor";

/// Why Mutter tells nothing, or no more.
pub(super) struct Lost {
    /// `None` where it is not there at all.
    pub(super) why: Option<String>,
    owners: Option<NameOwnerChangedStream>,
}

impl Lost {
    /// Waits until Mutter is on the bus; for ever without a bus.
    pub(super) async fn back(self) {
        let Some(mut owners) = self.owners else { return pending().await };
        while let Some(owner) = owners.next().await {
            if owner.args().is_ok_and(|args| args.new_owner.is_some()) {
                return;
            }
        }
        pending().await
    }
}

/// Tells of input in the session of `bus` until Mutter is lost.
pub(super) async fn follow(bus: Option<&str>, quiet: Duration, teller: &Teller) -> Lost {
    let Some(address) = bus else {
        return Lost { why: Some("there is no session bus".to_owned()), owners: None };
    };
    let no_bus = |error: zbus::Error| Lost {
        why: Some(format!("the session bus does not answer ({error})")),
        owners: None,
    };
    let bus = match connect(address).await {
        Ok(bus) => bus,
        Err(error) => return no_bus(error),
    };
    let (dbus, mut owners) = match owners(&bus).await {
        Ok(both) => both,
        Err(error) => return no_bus(error),
    };
    // Asking a Mutter that does not run could start one.
    if !runs(&dbus).await {
        return Lost { why: None, owners: Some(owners) };
    }
    let why = tokio::select! {
        told = tell(&bus, quiet, teller) => match told {
            Ok(()) => "Mutter tells of input no more".to_owned(),
            Err(error) => format!("Mutter does not tell of input ({error})"),
        },
        _ = owners.next() => "GNOME's shell is gone".to_owned(),
    };
    Lost { why: Some(why), owners: Some(owners) }
}

async fn connect(address: &str) -> zbus::Result<Connection> {
    zbus::connection::Builder::address(address)?.build().await
}

async fn owners(bus: &Connection) -> zbus::Result<(DBusProxy<'static>, NameOwnerChangedStream)> {
    let dbus = DBusProxy::new(bus).await?;
    let owners = dbus.receive_name_owner_changed_with_args(&[(0, MUTTER)]).await?;
    Ok((dbus, owners))
}

async fn runs(dbus: &DBusProxy<'_>) -> bool {
    match MUTTER.try_into() {
        Ok(name) => dbus.name_has_owner(name).await.unwrap_or(false),
        Err(_) => false,
    }
}

async fn tell(bus: &Connection, quiet: Duration, teller: &Teller) -> zbus::Result<()> {
    let monitor: Proxy<'_> = zbus::proxy::Builder::new(bus)
        .destination(MUTTER)?
        .path("/org/gnome/Mutter/IdleMonitor/Core")?
        .interface("org.gnome.Mutter.IdleMonitor")?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    let mut fired = monitor.receive_signal("WatchFired").await?;
    let threshold = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
    let rests: u32 = monitor.call("AddIdleWatch", &(threshold,)).await?;
    let mut idle = idle_time(&monitor).await?;
    teller.source(Sight {
        reading: reading(idle, quiet),
        source: "GNOME's idle monitor (Mutter)".to_owned(),
        unseen: &[],
        action: None,
    });
    loop {
        // A watch for activity fires once and is gone, so one is set whenever the person rests.
        let mut stirs = None;
        if idle >= quiet {
            stirs = Some(monitor.call::<_, _, u32>("AddUserActiveWatch", &()).await?);
            // Input between the last look and this watch would fire neither.
            idle = idle_time(&monitor).await?;
            teller.reading(reading(idle, quiet));
        }
        loop {
            let Some(signal) = fired.next().await else { return Ok(()) };
            let id: u32 = signal.body().deserialize()?;
            if Some(id) == stirs {
                idle = Duration::ZERO;
                teller.reading(PresenceReading::Active { since: Instant::now() });
                break;
            }
            if id == rests {
                idle = idle_time(&monitor).await?.max(quiet);
                break;
            }
        }
    }
}

async fn idle_time(monitor: &Proxy<'_>) -> zbus::Result<Duration> {
    Ok(Duration::from_millis(monitor.call("GetIdletime", &()).await?))
}
