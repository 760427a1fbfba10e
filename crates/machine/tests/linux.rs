//! The machine as UPower, logind and NetworkManager tell of it on a bus, and as the kernel does.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail at once")]
#![expect(missing_docs, reason = "made by the D-Bus macros for the fakes' signals")]

use std::fs;
use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idlewatt_core::machine::{MachineState, Supply};
use idlewatt_machine::{KeepAwake, Options, Watch, watch};
use tempfile::TempDir;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedFd;
use zbus::{Connection, fdo};

/// Ten times what any of these should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

async fn until(watch: &Watch, wanted: impl Fn(&MachineState) -> bool) {
    let mut states = watch.states();
    let seen = tokio::time::timeout(PATIENCE, states.wait_for(|it| wanted(it))).await.map(drop);
    seen.unwrap_or_else(|_| panic!("not seen; instead {:?}, {:?}", *watch.states().borrow(), watch.sights()));
}

async fn until_awake(watch: &Watch, wanted: impl Fn(&KeepAwake) -> bool) {
    let mut awake = watch.awake();
    let seen = tokio::time::timeout(PATIENCE, awake.wait_for(|it| wanted(it))).await.map(drop);
    seen.unwrap_or_else(|_| panic!("not seen; instead {:?}", *watch.awake().borrow()));
}

/// What is told of a subject, once something is.
async fn says(watch: &Watch, subject: &str) -> String {
    let told = async {
        loop {
            if let Some(sight) = watch.sights().into_iter().find(|it| it.subject == subject) {
                return sight.reading.unwrap_or_else(|| format!("Not seen: {}", sight.unseen.unwrap()));
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("nothing is told of {subject}"))
}

/// A D-Bus daemon, and folders where the kernel would tell.
struct Bus {
    process: Child,
    address: String,
    folder: TempDir,
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
        Self { process, address: address.trim().to_owned(), folder: tempfile::tempdir().unwrap() }
    }

    fn watch(&self) -> Watch {
        watch(self.options())
    }

    fn options(&self) -> Options {
        let folder = self.folder.path().to_owned();
        Options { system_bus: Some(self.address.clone()), sysfs: folder.clone(), proc: folder }
    }

    fn connection(&self) -> zbus::connection::Builder<'_> {
        zbus::connection::Builder::address(self.address.as_str()).unwrap()
    }

    /// A battery as `/sys/class/power_supply` tells of it, at 55 %.
    fn battery(&self, status: &str) {
        let folder = self.folder.path().join("class/power_supply/BAT0");
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in [("type", "Battery"), ("status", status), ("capacity", "55")] {
            fs::write(folder.join(name), format!("{text}\n")).unwrap();
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// UPower 0.99 and later.
struct UPower {
    on_battery: bool,
}

#[zbus::interface(name = "org.freedesktop.UPower")]
impl UPower {
    #[zbus(property)]
    fn on_battery(&self) -> bool {
        self.on_battery
    }
}

struct Display;

#[zbus::interface(name = "org.freedesktop.UPower.Device")]
impl Display {
    #[zbus(property)]
    fn is_present(&self) -> bool {
        true
    }
    #[zbus(property)]
    fn percentage(&self) -> f64 {
        62.6
    }
}

const UPOWER: &str = "/org/freedesktop/UPower";

async fn upower(bus: &Bus, on_battery: bool) -> Connection {
    let made = bus.connection().serve_at(UPOWER, UPower { on_battery }).unwrap();
    let made = made.serve_at("/org/freedesktop/UPower/devices/DisplayDevice", Display).unwrap();
    made.name("org.freedesktop.UPower").unwrap().build().await.unwrap()
}

#[tokio::test]
async fn the_supply_is_told_by_upower_and_read_where_there_is_none() {
    let bus = Bus::start();
    bus.battery("Discharging");
    let watch = bus.watch();
    until(&watch, |it| it.supply == Some(Supply::Battery { percent: Some(55) })).await;
    assert!(
        says(&watch, "power supply").await.contains("own gauge"),
        "{}",
        says(&watch, "power supply").await
    );

    let daemon = upower(&bus, false).await;
    until(&watch, |it| it.supply == Some(Supply::Mains)).await;
    assert_eq!(says(&watch, "power supply").await, "UPower: on the mains");
    let upower = daemon.object_server().interface::<_, UPower>(UPOWER).await.unwrap();
    upower.get_mut().await.on_battery = true;
    upower.get().await.on_battery_changed(upower.signal_emitter()).await.unwrap();
    until(&watch, |it| it.supply == Some(Supply::Battery { percent: Some(63) })).await;

    drop((upower, daemon));
    until(&watch, |it| it.supply == Some(Supply::Battery { percent: Some(55) })).await;
}

#[tokio::test]
async fn a_battery_that_nobody_tells_of_is_read_again_when_somebody_depends_on_it() {
    let bus = Bus::start();
    bus.battery("Charging");
    let watch = bus.watch();
    until(&watch, |it| it.supply == Some(Supply::Mains)).await;
    bus.battery("Discharging");
    watch.attend(true);
    until(&watch, |it| matches!(it.supply, Some(Supply::Battery { .. }))).await;
}

#[tokio::test]
async fn a_machine_without_a_battery_is_on_the_mains() {
    let bus = Bus::start();
    let watch = bus.watch();
    until(&watch, |it| it.supply == Some(Supply::Mains)).await;
    assert_eq!(says(&watch, "power supply").await, "the machine has no battery");
}

struct NetworkManager(u32);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl NetworkManager {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.0
    }
}

#[tokio::test]
async fn a_metered_connection_is_told_also_when_it_is_guessed() {
    let bus = Bus::start();
    let watch = bus.watch();
    until(&watch, |it| it.supply.is_some()).await;
    assert_eq!(watch.states().borrow().metered, None);
    let path = "/org/freedesktop/NetworkManager";
    let made = bus.connection().serve_at(path, NetworkManager(1)).unwrap();
    let daemon = made.name("org.freedesktop.NetworkManager").unwrap().build().await.unwrap();
    let manager = daemon.object_server().interface::<_, NetworkManager>(path).await.unwrap();
    for (says, means) in [(1, Some(true)), (4, Some(false)), (3, Some(true)), (2, Some(false)), (0, None)] {
        manager.get_mut().await.0 = says;
        manager.get().await.metered_changed(manager.signal_emitter()).await.unwrap();
        until(&watch, |it| it.metered == means).await;
    }
}

/// logind as of systemd 252: it tells of sleep, and of nothing else.
#[derive(Clone, Default)]
struct Logind(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lid_closed: bool,
    docked: bool,
    refuses: bool,
    /// What was asked for, and the end that says whether it is still held.
    inhibitors: Vec<(String, String, PipeReader)>,
}

const LOGIN: &str = "/org/freedesktop/login1";

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Logind {
    fn inhibit(&self, what: String, who: &str, why: &str, mode: String) -> fdo::Result<OwnedFd> {
        assert!(!why.is_empty() && who == "Idlewatt");
        let mut state = self.0.lock().unwrap();
        if state.refuses && mode == "block" {
            return Err(fdo::Error::AccessDenied("Interactive authentication required.".to_owned()));
        }
        let (held, given) = std::io::pipe().unwrap();
        state.inhibitors.push((what, mode, held));
        Ok(std::os::fd::OwnedFd::from(given).into())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn lid_closed(&self) -> bool {
        self.0.lock().unwrap().lid_closed
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn docked(&self) -> bool {
        self.0.lock().unwrap().docked
    }

    #[zbus(signal)]
    async fn prepare_for_sleep(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

impl Logind {
    async fn serve(&self, bus: &Bus) -> Connection {
        let made = bus.connection().serve_at(LOGIN, self.clone()).unwrap();
        made.name("org.freedesktop.login1").unwrap().build().await.unwrap()
    }

    /// Waits until somebody holds this kind of inhibitor; gives the end that tells of its release.
    async fn held(&self, mode: &str) -> (String, PipeReader) {
        let find = || {
            let inhibitors = &mut self.0.lock().unwrap().inhibitors;
            let at = inhibitors.iter().position(|it| it.1 == mode)?;
            let (what, _, held) = inhibitors.remove(at);
            Some((what, held))
        };
        tokio::time::timeout(PATIENCE, async {
            loop {
                match find() {
                    Some(found) => return found,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await
        .expect("nobody asked to hold it")
    }
}

/// Waits until an inhibitor is let go.
async fn released(mut held: PipeReader) {
    let gone = tokio::task::spawn_blocking(move || held.read(&mut [0]));
    assert_eq!(tokio::time::timeout(PATIENCE, gone).await.expect("it is still held").unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_lid_counts_as_closed_only_without_another_screen() {
    let bus = Bus::start();
    bus.battery("Full");
    let logind = Logind::default();
    let _daemon = logind.serve(&bus).await;
    let watch = bus.watch();
    until(&watch, |it| it.lid_closed == Some(false)).await;
    logind.0.lock().unwrap().lid_closed = true;
    // This logind tells nothing of it; UPower does, whose own figures are not asked for.
    let upower = upower(&bus, false).await;
    until(&watch, |it| it.lid_closed == Some(true)).await;
    logind.0.lock().unwrap().docked = true;
    watch.attend(true);
    drop(upower);
    until(&watch, |it| it.lid_closed == Some(false)).await;
    assert_eq!(says(&watch, "lid").await, "logind: closed, and another screen is used");
}

#[tokio::test]
async fn the_machine_is_kept_awake_only_for_as_long_as_it_is_wanted() {
    let bus = Bus::start();
    let logind = Logind::default();
    let _daemon = logind.serve(&bus).await;
    let watch = bus.watch();
    until(&watch, |it| it.lid_closed.is_some()).await;
    assert_eq!(*watch.awake().borrow(), KeepAwake::Released);

    watch.keep_awake(true);
    until_awake(&watch, |it| *it == KeepAwake::Held).await;
    let (what, held) = logind.held("block").await;
    assert_eq!(what, "sleep:idle");
    watch.keep_awake(false);
    released(held).await;
    assert_eq!(*watch.awake().borrow(), KeepAwake::Released);

    watch.keep_awake(true);
    let (_, held) = logind.held("block").await;
    drop(watch);
    released(held).await;
}

#[tokio::test]
async fn a_system_that_refuses_to_stay_awake_is_quoted() {
    let bus = Bus::start();
    let logind = Logind::default();
    logind.0.lock().unwrap().refuses = true;
    let watch = bus.watch();
    until(&watch, |it| it.supply.is_some()).await;
    watch.keep_awake(true);
    until_awake(&watch, |it| matches!(it, KeepAwake::Refused { .. })).await;
    let _daemon = logind.serve(&bus).await;
    let quoted =
        |it: &KeepAwake| matches!(it, KeepAwake::Refused { why } if why.contains("authentication required"));
    until_awake(&watch, quoted).await;
    logind.0.lock().unwrap().refuses = false;
    watch.keep_awake(false);
    until_awake(&watch, |it| *it == KeepAwake::Released).await;
    watch.keep_awake(true);
    until_awake(&watch, |it| *it == KeepAwake::Held).await;
}

#[tokio::test]
async fn sleep_waits_until_everything_is_handed_back_each_time() {
    let bus = Bus::start();
    let logind = Logind::default();
    let daemon = logind.serve(&bus).await;
    let emitter = SignalEmitter::new(&daemon, LOGIN).unwrap();
    let watch = bus.watch();
    let mut jumps = watch.jumps();
    for _ in 0..3 {
        let (what, held) = logind.held("delay").await;
        assert_eq!(what, "sleep");
        // Nobody goes to sleep yet: this must not let go of it.
        watch.let_sleep();
        Logind::prepare_for_sleep(&emitter, true).await.unwrap();
        until(&watch, |it| it.going_to_sleep).await;
        let mut poll = [rustix::event::PollFd::new(&held, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut poll, Some(&now)).unwrap(), 0, "let go before it was told");
        watch.let_sleep();
        released(held).await;
        Logind::prepare_for_sleep(&emitter, false).await.unwrap();
        until(&watch, |it| !it.going_to_sleep).await;
        tokio::time::timeout(PATIENCE, jumps.changed()).await.expect("it woke").unwrap();
    }
}

#[tokio::test]
async fn what_nobody_tells_is_not_known_and_said() {
    let bus = Bus::start();
    let watch = bus.watch();
    until(&watch, |it| it.supply.is_some()).await;
    let state = *watch.states().borrow();
    assert_eq!(state, MachineState { supply: Some(Supply::Mains), ..MachineState::default() });
    for subject in ["lid", "sleep", "connection", "memory"] {
        assert!(says(&watch, subject).await.starts_with("Not seen: "), "{subject}");
    }
}

#[tokio::test]
async fn memory_pressure_is_read_where_no_trigger_can_be_set() {
    let bus = Bus::start();
    let tell = |percent: &str| {
        let folder = bus.folder.path().join("pressure");
        fs::create_dir_all(&folder).unwrap();
        let text = format!("some avg10={percent} avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n");
        fs::write(folder.join("memory"), text).unwrap();
    };
    tell("24.99");
    let watch = bus.watch();
    until(&watch, |it| it.memory_short == Some(false)).await;
    tell("25.00");
    watch.attend(true);
    until(&watch, |it| it.memory_short == Some(true)).await;
}

#[tokio::test]
async fn this_kernel_tells_of_memory_and_clocks() {
    let bus = Bus::start();
    if !Path::new("/proc/pressure/memory").exists() {
        eprintln!("this kernel counts no memory pressure: nothing to see");
        return;
    }
    let watch = watch(Options { proc: "/proc".into(), ..bus.options() });
    until(&watch, |it| it.memory_short.is_some()).await;
    assert!(says(&watch, "memory").await.starts_with("the kernel"), "{}", says(&watch, "memory").await);
    assert!(says(&watch, "clocks").await.starts_with("the kernel tells"), "{}", says(&watch, "clocks").await);
}
