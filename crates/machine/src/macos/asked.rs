//! What macOS is asked: memory, the two clocks; and to stay awake.
#![expect(unsafe_code, reason = "the kernel and power management have a C interface")]

use std::time::Duration;

use objc2_core_foundation::CFString;
use objc2_io_kit::{
    IOPMAssertionCreateWithName, IOPMAssertionID, IOPMAssertionRelease, kIOPMAssertionLevelOn,
};

/// `kern.memorystatus_vm_pressure_level`: 1 normal, 2 warning, 4 critical.
pub(super) fn is_memory_short() -> Option<bool> {
    let (mut level, mut size) = (0_i32, size_of::<i32>());
    // SAFETY: the name ends with a zero; the answer's room and size live through the call.
    let told = unsafe {
        libc::sysctlbyname(
            c"kern.memorystatus_vm_pressure_level".as_ptr(),
            (&raw mut level).cast(),
            &raw mut size,
            std::ptr::null_mut(),
            0,
        )
    };
    (told == 0).then_some(level >= 2)
}

/// How long the machine has run, without its sleep.
pub(super) fn running() -> Duration {
    clock(libc::CLOCK_UPTIME_RAW)
}

/// How long it has slept since it started: one clock counts sleep, the other does not.
pub(crate) fn slept() -> Duration {
    clock(libc::CLOCK_MONOTONIC_RAW).saturating_sub(running())
}

fn clock(which: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time lives through the call, and stays zero for a clock that is not there.
    unsafe { libc::clock_gettime(which, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Keeps the machine awake until it is dropped; `pmset -g assertions` shows it with its reason.
#[derive(Debug)]
pub(super) struct Assertion(IOPMAssertionID);

impl Assertion {
    pub(super) fn stay_awake() -> Result<Self, &'static str> {
        let kind = CFString::from_static_str("PreventUserIdleSystemSleep");
        let reason = CFString::from_static_str("Idlewatt shares the GPU");
        let mut id = 0;
        // SAFETY: the texts and the number live through the call.
        let made = unsafe {
            IOPMAssertionCreateWithName(Some(&kind), kIOPMAssertionLevelOn, Some(&reason), &raw mut id)
        };
        if made == 0 { Ok(Self(id)) } else { Err("macOS took no assertion") }
    }
}

impl Drop for Assertion {
    fn drop(&mut self) {
        IOPMAssertionRelease(self.0);
    }
}
