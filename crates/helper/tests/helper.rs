//! The helper as a process: its four verbs, who owns a card, and what is left when somebody is killed.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use idlewatt_devices::Places;
use idlewatt_devices::cap::wire::{Answer, Card, Greeting, Request};
use idlewatt_devices::cap::{CapError, CapPlaces, Caps, Way};
use idlewatt_protocol::Milliwatts;
use idlewatt_simnvml::rig::{RIGHT, Rig};
use serde_json::{Value, json};
use tempfile::TempDir;

const CARD: &str = "GPU-a";
const OWN: u64 = 350_000;

/// `RestartSec` of the unit.
const RESTART: Duration = Duration::from_millis(100);

/// As claimed under `IDLEWATT_STRICT`, ten times as long otherwise.
fn bound() -> Duration {
    let claimed = Duration::from_secs(5);
    if std::env::var_os("IDLEWATT_STRICT").is_some() { claimed } else { claimed * 10 }
}

fn watts(watts: i64) -> Milliwatts {
    Milliwatts(watts * 1000)
}

/// Two simulated cards at 350 W, and a folder for a helper.
struct Machine {
    folder: TempDir,
    cards: Rig,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cards = Rig::new(folder.path(), &control(&json!({}))).unwrap();
        Self { folder, cards }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idlewatt-helper"));
        command
            .arg("--socket")
            .arg(self.path("helper.sock"))
            .arg("--state")
            .arg(self.path("state"))
            .arg("--nvml")
            .arg(self.cards.library())
            .arg("--sysfs")
            .arg(self.path("sys"))
            .env(RIGHT, "1")
            .stderr(fs::File::options().create(true).append(true).open(self.path("log")).unwrap());
        command
    }

    fn helper(&self) -> Process {
        let helper = Process::of(&mut self.command());
        self.until_listening();
        helper
    }

    fn until_listening(&self) {
        until("the helper listens", || UnixStream::connect(self.path("helper.sock")).ok());
    }

    fn connect(&self) -> Client {
        Client::new(UnixStream::connect(self.path("helper.sock")).unwrap())
    }

    fn limit(&self) -> u64 {
        self.cards.limit_mw(CARD).unwrap_or(OWN)
    }

    /// How long until the card has its own limit.
    fn until_own(&self, since: Instant) -> Duration {
        until("the card's own limit is back", || (self.limit() == OWN).then_some(()));
        let took = since.elapsed();
        assert!(took < bound(), "{took:?}");
        took
    }

    fn places(&self) -> CapPlaces {
        let cards = Places { nvml: Some(self.cards.library()), sysfs: self.path("sys"), ..Places::default() };
        CapPlaces { cards, helper: Some(self.path("helper.sock")), state: self.path("engine") }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }
}

fn control(more: &Value) -> Value {
    let card = |uuid: &str| {
        let mut card =
            json!({"uuid": uuid, "limit_w": 350, "default_limit_w": 450, "limit_range_w": [100, 600]});
        card.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        card
    };
    json!({"cards": [card(CARD), card("GPU-b")]})
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < bound(), "not within {:?}: {what}", bound());
        thread::sleep(Duration::from_millis(2));
    }
}

/// A child that ends with its test.
struct Process(Child);

impl Process {
    fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// `kill -9`
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    fn terminate(&mut self) -> ExitStatus {
        let pid = i32::try_from(self.0.id()).unwrap();
        // SAFETY: a plain system call on a child that is still ours.
        #[expect(unsafe_code, reason = "the standard library sends SIGKILL only")]
        let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
        assert_eq!(sent, 0);
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What systemd does with `Restart=always`.
struct Supervisor {
    current: Arc<Mutex<Process>>,
    stop: Arc<AtomicBool>,
    watch: Option<JoinHandle<()>>,
}

impl Supervisor {
    fn of(machine: &Machine) -> Self {
        let (mut command, stop) = (machine.command(), Arc::new(AtomicBool::new(false)));
        let current = Arc::new(Mutex::new(Process::of(&mut command)));
        let (watched, stopped) = (Arc::clone(&current), Arc::clone(&stop));
        let watch = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if watched.lock().unwrap().0.try_wait().unwrap().is_some() {
                    thread::sleep(RESTART);
                    *watched.lock().unwrap() = Process::of(&mut command);
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        machine.until_listening();
        Self { current, stop, watch: Some(watch) }
    }

    /// `kill -9`, and when.
    fn kill_helper(&self) -> Instant {
        self.current.lock().unwrap().0.kill().unwrap();
        Instant::now()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.watch.take().map(JoinHandle::join));
    }
}

/// A client that speaks the lines itself.
struct Client(BufReader<UnixStream>);

impl Client {
    fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(bound())).unwrap();
        let mut client = Self(BufReader::new(stream));
        let greeting: Greeting = serde_json::from_str(&client.line()).unwrap();
        assert_eq!(greeting.version, 1);
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn answer(&mut self) -> Answer {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn ask(&mut self, request: &Request) -> Answer {
        self.send(format!("{}\n", serde_json::to_string(request).unwrap()).as_bytes());
        self.answer()
    }

    fn set(&mut self, limit: i64) -> Answer {
        self.ask(&Request::Set { gpu: CARD.into(), limit_mw: watts(limit) })
    }

    fn get(&mut self) -> Card {
        match self.ask(&Request::Get { gpu: CARD.into() }) {
            Answer::Card(card) => card,
            other => panic!("{other:?}"),
        }
    }
}

const CHILD: &str = "IDLEWATT_HELPER_TEST_CLIENT";

/// An engine that holds a card at 200 W until it is killed: this program again, as a process of its own.
#[test]
#[ignore = "the child of tests that kill it"]
fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let cards = Places {
        nvml: Some(folder.join("libnvidia-ml.so.1")),
        sysfs: folder.join("sys"),
        ..Places::default()
    };
    let places = CapPlaces { cards, helper: Some(folder.join("helper.sock")), state: folder.join("engine") };
    let mut caps = Caps::new(&places);
    assert_eq!(caps.set(CARD, watts(200)), Ok(watts(200)));
    println!("\nset");
    loop {
        thread::park();
    }
}

fn engine(machine: &Machine) -> Process {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, machine.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let set = lines.by_ref().any(|line| line.unwrap() == "set");
    assert!(set, "the child set nothing: {}", machine.log());
    assert_eq!(machine.limit(), 200_000);
    Process(child)
}

#[test]
fn a_killed_client_leaves_the_card_at_its_own_limit() {
    let machine = Machine::new();
    let _helper = machine.helper();
    let mut engine = engine(&machine);
    let since = Instant::now();
    engine.kill();
    println!("client killed: own limit back after {:.1?}", machine.until_own(since));
}

#[test]
fn a_killed_helper_leaves_the_card_at_its_own_limit() {
    let machine = Machine::new();
    let supervisor = Supervisor::of(&machine);
    let _engine = engine(&machine);
    let since = supervisor.kill_helper();
    println!("helper killed: own limit back after {:.1?}", machine.until_own(since));
}

#[test]
fn a_client_killed_with_its_helper_leaves_the_card_at_its_own_limit() {
    let machine = Machine::new();
    let supervisor = Supervisor::of(&machine);
    let mut engine = engine(&machine);
    let since = supervisor.kill_helper();
    engine.kill();
    println!("both killed: own limit back after {:.1?}", machine.until_own(since));
}

#[test]
fn the_four_verbs_do_what_they_say() {
    let machine = Machine::new();
    let _helper = machine.helper();
    let mut client = machine.connect();
    let Answer::Cards(cards) = client.ask(&Request::List {}) else { panic!("no list") };
    assert_eq!(cards.iter().map(|it| it.limit.id.as_str()).collect::<Vec<_>>(), [CARD, "GPU-b"]);
    assert_eq!(client.set(280), Answer::Set(watts(280)));
    let card = client.get();
    assert_eq!((card.limit.limit_mw, card.original_mw), (Some(watts(280)), Some(watts(350))));
    assert_eq!((card.limit.min_mw, card.limit.max_mw), (Some(watts(100)), Some(watts(600))));
    assert_eq!(client.ask(&Request::Restore { gpu: Some(CARD.into()) }), Answer::Restored);
    assert_eq!((machine.limit(), client.get().original_mw), (OWN, None));
    client.set(280);
    assert_eq!(client.ask(&Request::Restore { gpu: None }), Answer::Restored);
    assert_eq!(machine.limit(), OWN);
}

#[test]
fn a_card_has_one_owner_until_that_one_is_gone() {
    let machine = Machine::new();
    let _helper = machine.helper();
    let (mut first, mut second) = (machine.connect(), machine.connect());
    assert_eq!(first.set(280), Answer::Set(watts(280)));
    let Answer::Error(CapError::Taken { by }) = second.set(150) else { panic!("two owners") };
    assert!(by.contains(&format!("process {}", std::process::id())), "{by}");
    let restore = Request::Restore { gpu: Some(CARD.into()) };
    assert!(matches!(second.ask(&restore), Answer::Error(CapError::Taken { .. })));
    assert_eq!(second.ask(&Request::Restore { gpu: None }), Answer::Restored);
    assert_eq!((machine.limit(), second.get().holder), (280_000, Some(by)));
    assert_eq!(first.get().holder, None);
    drop(first);
    machine.until_own(Instant::now());
    assert_eq!(second.set(150), Answer::Set(watts(150)));
}

#[test]
fn a_line_that_is_no_request_ends_nothing() {
    let machine = Machine::new();
    let _helper = machine.helper();
    let mut client = machine.connect();
    client.set(280);
    let long = [b"{\"verb\":\"list\",\"".as_slice(), &vec![b'x'; 1 << 20], b"\":1}"].concat();
    let lines: [&[u8]; 12] = [
        b"",
        b"list",
        b"\xff\xfe\x00\x80",
        b"{}",
        b"[]",
        b"{\"verb\":\"reboot\"}",
        b"{\"verb\":\"list\",\"more\":1}",
        b"{\"verb\":\"set\",\"gpu\":\"GPU-a\"}",
        b"{\"verb\":\"set\",\"gpu\":\"GPU-a\",\"limit_mw\":1e3}",
        b"{\"verb\":\"set\",\"gpu\":\"GPU-a\",\"limit_mw\":9007199254740993}",
        b"{\"verb\":\"set\",\"gpu\":[\"GPU-a\"],\"limit_mw\":100000}",
        &long,
    ];
    for line in lines {
        client.send(&[line, b"\n"].concat());
        let answer = client.answer();
        assert!(matches!(answer, Answer::Error(CapError::BadRequest { .. })), "{answer:?}");
    }
    assert!(matches!(client.set(99), Answer::Error(CapError::OutOfRange { .. })));
    assert!(matches!(client.set(-1), Answer::Error(CapError::OutOfRange { .. })));
    let unknown = client.ask(&Request::Set { gpu: "GPU-?".into(), limit_mw: watts(200) });
    assert_eq!(unknown, Answer::Error(CapError::UnknownCard { gpu: "GPU-?".into() }));
    // What the client set before is still set.
    assert_eq!((machine.limit(), client.set(270)), (280_000, Answer::Set(watts(270))));
}

#[test]
fn a_helper_that_is_ended_gives_everything_back_first() {
    let machine = Machine::new();
    let mut helper = machine.helper();
    let mut client = machine.connect();
    client.set(280);
    assert_eq!(helper.terminate().code(), Some(0));
    assert_eq!((machine.limit(), machine.path("helper.sock").exists()), (OWN, false));
}

#[test]
fn what_a_killed_helper_left_can_be_given_back_by_hand() {
    let machine = Machine::new();
    let mut helper = machine.helper();
    machine.connect().set(280);
    let mut client = machine.connect();
    until("the first client's card is free", || matches!(client.set(280), Answer::Set(_)).then_some(()));
    // While a helper runs, what it keeps is its own.
    assert_eq!(machine.command().arg("restore").status().unwrap().code(), Some(1));
    helper.kill();
    assert_eq!(machine.limit(), 280_000);
    assert_eq!(machine.command().arg("restore").status().unwrap().code(), Some(0));
    assert_eq!(machine.limit(), OWN);
}

#[test]
fn a_card_that_is_lost_when_its_client_goes_gets_its_limit_when_it_is_back() {
    let machine = Machine::new();
    let _helper = machine.helper();
    let mut client = machine.connect();
    client.set(280);
    machine.cards.steer(&control(&json!({"lost": true}))).unwrap();
    drop(client);
    until("it was tried", || machine.log().contains("does not have its own limit yet").then_some(()));
    assert_eq!(machine.limit(), 280_000);
    machine.cards.steer(&control(&json!({}))).unwrap();
    machine.until_own(Instant::now());
}

#[test]
fn two_helpers_do_not_share_a_socket() {
    let machine = Machine::new();
    let _helper = machine.helper();
    assert_eq!(machine.command().status().unwrap().code(), Some(1));
    assert!(machine.log().contains("another helper"), "{}", machine.log());
    machine.connect();
}

#[test]
fn only_its_group_may_connect() {
    use std::os::unix::fs::PermissionsExt as _;
    let machine = Machine::new();
    let _helper = machine.helper();
    let rights = fs::metadata(machine.path("helper.sock")).unwrap().permissions();
    assert_eq!(rights.mode() & 0o777, 0o660);
    // Who connected is in the log, by the kernel's word.
    machine.connect().set(280);
    assert!(machine.log().contains(&format!("process {} of user", std::process::id())));
}

#[test]
fn clients_past_the_most_wait_for_one_to_leave() {
    let machine = Machine::new();
    let _helper = machine.helper();
    let mut clients: Vec<_> = (0..15).map(|_| machine.connect()).collect();
    clients.push(machine.connect());
    let waiting = UnixStream::connect(machine.path("helper.sock")).unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(BufReader::new(&waiting).read_line(&mut String::new()).is_err(), "a seventeenth was served");
    clients.pop();
    assert!(matches!(Client::new(waiting).set(280), Answer::Set(_)));
}

#[test]
fn the_supervisor_is_told_of_readiness_and_life() {
    let machine = Machine::new();
    let supervisor = UnixDatagram::bind(machine.path("notify")).unwrap();
    supervisor.set_read_timeout(Some(bound())).unwrap();
    let mut command = machine.command();
    command.env("NOTIFY_SOCKET", machine.path("notify")).env("WATCHDOG_USEC", "300000");
    let _helper = Process::of(&mut command);
    for expected in ["READY=1", "WATCHDOG=1", "WATCHDOG=1"] {
        let mut told = [0; 32];
        let length = supervisor.recv(&mut told).unwrap();
        assert_eq!(std::str::from_utf8(&told[..length]), Ok(expected));
    }
}

#[test]
fn an_engine_without_the_right_sets_through_the_helper() {
    let machine = Machine::new();
    let mut helper = machine.helper();
    let mut caps = Caps::new(&machine.places());
    assert_eq!(caps.cards()[0].way, Ok(Way::Helper));
    assert_eq!(caps.set(CARD, watts(280)), Ok(watts(280)));
    assert_eq!(caps.set(CARD, watts(280)), Ok(watts(280)));
    // Its own limits are kept by the helper, not by the engine.
    assert!(machine.path("state/limits.json").exists() && !machine.path("engine").exists());
    helper.kill();
    assert!(matches!(caps.set(CARD, watts(280)), Err(CapError::HelperSilent { .. })));
    assert!(matches!(caps.cards()[0].way, Err(CapError::HelperSilent { .. })));
    assert!(matches!(&caps.keep()[..], [(card, CapError::HelperSilent { .. })] if card == CARD));
    let _helper = machine.helper();
    assert_eq!(machine.limit(), OWN);
    assert_eq!(caps.keep(), []);
    assert_eq!(machine.limit(), 280_000);
    machine.cards.steer(&control(&json!({"limit_w": 300}))).unwrap();
    until("the host's own tools set a limit", || {
        (machine.connect().get().limit.limit_mw == Some(watts(300))).then_some(())
    });
    assert_eq!(caps.keep(), []);
    assert_eq!(machine.limit(), 280_000);
    caps.restore(CARD).unwrap();
    assert_eq!(machine.limit(), OWN);
    caps.set(CARD, watts(280)).unwrap();
    drop(caps);
    assert_eq!(machine.limit(), OWN);
}

#[test]
fn a_helper_without_the_right_says_so() {
    let machine = Machine::new();
    let _helper = Process::of(machine.command().env_remove(RIGHT));
    machine.until_listening();
    assert_eq!(machine.connect().set(280), Answer::Error(CapError::NoPermission));
    assert!(!machine.path("state/limits.json").exists());
}

#[test]
fn a_record_of_a_newer_version_stops_setting_and_nothing_else() {
    let machine = Machine::new();
    fs::create_dir(machine.path("state")).unwrap();
    fs::write(machine.path("state/limits.json"), "{\"version\":2}").unwrap();
    let _helper = machine.helper();
    let mut client = machine.connect();
    assert_eq!(client.get().limit.limit_mw, Some(watts(350)));
    assert!(matches!(client.set(280), Answer::Error(CapError::NotSaved { .. })));
}

#[test]
fn a_helper_of_another_version_is_told_from_one_that_is_broken() {
    let machine = Machine::new();
    let listener = UnixListener::bind(machine.path("helper.sock")).unwrap();
    let greet = thread::spawn(move || {
        for greeting in ["{\"helper\":\"9.0.0\",\"version\":9}\n", "what?\n", ""] {
            listener.accept().unwrap().0.write_all(greeting.as_bytes()).unwrap();
        }
    });
    let mut caps = Caps::new(&machine.places());
    let mut problem = || match caps.set(CARD, watts(280)) {
        Err(CapError::HelperSilent { problem }) => problem,
        other => panic!("{other:?}"),
    };
    assert!(problem().contains("9.0.0"));
    assert!(problem().contains("expected value"));
    assert!(problem().contains("cut off"));
    greet.join().unwrap();
}
