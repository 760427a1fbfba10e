//! logind, as it looks on a bus.

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Surroundings, watch};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedObjectPath;

use crate::rig::{Bus, options, until, until_activity, until_source};

#[tokio::test]
async fn a_machine_without_a_session_is_headless() {
    let watch = watch(options(Surroundings::default()));
    until(&watch, |reading| *reading == PresenceReading::Headless).await;
}

/// logind with what sessions it is given.
#[derive(Default)]
struct Logind(Vec<(u32, OwnedObjectPath)>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn list_sessions(&self) -> Vec<(String, u32, String, String, OwnedObjectPath)> {
        let row = |(uid, path): &(u32, OwnedObjectPath)| {
            ("2".to_owned(), *uid, "someone".to_owned(), "seat0".to_owned(), path.clone())
        };
        self.0.iter().map(row).collect()
    }

    #[zbus(signal)]
    async fn session_new(emitter: &SignalEmitter<'_>, id: &str, path: OwnedObjectPath) -> zbus::Result<()>;
}

struct Session {
    kind: &'static str,
    remote: bool,
    locked: bool,
}

#[zbus::interface(name = "org.freedesktop.login1.Session")]
impl Session {
    #[zbus(property)]
    fn class(&self) -> &str {
        "user"
    }
    #[zbus(property)]
    fn state(&self) -> &str {
        "active"
    }
    #[zbus(property, name = "Type")]
    fn kind(&self) -> &str {
        self.kind
    }
    #[zbus(property)]
    fn remote(&self) -> bool {
        self.remote
    }
    #[zbus(property)]
    fn locked_hint(&self) -> bool {
        self.locked
    }
}

const MANAGER: &str = "/org/freedesktop/login1";

async fn logind(bus: &Bus) -> zbus::Connection {
    let logind = bus.connection().serve_at(MANAGER, Logind::default()).unwrap();
    logind.name("org.freedesktop.login1").unwrap().build().await.unwrap()
}

async fn log_in(logind: &zbus::Connection, id: &str, uid: u32, session: Session) -> OwnedObjectPath {
    let path = OwnedObjectPath::try_from(format!("{MANAGER}/session/_3{id}")).unwrap();
    logind.object_server().at(&path, session).await.unwrap();
    let manager = logind.object_server().interface::<_, Logind>(MANAGER).await.unwrap();
    manager.get_mut().await.0.push((uid, path.clone()));
    Logind::session_new(manager.signal_emitter(), id, path.clone()).await.unwrap();
    path
}

fn surroundings(bus: &Bus) -> Surroundings {
    Surroundings { system_bus: Some(bus.address.clone()), ..Surroundings::default() }
}

#[tokio::test]
async fn another_account_that_logs_in_ends_headless() {
    let bus = Bus::start();
    let logind = logind(&bus).await;
    let watch = watch(options(surroundings(&bus)));
    until(&watch, |reading| *reading == PresenceReading::Headless).await;
    log_in(&logind, "2", 4_000_000, Session { kind: "wayland", remote: false, locked: false }).await;
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    until_source(&watch, "another account").await;
}

#[tokio::test]
async fn people_over_the_network_are_counted_and_disturb_nobody_at_the_screen() {
    let bus = Bus::start();
    let logind = logind(&bus).await;
    let watch = watch(options(surroundings(&bus)));
    for people in 1..=2 {
        let over_ssh = Session { kind: "tty", remote: true, locked: false };
        log_in(&logind, &people.to_string(), 4_000_000, over_ssh).await;
        until_activity(&watch, |it| it.remote_logins == people).await;
    }
    assert_eq!(*watch.readings().borrow(), PresenceReading::Headless);
    assert_eq!(watch.activity().borrow().locked, None, "there is no screen to lock");
}

#[tokio::test]
async fn a_lock_on_the_screen_is_told_and_its_end() {
    let bus = Bus::start();
    let logind = logind(&bus).await;
    let watch = watch(options(surroundings(&bus)));
    let own = rustix::process::getuid().as_raw();
    let path = log_in(&logind, "2", own, Session { kind: "x11", remote: false, locked: false }).await;
    until_activity(&watch, |it| it.locked == Some(false)).await;
    let session = logind.object_server().interface::<_, Session>(&path).await.unwrap();
    for locked in [true, false] {
        session.get_mut().await.locked = locked;
        session.get().await.locked_hint_changed(session.signal_emitter()).await.unwrap();
        until_activity(&watch, |it| it.locked == Some(locked)).await;
    }
}
