//! GNOME's shell, as it looks on a bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Surroundings, watch};
use tokio::sync::Mutex;
use zbus::object_server::SignalEmitter;

use crate::rig::{Bus, active, idle, options, until, until_source};

/// A Wayland session whose compositor cannot be reached but over the bus.
fn of_gnome(bus: &Bus) -> Surroundings {
    Surroundings {
        wayland: Some("/nonexistent/wayland-0".into()),
        session_bus: Some(bus.address.clone()),
        ..Surroundings::default()
    }
}

#[tokio::test]
async fn a_wayland_session_without_a_source_is_blind() {
    let bus = Bus::start();
    let surroundings = of_gnome(&bus);
    let watch = watch(options(surroundings));
    until_source(&watch, "no compositor answers").await;
    assert_eq!(watch.sight().reading, PresenceReading::Blind);
}

/// Mutter's idle monitor as gnome-shell 43 offers it: idle watches fire again and again, a watch for activity once.
#[derive(Clone, Default)]
struct Mutter(Arc<State>);

#[derive(Default)]
struct State {
    idle_ms: AtomicU64,
    /// (id, threshold); a threshold of `None` waits for activity.
    watches: Mutex<Vec<(u32, Option<u64>)>>,
}

#[zbus::interface(name = "org.gnome.Mutter.IdleMonitor")]
impl Mutter {
    fn get_idletime(&self) -> u64 {
        self.0.idle_ms.load(Ordering::SeqCst)
    }

    async fn add_idle_watch(&self, interval: u64) -> u32 {
        self.add(Some(interval)).await
    }

    async fn add_user_active_watch(&self) -> u32 {
        self.add(None).await
    }

    #[zbus(signal)]
    async fn watch_fired(emitter: &SignalEmitter<'_>, id: u32) -> zbus::Result<()>;
}

impl Mutter {
    async fn add(&self, threshold: Option<u64>) -> u32 {
        let mut watches = self.0.watches.lock().await;
        let id = u32::try_from(watches.len()).unwrap() + 1;
        watches.push((id, threshold));
        id
    }

    async fn serve(&self, bus: &Bus) -> zbus::Connection {
        bus.connection()
            .serve_at("/org/gnome/Mutter/IdleMonitor/Core", self.clone())
            .unwrap()
            .name("org.gnome.Mutter.IdleMonitor")
            .unwrap()
            .build()
            .await
            .unwrap()
    }

    async fn now_idle_for(&self, bus: &zbus::Connection, millis: u64) {
        self.0.idle_ms.store(millis, Ordering::SeqCst);
        let emitter = SignalEmitter::new(bus, "/org/gnome/Mutter/IdleMonitor/Core").unwrap();
        let mut watches = self.0.watches.lock().await;
        for (id, threshold) in watches.iter_mut() {
            let fires = match threshold {
                Some(threshold) => millis >= *threshold,
                None => millis == 0,
            };
            if fires {
                Self::watch_fired(&emitter, *id).await.unwrap();
                if threshold.is_none() {
                    *threshold = Some(u64::MAX);
                }
            }
        }
    }
}

#[tokio::test]
async fn mutter_tells_of_rest_and_of_return_again_and_again() {
    let bus = Bus::start();
    let mutter = Mutter::default();
    let shell = mutter.serve(&bus).await;
    let surroundings = of_gnome(&bus);
    let watch = watch(options(surroundings));
    until(&watch, active).await;
    for _ in 0..3 {
        mutter.now_idle_for(&shell, 5_000).await;
        let PresenceReading::Idle { last_input } = until(&watch, idle).await else { unreachable!() };
        assert!(last_input.elapsed() >= Duration::from_secs(5));
        // The watch for activity is set after the reading; input before it is caught by the second look.
        mutter.now_idle_for(&shell, 0).await;
        until(&watch, active).await;
    }
    assert_eq!(watch.sight().source, "GNOME's idle monitor (Mutter)");
}

#[tokio::test]
async fn a_shell_that_crashes_is_reported_and_heard_again() {
    let bus = Bus::start();
    let surroundings = of_gnome(&bus);
    let shell = Mutter::default().serve(&bus).await;
    let watch = watch(options(surroundings));
    until(&watch, active).await;
    drop(shell);
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    let mutter = Mutter::default();
    mutter.0.idle_ms.store(60_000, Ordering::SeqCst);
    let _shell = mutter.serve(&bus).await;
    until(&watch, idle).await;
}
