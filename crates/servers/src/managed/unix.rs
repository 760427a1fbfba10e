//! The process on Linux and macOS.

use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
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
            end_with_parent(&mut command);
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => return drop(sender.send(Err(error))),
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
        self.locked().is_some_and(|pid| kill_process(pid, signal).is_ok())
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
    use std::os::unix::process::CommandExt;
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

/// Elsewhere the child outlives a killed engine until the next start finds its port taken.
#[cfg(not(target_os = "linux"))]
fn end_with_parent(_command: &mut Command) {}
