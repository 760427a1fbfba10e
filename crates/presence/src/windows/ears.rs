//! A window that nobody sees, for what Windows tells only to windows: raw input, the lock, the displays, a hotkey.
#![expect(unsafe_code, reason = "Windows' messages have a C interface")]

use std::cell::RefCell;
use std::mem::size_of;
use std::sync::mpsc;

use ::windows::Win32::Foundation::{HANDLE, HINSTANCE, HWND, LPARAM, LRESULT, S_OK, WPARAM};
use ::windows::Win32::System::LibraryLoader::GetModuleHandleW;
use ::windows::Win32::System::Power::{POWERBROADCAST_SETTING, RegisterPowerSettingNotification};
use ::windows::Win32::System::RemoteDesktop::{NOTIFY_FOR_THIS_SESSION, WTSRegisterSessionNotification};
use ::windows::Win32::System::SystemServices::GUID_CONSOLE_DISPLAY_STATE;
use ::windows::Win32::UI::Input::KeyboardAndMouse::{HOT_KEY_MODIFIERS, MOD_NOREPEAT, RegisterHotKey};
use ::windows::Win32::UI::Input::{
    RAWINPUTDEVICE, RAWINPUTDEVICE_FLAGS, RIDEV_INPUTSINK, RIDEV_REMOVE, RegisterRawInputDevices,
};
use ::windows::Win32::UI::WindowsAndMessaging::{
    CreateWindowExW, DEVICE_NOTIFY_WINDOW_HANDLE, DefWindowProcW, DestroyWindow, DispatchMessageW,
    GetMessageW, MSG, PBT_POWERSETTINGCHANGE, PostMessageW, PostQuitMessage, RegisterClassW, SendMessageW,
    WM_APP, WM_CLOSE, WM_DESTROY, WM_HOTKEY, WM_INPUT, WM_POWERBROADCAST, WM_WTSSESSION_CHANGE, WNDCLASSW,
    WS_EX_TOOLWINDOW, WS_POPUP, WTS_SESSION_LOCK, WTS_SESSION_UNLOCK,
};
use ::windows::core::{HRESULT, PCWSTR, w};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const CLASS: PCWSTR = w!("IdlewattPresence");
/// To the window: whether to hear raw input from now on.
const HEAR_INPUT: u32 = WM_APP;
/// To the window: to hear a key from now on, by its code, with the modifiers beside it. The window's thread must ask.
const HEAR_KEY: u32 = WM_APP + 1;
/// What the window calls the only key that it hears.
const KEY: i32 = 1;
/// The HID usage page of desktop controls, and on it pointers and keyboards.
const DESKTOP: u16 = 1;
const DEVICES: [u16; 2] = [2, 6];

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A key, a button or a movement; which, nobody asked.
    Input,
    /// The session is locked, or not any more.
    Locked(bool),
    /// Every display went off, or one is on.
    DisplaysOff(bool),
    /// The key of [`Ears::hear_key`].
    Key,
}

/// The window, on a thread of its own. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Ears {
    window: isize,
    hears_input: bool,
    heard: UnboundedReceiver<Heard>,
}

thread_local! {
    static TOLD: RefCell<Option<UnboundedSender<Heard>>> = const { RefCell::new(None) };
}

impl Ears {
    /// `None` where Windows gives this process no window.
    pub(super) fn open() -> Option<Self> {
        let (tell, heard) = unbounded_channel();
        let (opened, window) = mpsc::channel();
        let listen = move || {
            TOLD.set(Some(tell));
            if let Some(window) = window_of_this_thread() {
                // Whoever asked may be gone; then the window is closed by the receiver's end.
                if opened.send(window.0 as isize).is_ok() {
                    pump();
                }
            }
        };
        std::thread::Builder::new().name("presence".into()).spawn(listen).ok()?;
        Some(Self { window: window.recv().ok()?, hears_input: false, heard })
    }

    /// What is told next; `None` once the window is gone.
    pub(super) async fn heard(&mut self) -> Option<Heard> {
        self.heard.recv().await
    }

    /// Raw input is heard only when wanted: a mouse tells of itself a thousand times a second.
    pub(super) fn hear_input(&mut self, wanted: bool) {
        if wanted == self.hears_input {
            return;
        }
        self.hears_input = wanted;
        self.post(HEAR_INPUT, usize::from(wanted));
        if wanted {
            while self.heard.try_recv().is_ok() {}
        }
    }

    /// Asks for a key by its virtual code, with what is held beside it, until the window is closed. Blocks until the window
    /// has answered.
    ///
    /// # Errors
    /// What Windows says, `ERROR_HOTKEY_ALREADY_REGISTERED` among it.
    pub(super) fn hear_key(&self, code: u16, held: HOT_KEY_MODIFIERS) -> ::windows::core::Result<()> {
        let (code, held) = (WPARAM(code.into()), LPARAM(held.0 as isize));
        // SAFETY: a message to a window that may be gone is answered with zero, nothing more.
        let answer = unsafe { SendMessageW(handle(self.window), HEAR_KEY, Some(code), Some(held)) };
        HRESULT(i32::try_from(answer.0).unwrap_or(-1)).ok()
    }

    fn post(&self, message: u32, value: usize) {
        // SAFETY: a message to a window that may be gone is refused, nothing more.
        drop(unsafe { PostMessageW(Some(handle(self.window)), message, WPARAM(value), LPARAM(0)) });
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.post(WM_CLOSE, 0);
    }
}

fn handle(window: isize) -> HWND {
    HWND(window as *mut core::ffi::c_void)
}

fn window_of_this_thread() -> Option<HWND> {
    // SAFETY: the class lives as long as the process, its procedure is a function of this program, and the handles are
    // used on the thread that made them.
    unsafe {
        let program = HINSTANCE(GetModuleHandleW(None).ok()?.0);
        let class = WNDCLASSW {
            lpfnWndProc: Some(hear),
            hInstance: program,
            lpszClassName: CLASS,
            ..WNDCLASSW::default()
        };
        // Another pair of ears may have registered it already.
        RegisterClassW(&raw const class);
        let window = CreateWindowExW(
            WS_EX_TOOLWINDOW,
            CLASS,
            PCWSTR::null(),
            WS_POPUP,
            0,
            0,
            0,
            0,
            None,
            None,
            Some(program),
            None,
        )
        .ok()?;
        // Both say at once, or at the next change; a Windows without them leaves it open.
        drop(WTSRegisterSessionNotification(window, NOTIFY_FOR_THIS_SESSION));
        drop(RegisterPowerSettingNotification(
            HANDLE(window.0),
            &GUID_CONSOLE_DISPLAY_STATE,
            DEVICE_NOTIFY_WINDOW_HANDLE,
        ));
        Some(window)
    }
}

fn pump() {
    let mut message = MSG::default();
    // SAFETY: the message lives through both calls. Zero is the end, -1 an error that only a wrong window makes.
    unsafe {
        while GetMessageW(&raw mut message, None, 0, 0).0 > 0 {
            DispatchMessageW(&raw const message);
        }
    }
}

/// The window's procedure.
unsafe extern "system" fn hear(window: HWND, message: u32, value: WPARAM, detail: LPARAM) -> LRESULT {
    let heard = match message {
        WM_INPUT => Some(Heard::Input),
        WM_WTSSESSION_CHANGE => match u32::try_from(value.0) {
            Ok(WTS_SESSION_LOCK) => Some(Heard::Locked(true)),
            Ok(WTS_SESSION_UNLOCK) => Some(Heard::Locked(false)),
            _ => None,
        },
        // SAFETY: with this value, Windows hands the setting's structure along.
        WM_POWERBROADCAST if value.0 == PBT_POWERSETTINGCHANGE as usize => unsafe { displays(detail) },
        HEAR_INPUT => {
            hear_input(window, value.0 == 1);
            None
        }
        WM_HOTKEY => Some(Heard::Key),
        HEAR_KEY => return LRESULT(hear_key(window, value, detail).0 as isize),
        WM_CLOSE => {
            // SAFETY: the window is this thread's.
            drop(unsafe { DestroyWindow(window) });
            return LRESULT(0);
        }
        WM_DESTROY => {
            // SAFETY: ends this thread's own loop.
            unsafe { PostQuitMessage(0) };
            return LRESULT(0);
        }
        _ => None,
    };
    if let Some(heard) = heard {
        TOLD.with_borrow(|told| told.as_ref().map(|it| it.send(heard)));
    }
    // SAFETY: what came is passed on as it came; for raw input that is how it is given back.
    unsafe { DefWindowProcW(window, message, value, detail) }
}

unsafe fn displays(detail: LPARAM) -> Option<Heard> {
    const OFF: u8 = 0;
    let setting = detail.0 as *const POWERBROADCAST_SETTING;
    if setting.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for the structure; its data is at least one byte.
    let (which, state) = unsafe { ((*setting).PowerSetting, (*setting).Data[0]) };
    (which == GUID_CONSOLE_DISPLAY_STATE).then_some(Heard::DisplaysOff(state == OFF))
}

fn hear_key(window: HWND, code: WPARAM, held: LPARAM) -> HRESULT {
    let (code, held) = (u32::try_from(code.0).unwrap_or_default(), u32::try_from(held.0).unwrap_or_default());
    // SAFETY: the window is this thread's; closing it gives the key back.
    let asked = unsafe { RegisterHotKey(Some(window), KEY, HOT_KEY_MODIFIERS(held) | MOD_NOREPEAT, code) };
    asked.map_or_else(|error| error.code(), |()| S_OK)
}

fn hear_input(window: HWND, wanted: bool) {
    let (flags, target) = if wanted { (RIDEV_INPUTSINK, window) } else { (RIDEV_REMOVE, HWND::default()) };
    let device = |usage| RAWINPUTDEVICE {
        usUsagePage: DESKTOP,
        usUsage: usage,
        dwFlags: RAWINPUTDEVICE_FLAGS(flags.0),
        hwndTarget: target,
    };
    let size = u32::try_from(size_of::<RAWINPUTDEVICE>()).unwrap_or_default();
    // SAFETY: the devices live through the call and their size is told. Where it is refused, the clock is looked at all the same.
    drop(unsafe { RegisterRawInputDevices(&DEVICES.map(device), size) });
}
