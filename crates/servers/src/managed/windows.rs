//! The process on Windows: started and ended, not slowed. It is alone in a job object that only this process has open:
//! Windows closes what a process had open however it ends, and with its last handle the job ends what is in it.
#![expect(unsafe_code, reason = "jobs and waits have a C interface")]

use std::io;
use std::os::windows::io::{AsHandle, AsRawHandle, FromRawHandle, OwnedHandle};
use std::process::{Child, Command};
use std::sync::Arc;

use tokio::sync::watch;
use windows::Win32::Foundation::HANDLE;
use windows::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows::Win32::System::Threading::{INFINITE, TerminateProcess, WaitForSingleObject};
use windows::core::PCWSTR;

use super::Log;

/// What Windows calls an ended process's answer.
const ENDED: u32 = 1;

/// A child process. Its handle keeps its number its own.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    handle: OwnedHandle,
    _job: OwnedHandle,
}

impl Process {
    pub(super) fn start(
        mut command: Command,
        log: &Arc<Log>,
    ) -> io::Result<(Arc<Self>, watch::Receiver<bool>)> {
        let mut child = command.spawn()?;
        let process = match Self::of(&child) {
            Ok(process) => Arc::new(process),
            Err(error) => {
                // Better none than one that outlives its engine.
                drop(child.kill());
                return Err(error);
            }
        };
        let (ended, receiver) = watch::channel(false);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (first, second) = (Arc::clone(log), Arc::clone(log));
        std::thread::spawn(move || out.map(|out| first.follow(out)));
        std::thread::spawn(move || err.map(|err| second.follow(err)));
        let watched = Arc::clone(&process);
        std::thread::spawn(move || {
            // SAFETY: the handle is open as long as `watched` is.
            unsafe { WaitForSingleObject(raw(&watched.handle), INFINITE) };
            ended.send_replace(true);
        });
        Ok((process, receiver))
    }

    fn of(child: &Child) -> io::Result<Self> {
        let handle = child.as_handle().try_clone_to_owned()?;
        let job = job()?;
        // SAFETY: both handles are open.
        unsafe { AssignProcessToJobObject(raw(&job), raw(&handle)) }?;
        Ok(Self { pid: child.id(), handle, _job: job })
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
        // SAFETY: the handle is open. One that has ended already refuses, which is as good.
        drop(unsafe { TerminateProcess(raw(&self.handle), ENDED) });
    }
}

/// A job that ends what is in it when its last handle is closed.
fn job() -> io::Result<OwnedHandle> {
    // SAFETY: no attributes and no name; the handle that comes back is ours alone, and no child inherits it.
    let job = unsafe { OwnedHandle::from_raw_handle(CreateJobObjectW(None, PCWSTR::null())?.0) };
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    let length =
        u32::try_from(size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>()).map_err(io::Error::other)?;
    // SAFETY: the value lives through the call, and its length is its own.
    unsafe {
        SetInformationJobObject(
            raw(&job),
            JobObjectExtendedLimitInformation,
            (&raw const limits).cast(),
            length,
        )
    }?;
    Ok(job)
}

fn raw(handle: &OwnedHandle) -> HANDLE {
    HANDLE(handle.as_raw_handle())
}
