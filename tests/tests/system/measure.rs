//! `idlewatt measure`: right joules, and a command that does not notice.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use idlewatt_tests::{Card, Draws, Process, Ran, node, python};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::money::Plug;

/// A home whose sensors are where it is told.
fn home(nvml: &Path, sysfs: &Path) -> TempDir {
    let home = tempfile::tempdir().expect("a folder");
    for (key, path) in [("devices.nvml", nvml), ("devices.sysfs", sysfs)] {
        let set = Ran::of(node::command(home.path()).args(["config", "set", key]).arg(path));
        assert_eq!(set.code, Some(0), "{set:?}");
    }
    home
}

/// A home without any sensor.
fn bare() -> TempDir {
    home(Path::new("/nonexistent/libnvidia-ml.so"), Path::new("/nonexistent/sys"))
}

fn measure(home: &TempDir, arguments: &[&str]) -> Command {
    let mut command = node::command(home.path());
    command.arg("measure").args(arguments);
    command
}

/// What `--json` printed.
fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {ran:?}"))
}

/// Spins until it used so much processor time; its process id is in a file from its start on.
const LOAD: &str = "import os, sys, time
open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); os.rename(sys.argv[1] + '.new', sys.argv[1])
while time.process_time() < float(sys.argv[2]): pass";

/// Reads a table as a spreadsheet would, and prints its first and last row's moment and its last energy.
const READ: &str = "import csv, datetime, json, sys
rows = list(csv.DictReader(open(sys.argv[1], newline='')))
columns = list(rows[0])
assert columns[:2] == ['time (UTC)', 'elapsed (s)'], columns
assert all(name.endswith((' power (W)', ' energy (J)')) for name in columns[2:]), columns
energy = [float(row[columns[3]]) for row in rows]
assert energy == sorted(energy), 'energy falls'
unix = lambda row: datetime.datetime.fromisoformat(row['time (UTC)'] + '+00:00').timestamp()
print(json.dumps({'rows': len(rows), 'from': unix(rows[0]), 'until': unix(rows[-1]), 'energy': energy[-1]}))";

/// Runs a command under `measure` beside a simulated card; the report, and the card's own record of the same time.
fn beside(card: &Card, home: &TempDir, command: &[&str], begun: impl FnOnce(&Card)) -> (Value, f64) {
    let table = home.path().join("table.csv");
    let out = table.display().to_string();
    let arguments = [&["--json", "--out", &out, "--"], command].concat();
    let ran = std::thread::scope(|scope| {
        let ran = scope.spawn(|| Ran::of(&mut measure(home, &arguments)));
        begun(card);
        ran.join().expect("measure")
    });
    let mut read = Command::new(python());
    let read = Ran::of(read.args(["-c", READ]).arg(&table)).json();
    let report = report(&ran);
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(read["from"].as_f64().expect("a time"));
    let until = read["until"].as_f64().expect("a time") - read["from"].as_f64().expect("a time");
    let truth = card.truth(since).iter().take_while(|(at, _)| *at <= until).last().map_or(0.0, |row| row.1);
    let energy = report["sensors"][0]["energy_mj"].as_f64().expect("energy") / 1e3;
    assert!((energy - read["energy"].as_f64().expect("energy")).abs() < 0.01, "{report} {read}");
    // Ten a second, of three seconds at least.
    assert!(read["rows"].as_u64() > Some(25), "{read}");
    (report, truth)
}

fn check(what: &str, report: &Value, truth: f64) {
    let sensor = &report["sensors"][0];
    let energy = sensor["energy_mj"].as_f64().expect("energy") / 1e3;
    let error = sensor["error_mj"].as_f64().expect("an error") / 1e3;
    let off = (energy - truth) / truth * 100.0;
    println!("{what}: {energy:.1} ± {error:.1} J measured, {truth:.1} J in truth ({off:+.2} %)");
    assert_eq!((sensor["label"].as_str(), sensor["scope"].as_str()), (Some("measured"), Some("board")));
    assert!((energy - truth).abs() <= error.max(truth * 0.01), "{report}");
    assert!(off.abs() <= 3.0, "{off} %");
}

#[test]
fn joules_of_idleness_and_of_a_real_load_are_the_cards_own() {
    let card = Card::start(Draws { resting: 40, working: 250 }, &json!({ "noise_mw": 3_000.0 }), false);
    let home = home(&card.library(), Path::new("/nonexistent/sys"));
    let (report, truth) = beside(&card, &home, &["sleep", "5"], |_| ());
    check("sleep 5", &report, truth);
    assert!((5.0..6.0).contains(&report["seconds"].as_f64().expect("seconds")), "{report}");

    let pid = home.path().join("pid");
    let (python, file) = (python().display().to_string(), pid.display().to_string());
    let (report, truth) = beside(&card, &home, &[&python, "-c", LOAD, &file, "3"], |card| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !pid.exists() {
            assert!(Instant::now() < deadline, "the load did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        card.follow(fs::read_to_string(&pid).expect("a file").parse().expect("a process id"));
    });
    check("3 s of processor time", &report, truth);
    assert!(report["sensors"][0]["peak_mw"].as_i64() > Some(230_000), "{report}");
}

#[test]
fn joules_by_a_processors_counter_are_right_across_its_wrap() {
    const RANGE: u64 = 20_000_000;
    let tree = tempfile::tempdir().expect("a folder");
    let package = tree.path().join("class/powercap/intel-rapl:0");
    fs::create_dir_all(&package).expect("a folder");
    fs::write(package.join("name"), "package-0\n").expect("a file");
    fs::write(package.join("max_energy_range_uj"), format!("{RANGE}\n")).expect("a file");
    let counter = fs::File::create(package.join("energy_uj")).expect("a file");
    // Of one length and in place: no reader meets half of a figure.
    let put = |count: u64| counter.write_all_at(format!("{count:012}\n").as_bytes(), 0).expect("a write");
    put(0);
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
    // 25 W: the counter wraps every 0.8 s.
    let count = || (u64::try_from(begun.elapsed().as_micros()).expect("a short test") * 25) % RANGE;
    let ran = std::thread::scope(|scope| {
        let stopped = Arc::clone(&stop);
        scope.spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                put(count());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let home = home(Path::new("/nonexistent/libnvidia-ml.so"), tree.path());
        let ran = Ran::of(&mut measure(&home, &["--json", "--", "sleep", "3"]));
        stop.store(true, Ordering::Relaxed);
        ran
    });
    let report = report(&ran);
    let (sensor, seconds) = (&report["sensors"][0], report["seconds"].as_f64().expect("seconds"));
    let energy = sensor["energy_mj"].as_f64().expect("energy") / 1e3;
    let (error, truth) = (sensor["error_mj"].as_f64().expect("an error") / 1e3, seconds * 25.0);
    println!("processor: {energy:.2} ± {error:.2} J measured, {truth:.2} J in truth");
    assert_eq!(sensor["scope"], "package");
    assert!((energy - truth).abs() <= error.min(truth * 0.05), "{report}");
}

#[test]
fn a_wall_plug_is_one_sensor_more_and_one_that_speaks_html_is_named() {
    let (home, plug) = (bare(), Plug::start());
    let address = format!("tasmota://{}", plug.address);
    assert_eq!(
        Ran::of(node::command(home.path()).args(["config", "set", "signals.plugs", &address])).code,
        Some(0)
    );
    plug.tells(r#"{"StatusSNS":{"ENERGY":{"Power":60}}}"#);
    let measured = report(&Ran::of(&mut measure(&home, &["--json", "--", "sleep", "3"])));
    let (sensor, seconds) = (&measured["sensors"][0], measured["seconds"].as_f64().expect("seconds"));
    let energy = sensor["energy_mj"].as_f64().expect("energy") / 1e3;
    println!("plug: {energy:.1} J measured, {:.1} J in truth", seconds * 60.0);
    assert_eq!(sensor["scope"], "wall");
    assert!((energy / (seconds * 60.0) - 1.0).abs() < 0.03, "{measured}");
    plug.tells("<html>Please log in</html>");
    let unseen = report(&Ran::of(&mut measure(&home, &["--json", "--", "true"])));
    assert!(unseen["sensors"] == json!([]) && unseen["missing"].to_string().contains("web page"), "{unseen}");
}

#[test]
fn without_a_sensor_it_says_so_and_the_command_runs_all_the_same() {
    let home = bare();
    let ran = Ran::of(&mut measure(&home, &["--json", "--", "sh", "-c", "echo said; exit 3"]));
    let report = report(&ran);
    assert_eq!((ran.code, &report["exit_code"], &report["sensors"]), (Some(3), &json!(3), &json!([])));
    let missing = report["missing"].to_string();
    assert!(missing.contains("NVIDIA") && missing.contains("rocessor"), "{missing}");
    // Only JSON is on stdout; what the command said is not lost.
    assert!(ran.stderr.contains("said"), "{ran:?}");
    let ran = Ran::of(&mut measure(&home, &["--", "echo", "said"]));
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "said\n"));
    assert!(ran.stderr.contains("No power sensor can be read here"), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_run_or_written_is_told_before_anything_runs() {
    let home = bare();
    let mark = home.path().join("ran");
    let touch = ["--out", "/nonexistent/table.csv", "--", "touch", &mark.display().to_string()];
    let ran = Ran::of(&mut measure(&home, &touch));
    assert_eq!((ran.code, mark.exists()), (Some(125), false), "{ran:?}");
    assert!(ran.stderr.contains("/nonexistent/table.csv cannot be written"), "{ran:?}");
    assert_eq!(Ran::of(&mut measure(&home, &["--", "/nonexistent/program"])).code, Some(127));
    assert_eq!(Ran::of(&mut measure(&home, &["--", "/etc/hostname"])).code, Some(126));
    assert_eq!(Ran::of(&mut measure(&home, &[])).code, Some(2));
}

#[test]
fn signals_are_the_commands_and_the_report_still_comes() {
    // A command that is told, and one that a signal ends.
    for (signal, name, told) in [
        (libc::SIGTERM, "TERM", true),
        (libc::SIGHUP, "HUP", true),
        (libc::SIGINT, "INT", true),
        (libc::SIGTERM, "TERM", false),
    ] {
        let home = bare();
        let log = home.path().join("log");
        let trap = if told { format!("trap 'exit 42' {name}; ") } else { String::new() };
        let script = format!("{trap}echo ready; while :; do sleep 0.05; done");
        let mut command = measure(&home, &["--", "sh", "-c", &script]);
        let mut process = Process::spawn("measure", &mut command, &log);
        process.line("ready", Duration::from_secs(20));
        process.tell(signal);
        let (code, _) = process.ended(Duration::from_secs(20));
        assert_eq!(code, if told { 42 } else { 128 + signal }, "{}", process.log());
        assert!(process.log().contains("idlewatt: "), "{}", process.log());
    }
}

/// A terminal in which Ctrl-C is pressed again and again once the command says `ready`.
const TERMINAL: &str = "import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
seen = b''
while b'ready' not in seen: seen += os.read(terminal, 1024)
for press in range(20): os.write(terminal, b'\\x03'); time.sleep(0.03)
try:
    while more := os.read(terminal, 1024): seen += more
except OSError: pass
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode())";

#[test]
fn ctrl_c_at_a_terminal_reaches_the_command_by_itself_and_the_report_still_comes() {
    let home = bare();
    // Ends with 42 once a process sends it what the keyboard sent already: the kernel says who sent a signal, and merges
    // two that wait, so one press would not show it for sure.
    let script = "import signal
keyboard = [signal.SIGINT]; signal.pthread_sigmask(signal.SIG_BLOCK, keyboard)
print('ready', flush=True); BY_A_PROCESS = 0
first = signal.sigwaitinfo(keyboard); codes = [first.si_code]
while told := signal.sigtimedwait(keyboard, 1.0): codes.append(told.si_code)
raise SystemExit(42 if BY_A_PROCESS in codes else 41)";
    let python = python();
    let mut terminal = Command::new(&python);
    let measure = measure(&home, &["--", &python.display().to_string(), "-c", script]);
    terminal.args(["-c", TERMINAL]).arg(measure.get_program()).args(measure.get_args());
    terminal.envs(measure.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::of(&mut terminal);
    assert!(ran.stdout.starts_with("41 "), "{ran:?}");
    assert!(ran.stdout.contains("exit code 41"), "{ran:?}");
}
