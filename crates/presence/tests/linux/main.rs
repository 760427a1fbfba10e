//! Presence against a real X server and against GNOME and logind as they look on a bus.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail at once")]
#![expect(missing_docs, reason = "made by the D-Bus macros for the fakes' signals")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Options, Surroundings, Watch, watch};
use tokio::sync::Mutex;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::MOTION_NOTIFY_EVENT;
use x11rb::protocol::xtest::ConnectionExt as _;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedObjectPath;

/// Ten times what any of these should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(400);

fn options(surroundings: Surroundings) -> Options {
    Options { quiet: QUIET, surroundings }
}

async fn until(watch: &Watch, wanted: impl Fn(&PresenceReading) -> bool) -> PresenceReading {
    let mut readings = watch.readings();
    *tokio::time::timeout(PATIENCE, readings.wait_for(|reading| wanted(reading)))
        .await
        .unwrap_or_else(|_| panic!("not seen; instead {:?}", watch.sight()))
        .unwrap()
}

fn active(reading: &PresenceReading) -> bool {
    matches!(reading, PresenceReading::Active { .. })
}

fn idle(reading: &PresenceReading) -> bool {
    matches!(reading, PresenceReading::Idle { .. })
}

/// A real X server on a display of its own choosing; ends with the test.
struct Xvfb {
    process: Child,
    display: String,
}

impl Xvfb {
    /// `display` of an earlier server, or any free one.
    fn start(display: Option<&str>) -> Self {
        let (mut number, tell) = std::io::pipe().unwrap();
        // The server writes its display number to this descriptor once it accepts clients.
        let mut command = Command::new("Xvfb");
        if let Some(display) = display {
            command.arg(display);
        }
        let process = command
            .args(["-displayfd", "1", "-noreset", "-screen", "0", "320x200x24", "-nolisten", "tcp"])
            .stdout(tell.as_fd().try_clone_to_owned().unwrap())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb (Debian: xvfb) runs");
        drop(command);
        drop(tell);
        let mut line = String::new();
        while !line.ends_with('\n') {
            let mut byte = [0];
            assert_eq!(number.read(&mut byte).unwrap(), 1, "Xvfb ends at once");
            line.push(char::from(byte[0]));
        }
        Self { process, display: format!(":{}", line.trim()) }
    }

    fn surroundings(&self) -> Surroundings {
        Surroundings { display: Some(self.display.clone()), ..Surroundings::default() }
    }

    fn touch(&self) {
        let done = Command::new("xdotool")
            .args(["mousemove_relative", "1", "1", "key", "shift"])
            .env("DISPLAY", &self.display)
            .status()
            .expect("xdotool runs");
        assert!(done.success());
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_on_x11_is_seen_at_once_and_its_absence_after_the_threshold() {
    let server = Xvfb::start(None);
    server.touch();
    let watch = watch(options(server.surroundings()));
    until(&watch, active).await;

    let PresenceReading::Idle { last_input } = until(&watch, idle).await else { unreachable!() };
    assert!(last_input.elapsed() >= QUIET);
    assert!(last_input.elapsed() < QUIET + Duration::from_secs(2), "{:?}", last_input.elapsed());

    for _ in 0..3 {
        let before = Instant::now();
        server.touch();
        let PresenceReading::Active { since } = until(&watch, active).await else { unreachable!() };
        assert!(since >= before);
        until(&watch, idle).await;
    }
    let sight = watch.sight();
    assert_eq!(sight.source, format!("the idle counter of X display {}", server.display));
    assert!(sight.unseen.contains(&"gamepads"));
}

/// The target is 20 ms; ten times that is allowed here, so that a busy machine does not lie.
#[tokio::test(flavor = "multi_thread")]
async fn input_is_seen_within_milliseconds() {
    let server = Xvfb::start(None);
    let (client, _) = x11rb::connect(Some(&server.display)).unwrap();
    let watch = watch(options(server.surroundings()));
    let mut worst = Duration::ZERO;
    for place in 3..8 {
        until(&watch, idle).await;
        let before = Instant::now();
        client.xtest_fake_input(MOTION_NOTIFY_EVENT, 1, 0, x11rb::NONE, place, place, 0).unwrap();
        client.flush().unwrap();
        let PresenceReading::Active { since } = until(&watch, active).await else { unreachable!() };
        worst = worst.max(since - before);
    }
    println!("input to event, worst of 5: {worst:?}");
    assert!(worst < Duration::from_millis(200), "{worst:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_display_that_was_never_touched_reads_idle_from_the_start() {
    let server = Xvfb::start(None);
    tokio::time::sleep(QUIET * 2).await;
    let watch = watch(options(server.surroundings()));
    until(&watch, idle).await;
    server.touch();
    until(&watch, active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_x_server_that_goes_is_reported_and_found_again() {
    let server = Xvfb::start(None);
    let display = server.display.clone();
    let watch = watch(options(server.surroundings()));
    until(&watch, |reading| active(reading) || idle(reading)).await;
    drop(server);
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    let sight = watch.sight();
    assert!(sight.source.contains(&display) && sight.source.contains("gone"), "{}", sight.source);
    assert!(sight.action.is_some());

    let server = Xvfb::start(Some(&display));
    until(&watch, |reading| active(reading) || idle(reading)).await;
    until(&watch, idle).await;
    server.touch();
    until(&watch, active).await;
}

#[tokio::test]
async fn a_machine_without_a_session_is_headless() {
    let watch = watch(options(Surroundings::default()));
    until(&watch, |reading| *reading == PresenceReading::Headless).await;
}

#[tokio::test]
async fn a_wayland_session_without_a_source_is_blind() {
    let bus = Bus::start();
    let surroundings =
        Surroundings { wayland: true, session_bus: Some(bus.address.clone()), ..Surroundings::default() };
    let watch = watch(options(surroundings));
    until_source(&watch, "no source").await;
    assert_eq!(watch.sight().reading, PresenceReading::Blind);
}

async fn until_source(watch: &Watch, part: &str) {
    let begun = Instant::now();
    // The sight has no channel of its own: what it says follows the reading by nothing but this thread's turn.
    while !watch.sight().source.contains(part) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", watch.sight());
        tokio::task::yield_now().await;
    }
}

/// A D-Bus daemon of the test's own.
struct Bus {
    process: Child,
    address: String,
}

impl Bus {
    fn start() -> Self {
        let mut process = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon runs");
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }

    fn connection(&self) -> zbus::connection::Builder<'_> {
        zbus::connection::Builder::address(self.address.as_str()).unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    let surroundings =
        Surroundings { wayland: true, session_bus: Some(bus.address.clone()), ..Surroundings::default() };
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
    let surroundings =
        Surroundings { wayland: true, session_bus: Some(bus.address.clone()), ..Surroundings::default() };
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

/// logind with one session at most.
struct Logind(bool);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn list_sessions(&self) -> Vec<(String, u32, String, String, OwnedObjectPath)> {
        let path = OwnedObjectPath::try_from("/org/freedesktop/login1/session/_32").unwrap();
        let session = ("2".to_owned(), 4_000_000, "someone".to_owned(), "seat0".to_owned(), path);
        if self.0 { vec![session] } else { Vec::new() }
    }

    #[zbus(signal)]
    async fn session_new(emitter: &SignalEmitter<'_>, id: &str, path: OwnedObjectPath) -> zbus::Result<()>;
}

struct TheirSession;

#[zbus::interface(name = "org.freedesktop.login1.Session")]
impl TheirSession {
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
        "wayland"
    }
}

#[tokio::test]
async fn another_account_that_logs_in_ends_headless() {
    let bus = Bus::start();
    let logind = bus
        .connection()
        .serve_at("/org/freedesktop/login1", Logind(false))
        .unwrap()
        .serve_at("/org/freedesktop/login1/session/_32", TheirSession)
        .unwrap()
        .name("org.freedesktop.login1")
        .unwrap()
        .build()
        .await
        .unwrap();
    let surroundings = Surroundings { system_bus: Some(bus.address.clone()), ..Surroundings::default() };
    let watch = watch(options(surroundings));
    until(&watch, |reading| *reading == PresenceReading::Headless).await;

    let manager = logind.object_server().interface::<_, Logind>("/org/freedesktop/login1").await.unwrap();
    manager.get_mut().await.0 = true;
    let path = OwnedObjectPath::try_from("/org/freedesktop/login1/session/_32").unwrap();
    Logind::session_new(manager.signal_emitter(), "2", path).await.unwrap();
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    until_source(&watch, "another account").await;
}
