//! Whether the window in front covers its whole monitor: a game or a film.
#![expect(unsafe_code, reason = "Windows' windows have a C interface")]

use std::mem::size_of;

use ::windows::Win32::Foundation::{HWND, RECT};
use ::windows::Win32::Graphics::Gdi::{
    GetMonitorInfoW, MONITOR_DEFAULTTONULL, MONITORINFO, MonitorFromWindow,
};
use ::windows::Win32::UI::WindowsAndMessaging::{
    GWL_STYLE, GetClassNameW, GetDesktopWindow, GetForegroundWindow, GetShellWindow, GetWindowLongW,
    GetWindowRect, GetWindowThreadProcessId, IsWindowVisible, WS_CAPTION,
};
use idlewatt_core::presence::App;

use super::processes;

/// Classes of the desktop itself and of the shell's own overlays, which cover a monitor and are nobody's program.
const SHELL: [&str; 5] =
    ["Progman", "WorkerW", "Shell_TrayWnd", "Windows.UI.Core.CoreWindow", "XamlExplorerHostIslandWindow"];

/// The program in front, if its window covers a monitor.
pub(super) fn covering() -> Option<App> {
    // SAFETY: windows may go at any moment; every call says so by its answer, and every structure lives through its call.
    unsafe {
        let window = GetForegroundWindow();
        if window.is_invalid() || !IsWindowVisible(window).as_bool() || is_shell(window) {
            return None;
        }
        // A window that is only maximised has its frame still, and may cover a monitor whose task bar hides.
        #[expect(clippy::cast_sign_loss, reason = "bits")]
        let style = GetWindowLongW(window, GWL_STYLE) as u32;
        if style & WS_CAPTION.0 == WS_CAPTION.0 {
            return None;
        }
        let mut place = RECT::default();
        GetWindowRect(window, &raw mut place).ok()?;
        let monitor = MonitorFromWindow(window, MONITOR_DEFAULTTONULL);
        let mut about =
            MONITORINFO { cbSize: u32::try_from(size_of::<MONITORINFO>()).ok()?, ..MONITORINFO::default() };
        if monitor.is_invalid() || !GetMonitorInfoW(monitor, &raw mut about).as_bool() {
            return None;
        }
        if !covers(&place, &about.rcMonitor) {
            return None;
        }
        let mut pid = 0;
        GetWindowThreadProcessId(window, Some(&raw mut pid));
        Some(App { name: processes::name(pid).unwrap_or_else(|| "a program".to_owned()) })
    }
}

unsafe fn is_shell(window: HWND) -> bool {
    let mut class = [0; 64];
    // SAFETY: these two ask for nothing but a handle.
    if window == unsafe { GetDesktopWindow() } || window == unsafe { GetShellWindow() } {
        return true;
    }
    // SAFETY: the text's room is told by its slice.
    let length = usize::try_from(unsafe { GetClassNameW(window, &mut class) }).unwrap_or_default();
    let class = String::from_utf16_lossy(class.get(..length).unwrap_or_default());
    SHELL.contains(&class.as_str())
}

fn covers(window: &RECT, monitor: &RECT) -> bool {
    window.left <= monitor.left
        && window.top <= monitor.top
        && window.right >= monitor.right
        && window.bottom >= monitor.bottom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_monitor_is_full_screen() {
        let monitor = RECT { left: 1920, top: 0, right: 3840, bottom: 1080 };
        assert!(covers(&monitor, &monitor));
        assert!(!covers(&RECT { bottom: 1040, ..monitor }, &monitor), "the task bar shows");
        assert!(!covers(&RECT { left: 0, top: 0, right: 1920, bottom: 1080 }, &monitor), "the other monitor");
    }
}
