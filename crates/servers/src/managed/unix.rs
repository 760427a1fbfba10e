//! The process on Linux and macOS, in a process group of its own: what it starts ends with it, and a key pressed in the
//! engine's terminal reaches the engine alone, which hands requests back first.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;

use super::Log;

/// A child process, from its start to its reaping.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    /// `None` once it has ended: its number may be another's by then.
    alive: Mutex<Option<Pid>>,
}

impl Process {
    /// Starts it; the receiver turns true when it has ended.
    pub(super) fn start(
        mut command: Command,
        log: &Arc<Log>,
    ) -> io::Result<(Arc<Self>, watch::Receiver<bool>)> {
        let (ended, receiver) = watch::channel(false);
        let (sender, started) = std::sync::mpsc::channel();
        let log = Arc::clone(log);
        // One thread for the whole life of the child: Linux ends a child with the *thread* that made it.
        std::thread::Builder::new().name("llama-server".into()).spawn(move || {
            command.process_group(0);
            end_with_parent(&mut command);
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(sender.send(Err(error))),
            };
            #[cfg(not(target_os = "linux"))]
            let _guard = match guard::Guard::over(child.id()) {
                Ok(guard) => guard,
                Err(error) => {
                    // Better none than one that outlives its engine.
                    drop(child.kill());
                    drop(child.wait());
                    return drop(sender.send(Err(error)));
                }
            };
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let process = Arc::new(Self { pid: child.id(), alive: Mutex::new(pid) });
            drop(sender.send(Ok(Arc::clone(&process))));
            std::thread::scope(|scope| {
                let (out, err) = (child.stdout.take(), child.stderr.take());
                scope.spawn(|| out.map(|out| log.follow(out)));
                scope.spawn(|| err.map(|err| log.follow(err)));
                process.wait(&mut child, pid);
            });
            ended.send_replace(true);
        })?;
        let process = started.recv().map_err(io::Error::other)??;
        Ok((process, receiver))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn hold(&self) -> bool {
        self.signal(Signal::STOP)
    }

    pub(super) fn go_on(&self) -> bool {
        self.signal(Signal::CONT)
    }

    /// A stopped process is ended too.
    pub(super) fn end(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) -> bool {
        self.locked().is_some_and(|pid| kill_process_group(pid, signal).is_ok())
    }

    /// Waits for its end without reaping it, so that its number stays its own until nobody can signal it any more.
    fn wait(&self, child: &mut Child, pid: Option<Pid>) {
        if let Some(pid) = pid {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while waitid(WaitId::Pid(pid), options).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        }
        let mut alive = self.locked();
        *alive = None;
        drop(child.wait());
    }

    fn locked(&self) -> MutexGuard<'_, Option<Pid>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    let die_too = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before that was asked for.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
    };
    #[expect(unsafe_code, reason = "between fork and exec: two system calls, no allocation, no lock")]
    // SAFETY: the closure only makes system calls that are safe after a fork.
    unsafe {
        command.pre_exec(die_too);
    }
}

/// Elsewhere no system call asks for that: a guard does it.
#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}

/// A shell that waits for the end of this process, seen as the end of a pipe, and then ends the server.
#[cfg(any(not(target_os = "linux"), test))]
mod guard {
    use std::io;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// Dropping it calls the guard off.
    pub(super) struct Guard(Child);

    impl Guard {
        pub(super) fn over(pid: u32) -> io::Result<Self> {
            let mut command = Command::new("/bin/sh");
            // `read` ends when nobody has the other end of the pipe open any more.
            command.args(["-c", "read -r _; kill -9 -\"$0\"", &pid.to_string()]);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            command.spawn().map(Self)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn sleeper() -> Child {
            Command::new("/bin/sleep").arg("600").process_group(0).spawn().unwrap()
        }

        #[test]
        fn the_end_of_whoever_holds_the_pipe_ends_the_server() {
            let mut server = sleeper();
            let mut guard = Guard::over(server.id()).unwrap();
            // As the system closes it when the engine is killed.
            drop(guard.0.stdin.take());
            assert!(!server.wait().unwrap().success());
        }

        #[test]
        fn a_guard_that_is_called_off_ends_nothing() {
            let mut server = sleeper();
            drop(Guard::over(server.id()).unwrap());
            assert!(server.try_wait().unwrap().is_none());
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }
}
