//! What the tests share: servers of their own, and waiting for what is told.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use idlewatt_core::presence::{Activity, PresenceReading};
use idlewatt_presence::{Options, Source, Surroundings, Watch};

/// Ten times what any of these should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const QUIET: Duration = Duration::from_millis(400);

pub(crate) fn options(surroundings: Surroundings) -> Options {
    Options { quiet: QUIET, surroundings }
}

pub(crate) async fn until(watch: &Watch, wanted: impl Fn(&PresenceReading) -> bool) -> PresenceReading {
    let mut readings = watch.readings();
    *tokio::time::timeout(PATIENCE, readings.wait_for(|reading| wanted(reading)))
        .await
        .unwrap_or_else(|_| panic!("not seen; instead {:?}", watch.sight()))
        .unwrap()
}

pub(crate) fn active(reading: &PresenceReading) -> bool {
    matches!(reading, PresenceReading::Active { .. })
}

pub(crate) fn idle(reading: &PresenceReading) -> bool {
    matches!(reading, PresenceReading::Idle { .. })
}

pub(crate) async fn until_activity(watch: &Watch, wanted: impl Fn(&Activity) -> bool) -> Activity {
    let mut activity = watch.activity();
    tokio::time::timeout(PATIENCE, activity.wait_for(|activity| wanted(activity)))
        .await
        .unwrap_or_else(|_| {
            panic!("not seen; instead {:?}, {:?}", watch.activity().borrow(), watch.sources())
        })
        .unwrap()
        .clone()
}

pub(crate) fn names(apps: &[idlewatt_core::presence::App]) -> Vec<&str> {
    apps.iter().map(|app| app.name.as_str()).collect()
}

pub(crate) async fn until_source(watch: &Watch, part: &str) {
    let begun = Instant::now();
    // The sight has no channel of its own: what it says follows the reading by nothing but this thread's turn.
    while !watch.sight().source.contains(part) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", watch.sight());
        tokio::task::yield_now().await;
    }
}

/// Delays between an input and the moment the watch told of it.
pub(crate) struct Delays {
    what: &'static str,
    all: Vec<Duration>,
}

impl Delays {
    /// How many to measure: as many as are claimed, or a few in everyday tests.
    pub(crate) fn inputs() -> usize {
        if strict() { 200 } else { 10 }
    }

    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, all: Vec::new() }
    }

    pub(crate) fn add(&mut self, delay: Duration) {
        self.all.push(delay);
        self.all.sort_unstable();
    }

    /// The delay that `percent` of all stay within.
    fn percentile(&self, percent: usize) -> Duration {
        self.all[(self.all.len() * percent).div_ceil(100) - 1]
    }

    /// The claim, which in everyday tests is ten times as long: a busy machine should not lie.
    #[expect(clippy::print_stdout, reason = "the claim shows its figure")]
    pub(crate) fn hold(&self, claimed: Duration) {
        println!("{self}");
        let bound = if strict() { claimed } else { claimed * 10 };
        assert!(self.percentile(99) <= bound, "{self}");
    }
}

impl std::fmt::Display for Delays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        let (what, count) = (self.what, self.all.len());
        let (p50, p99, worst) = (millis(50), millis(99), millis(100));
        write!(f, "{what}, {count} times: median {p50:.2} ms, p99 {p99:.2} ms, worst {worst:.2} ms")
    }
}

fn strict() -> bool {
    std::env::var_os("IDLEWATT_STRICT").is_some()
}

/// Waits until the source of this name says `part`.
pub(crate) async fn until_says(watch: &Watch, name: &str, part: &str) -> Source {
    let begun = Instant::now();
    loop {
        let found = watch.sources().into_iter().find(|it| it.name == name && it.says.contains(part));
        match found {
            Some(found) => return found,
            None => assert!(begun.elapsed() < PATIENCE, "{:?}", watch.sources()),
        }
        tokio::task::yield_now().await;
    }
}

/// A real X server on a display of its own choosing; ends with the test.
pub(crate) struct Xvfb {
    process: Child,
    pub(crate) display: String,
}

impl Xvfb {
    /// `display` of an earlier server, or any free one.
    pub(crate) fn start(display: Option<&str>) -> Self {
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

    pub(crate) fn surroundings(&self) -> Surroundings {
        Surroundings { display: Some(self.display.clone()), ..Surroundings::default() }
    }

    /// A hand on the mouse and one on the keyboard.
    pub(crate) fn touch(&self) {
        self.xdotool(&["mousemove_relative", "1", "1", "key", "shift"]);
    }

    /// One single input.
    pub(crate) fn nudge(&self) {
        self.xdotool(&["mousemove_relative", "1", "1"]);
    }

    pub(crate) fn xdotool(&self, does: &[&str]) {
        let done = Command::new("xdotool").args(does).env("DISPLAY", &self.display).status();
        assert!(done.expect("xdotool runs").success());
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A process that ends with the test, however that ends.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Something that runs under this name.
    pub(crate) fn sleep_as(file: &std::path::Path) -> Self {
        std::fs::copy("/bin/sleep", file).unwrap();
        let mut sleep = Command::new(file);
        sleep.arg("600").stdout(Stdio::null()).stderr(Stdio::null());
        loop {
            match sleep.spawn() {
                Ok(process) => return Self(process),
                // Another test's child, forked while the copy was being written, has it open until it is itself.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now()
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A D-Bus daemon of the test's own.
pub(crate) struct Bus {
    process: Child,
    pub(crate) address: String,
}

impl Bus {
    pub(crate) fn start() -> Self {
        let mut process = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon runs");
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { process, address: address.trim().to_owned() }
    }

    pub(crate) fn connection(&self) -> zbus::connection::Builder<'_> {
        zbus::connection::Builder::address(self.address.as_str()).unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
