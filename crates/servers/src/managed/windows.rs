//! The process on Windows: started and ended, not slowed. Untested.

use std::io;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Log;

/// How often an ended process is looked for.
const LOOKED: Duration = Duration::from_millis(50);

/// A child process.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    child: Mutex<Child>,
}

impl Process {
    pub(super) fn start(
        mut command: Command,
        log: &Arc<Log>,
    ) -> io::Result<(Arc<Self>, watch::Receiver<bool>)> {
        let mut child = command.spawn()?;
        let (ended, receiver) = watch::channel(false);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (first, second) = (Arc::clone(log), Arc::clone(log));
        std::thread::spawn(move || out.map(|out| first.follow(out)));
        std::thread::spawn(move || err.map(|err| second.follow(err)));
        let process = Arc::new(Self { pid: child.id(), child: Mutex::new(child) });
        let watched = Arc::clone(&process);
        std::thread::spawn(move || {
            while matches!(watched.locked().try_wait(), Ok(None)) {
                std::thread::sleep(LOOKED);
            }
            ended.send_replace(true);
        });
        Ok((process, receiver))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn hold(&self) -> bool {
        false
    }

    pub(super) fn go_on(&self) -> bool {
        false
    }

    pub(super) fn end(&self) {
        drop(self.locked().kill());
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
