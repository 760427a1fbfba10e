//! The command itself: started as if nobody watched, signals passed on, its end told as a shell tells it.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;

use crate::exit::{Exit, Failure};

/// Runs a command to its end; its exit code, or 128 and the number of the signal that ended it.
///
/// # Errors
/// When it cannot be started.
pub(super) async fn run(command: &[OsString], to_stderr: bool) -> Result<u8, Failure> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(not_started(&OsString::new(), &io::ErrorKind::NotFound.into()));
    };
    let mut signals = system::Signals::listen().map_err(|error| not_started(program, &error))?;
    let mut command = Command::new(program);
    command.args(arguments);
    if to_stderr {
        command.stdout(Stdio::from(io::stderr()));
    }
    let mut child = command.spawn().map_err(|error| not_started(program, &error))?;
    loop {
        tokio::select! {
            ended = child.wait() => {
                return ended.map(code).map_err(|error| not_started(program, &error));
            }
            signal = signals.next() => system::pass_on(signal, child.id()),
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    #[cfg(unix)]
    let by_signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
    #[cfg(not(unix))]
    let by_signal: Option<i32> = None;
    // Windows has codes of 32 bits; whatever does not fit stays a failure.
    status.code().or(by_signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn not_started(program: &OsString, error: &io::Error) -> Failure {
    let name = program.to_string_lossy();
    let (exit, what, action) = match error.kind() {
        io::ErrorKind::NotFound => (
            Exit::CommandNotFound,
            format!("There is no program {name}."),
            "Check its name; a shell's own words (`cd`, `&&`, `|`) need `sh -c \'…\'`.",
        ),
        io::ErrorKind::PermissionDenied => (
            Exit::CommandNotExecutable,
            format!("{name} may not be run."),
            "Make it executable (`chmod +x`), or name its interpreter.",
        ),
        _ => (
            Exit::CommandNotExecutable,
            format!("{name} cannot be run: {error}."),
            "Run it without `measure` to see more.",
        ),
    };
    Failure::new(exit, what, "Nothing was measured.", action)
}

#[cfg(unix)]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;

    use rustix::process::{Pid, Signal, getpgrp, kill_process};
    use rustix::termios::tcgetpgrp;
    use tokio::signal::unix::{self, SignalKind};

    /// Signals that end or steer a command. While they are listened to they end this process no more.
    pub(super) struct Signals {
        terminate: unix::Signal,
        hang_up: unix::Signal,
        interrupt: unix::Signal,
        quit: unix::Signal,
        first: unix::Signal,
        second: unix::Signal,
    }

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self {
                terminate: unix::signal(SignalKind::terminate())?,
                hang_up: unix::signal(SignalKind::hangup())?,
                interrupt: unix::signal(SignalKind::interrupt())?,
                quit: unix::signal(SignalKind::quit())?,
                first: unix::signal(SignalKind::user_defined1())?,
                second: unix::signal(SignalKind::user_defined2())?,
            })
        }

        pub(super) async fn next(&mut self) -> Signal {
            tokio::select! {
                _ = self.terminate.recv() => Signal::TERM,
                _ = self.hang_up.recv() => Signal::HUP,
                _ = self.interrupt.recv() => Signal::INT,
                _ = self.quit.recv() => Signal::QUIT,
                _ = self.first.recv() => Signal::USR1,
                _ = self.second.recv() => Signal::USR2,
            }
        }
    }

    pub(super) fn pass_on(signal: Signal, child: Option<u32>) {
        let by_keyboard = matches!(signal, Signal::INT | Signal::QUIT) && in_foreground();
        let child = child.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(child) = child.filter(|_| !by_keyboard) {
            // It may have ended this moment; then there is nothing to tell.
            let _ = kill_process(child, signal);
        }
    }

    /// Whether a terminal sends Ctrl-C to this process's group, and so to the command too: passed on, it would come
    /// twice, and many programs take a second one for impatience.
    fn in_foreground() -> bool {
        File::open("/dev/tty").is_ok_and(|tty| tcgetpgrp(tty.as_fd()).is_ok_and(|group| group == getpgrp()))
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    pub(super) struct Signals;

    impl Signals {
        #[expect(clippy::unnecessary_wraps, reason = "the same shape on every platform")]
        pub(super) fn listen() -> io::Result<Self> {
            Ok(Self)
        }

        /// The console sends Ctrl-C to the command too; this process only has to outlive it.
        pub(super) async fn next(&mut self) {
            drop(tokio::signal::ctrl_c().await);
        }
    }

    pub(super) fn pass_on((): (), _child: Option<u32>) {}
}
