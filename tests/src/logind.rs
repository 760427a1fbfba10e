//! logind on a message bus of its own, as far as a node asks it: who holds the machine awake, and sleep.

use std::io::{PipeReader, Read};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tempfile::TempDir;
use zbus::object_server::SignalEmitter;

use crate::bus::Bus;

const PATH: &str = "/org/freedesktop/login1";

/// A logind that never really sleeps. Ends when it is dropped.
pub struct Logind {
    bus: Bus,
    connection: zbus::Connection,
    asked: Asked,
    _folder: TempDir,
}

type Asked = Arc<Mutex<Vec<Inhibitor>>>;

/// What a program asked for: `block` or `delay`, and when it let go of it.
struct Inhibitor {
    mode: String,
    released: Arc<Mutex<Option<Instant>>>,
}

impl Logind {
    /// Starts one.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bus = Bus::start(folder.path());
        let asked = Asked::default();
        let manager = Manager { asked: Arc::clone(&asked) };
        let connection = async {
            zbus::connection::Builder::address(bus.address.as_str())?
                .serve_at(PATH, manager)?
                .name("org.freedesktop.login1")?
                .build()
                .await
        };
        let connection = connection.await.expect("logind on the bus");
        Self { bus, connection, asked, _folder: folder }
    }

    /// Variables by which a program finds it.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address.clone())]
    }

    /// Whether somebody holds an inhibitor of this mode now.
    #[must_use]
    pub fn holds(&self, mode: &str) -> bool {
        self.asked.lock().expect("inhibitors").iter().any(|it| it.mode == mode && it.released().is_none())
    }

    /// When the last inhibitor of this mode was let go; `None` while one is held.
    #[must_use]
    pub fn released(&self, mode: &str) -> Option<Instant> {
        let asked = self.asked.lock().expect("inhibitors");
        let all: Option<Vec<Instant>> =
            asked.iter().filter(|it| it.mode == mode).map(Inhibitor::released).collect();
        all?.into_iter().max()
    }

    /// Says that the machine is about to sleep, or that it woke.
    pub async fn sleeps(&self, about_to: bool) {
        let emitter = SignalEmitter::new(&self.connection, PATH).expect("a path");
        Manager::prepare_for_sleep(&emitter, about_to).await.expect("a signal");
    }
}

impl Inhibitor {
    fn released(&self) -> Option<Instant> {
        *self.released.lock().expect("a moment")
    }
}

struct Manager {
    asked: Asked,
}

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    fn inhibit(&self, _what: &str, _who: &str, _why: &str, mode: String) -> zbus::zvariant::OwnedFd {
        let (held, given) = std::io::pipe().expect("a pipe");
        let released = Arc::default();
        self.asked.lock().expect("inhibitors").push(Inhibitor { mode, released: Arc::clone(&released) });
        std::thread::spawn(move || until_closed(held, &released));
        OwnedFd::from(given).into()
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn lid_closed(&self) -> bool {
        false
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn docked(&self) -> bool {
        false
    }

    fn list_sessions(&self) -> Vec<(String, u32, String, String, zbus::zvariant::OwnedObjectPath)> {
        Vec::new()
    }

    #[zbus(signal)]
    async fn prepare_for_sleep(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

fn until_closed(mut held: PipeReader, released: &Mutex<Option<Instant>>) {
    drop(held.read(&mut [0]));
    *released.lock().expect("a moment") = Some(Instant::now());
}
