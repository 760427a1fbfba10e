//! One child process: what it printed, and its certain end.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// A running program. Dropping it kills it and every process it started.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    log: PathBuf,
}

impl Process {
    /// Starts it, with its stderr in a file.
    pub fn spawn(name: &str, command: &mut Command, log: &Path) -> Self {
        let stderr = std::fs::File::options().create(true).append(true).open(log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        end_with_test(command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let stdout = child.stdout.take().expect("a pipe");
        let lines: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let seen = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                seen.0.lock().expect("lines").push(line);
                seen.1.notify_all();
            }
        });
        Self { name: name.to_owned(), child, lines, log: log.to_path_buf() }
    }

    /// What follows `prefix` on the first line that starts with it, as soon as there is one.
    pub fn line(&mut self, prefix: &str, bound: Duration) -> String {
        let deadline = Instant::now() + bound;
        loop {
            {
                let lines = self.lines.0.lock().expect("lines");
                if let Some(rest) = lines.iter().find_map(|line| line.strip_prefix(prefix)) {
                    return rest.to_owned();
                }
                drop(self.lines.1.wait_timeout(lines, Duration::from_millis(50)).expect("lines"));
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("{} ended with {status} before it printed {prefix:?}:\n{}", self.name, self.log());
            }
            assert!(Instant::now() < deadline, "{} did not print {prefix:?} within {bound:?}", self.name);
        }
    }

    /// How often it printed this line.
    #[must_use]
    pub fn printed(&self, line: &str) -> usize {
        self.lines.0.lock().expect("lines").iter().filter(|it| *it == line).count()
    }

    /// Everything it wrote to stderr.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, of it and all that it started.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        drop(self.child.wait());
    }

    /// Sends it a signal, to it alone.
    pub fn tell(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: a signal to a child that has not been waited for.
        #[expect(unsafe_code, reason = "the standard library sends SIGKILL only")]
        unsafe {
            libc::kill(pid, signal);
        }
    }

    /// SIGTERM, then its exit code.
    pub fn end(&mut self, bound: Duration) -> Option<i32> {
        self.tell(libc::SIGTERM);
        self.wait(bound).code()
    }

    /// Waits for its end: its exit code, or 128 and the signal that ended it; and how long that took.
    pub fn ended(&mut self, bound: Duration) -> (i32, Duration) {
        let begun = Instant::now();
        let status = self.wait(bound);
        let code = status.code().or_else(|| Some(128 + status.signal()?));
        (code.expect("a code or a signal"), begun.elapsed())
    }

    fn wait(&mut self, bound: Duration) -> ExitStatus {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end within {bound:?}", self.name);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// To its whole group.
    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: the group was made for this child and holds nothing else.
        #[expect(unsafe_code, reason = "the standard library signals no groups")]
        unsafe {
            libc::kill(-pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(25).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            eprint_log(&self.name, &tail.join("\n"));
        }
        self.kill();
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its programs said")]
fn eprint_log(name: &str, tail: &str) {
    eprintln!("--- end of {name}'s log\n{tail}\n---");
}

/// A child leads a group of its own, and ends when the thread that started it does: a killed test leaves nothing.
fn end_with_test(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "there is no safe way to ask for a signal at the parent's death")]
    // SAFETY: `prctl` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

/// A command that ran to its end.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it said to a person.
    pub stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        Self::told(command, "")
    }

    /// The same, with a text at its standard input.
    pub fn told(command: &mut Command, input: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        // One that reads nothing may be gone already.
        drop(child.stdin.take().expect("a pipe").write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("the command ends");
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed, as JSON; it must have succeeded.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

/// A built program: in `IDLEWATT_BIN`, or beside this test's own folder.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("IDLEWATT_BIN").map_or_else(
        || {
            let test = std::env::current_exe().expect("this test's path");
            test.parent().and_then(Path::parent).expect("target/PROFILE/deps/TEST").to_path_buf()
        },
        PathBuf::from,
    );
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: cargo build -p idlewatt -p idlewatt-hub", path.display());
    path
}
