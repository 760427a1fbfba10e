//! When this session last had input, and whether it is locked.
#![expect(unsafe_code, reason = "Windows' sessions have a C interface")]

use std::mem::size_of;
use std::time::Duration;

use ::windows::Win32::System::RemoteDesktop::{
    ProcessIdToSessionId, WTS_CURRENT_SESSION, WTSFreeMemory, WTSINFOEXW, WTSQuerySessionInformationW,
    WTSSessionInfoEx,
};
use ::windows::Win32::System::SystemInformation::GetTickCount;
use ::windows::Win32::UI::Input::KeyboardAndMouse::{GetLastInputInfo, LASTINPUTINFO};
use ::windows::core::PWSTR;

/// Time since the last input in this session, at most 49.7 days: both clocks have 32 bits and wrap together.
pub(super) fn since_input() -> Option<Duration> {
    let mut last = LASTINPUTINFO { cbSize: u32::try_from(size_of::<LASTINPUTINFO>()).ok()?, dwTime: 0 };
    // SAFETY: the structure says its own size and lives through the call.
    let (told, now) = unsafe { (GetLastInputInfo(&raw mut last).as_bool(), GetTickCount()) };
    told.then(|| between(last.dwTime, now))
}

/// Input may be stamped a tick after the clock was read.
fn between(last: u32, now: u32) -> Duration {
    let ticks = now.wrapping_sub(last);
    Duration::from_millis(if ticks > u32::MAX - 1000 { 0 } else { ticks.into() })
}

/// Whether this process runs where nobody can sit: session 0 is the services'.
pub(super) fn is_service() -> bool {
    let mut session = u32::MAX;
    // SAFETY: the number lives through the call.
    let told = unsafe { ProcessIdToSessionId(std::process::id(), &raw mut session) };
    told.is_ok() && session == 0
}

/// Whether this session is locked; `None` where Windows does not say.
pub(super) fn is_locked() -> Option<bool> {
    /// `WTS_SESSIONSTATE_LOCK` and `_UNLOCK`, as they are since Windows 8.
    const LOCKED: i32 = 0;
    const UNLOCKED: i32 = 1;
    let (mut text, mut size) = (PWSTR::null(), 0);
    // SAFETY: both pointers live through the call; what it hands out is read within its size and given back.
    let flags = unsafe {
        WTSQuerySessionInformationW(
            None,
            WTS_CURRENT_SESSION,
            WTSSessionInfoEx,
            &raw mut text,
            &raw mut size,
        )
        .ok()?;
        let whole = size as usize >= size_of::<WTSINFOEXW>() && !text.is_null();
        let info = text.as_ptr().cast::<WTSINFOEXW>();
        let flags = whole.then(|| info.read_unaligned()).filter(|it| it.Level == 1);
        let flags = flags.map(|it| it.Data.WTSInfoExLevel1.SessionFlags);
        WTSFreeMemory(text.as_ptr().cast());
        flags
    };
    match flags? {
        LOCKED => Some(true),
        UNLOCKED => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_may_wrap_and_input_may_be_stamped_a_moment_ahead() {
        assert_eq!(between(100, 350), Duration::from_millis(250));
        assert_eq!(between(u32::MAX - 9, 10), Duration::from_millis(20));
        assert_eq!(between(1015, 1000), Duration::ZERO);
    }
}
