//! One key combination, registered with the system (Carbon's hot keys, which want no right to watch other keys). It tells
//! only programs that run an event loop on their main thread: the desktop app does, `idlewatt run` does not.
#![expect(unsafe_code, reason = "hot keys have a C interface")]

use std::ffi::c_void;
use std::future::pending;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, PoisonError};

use dispatch2::DispatchQueue;

use crate::hotkey::{Bell, Held, Hotkey, Key};

/// A reference that the system hands out.
type Reference = *mut c_void;
type OsStatus = i32;

/// `eventHotKeyExistsErr`
const TAKEN: OsStatus = -9878;
/// `kEventClassKeyboard` and `kEventHotKeyPressed`
static PRESSED: EventTypeSpec = EventTypeSpec { class: u32::from_be_bytes(*b"keyb"), kind: 5 };
/// What this program calls its only key.
const KEY: EventHotKeyId = EventHotKeyId { signature: u32::from_be_bytes(*b"IDLW"), id: 1 };

#[repr(C)]
struct EventTypeSpec {
    class: u32,
    kind: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct EventHotKeyId {
    signature: u32,
    id: u32,
}

type Handler = unsafe extern "C" fn(call: Reference, event: Reference, bell: *mut c_void) -> OsStatus;

#[link(name = "Carbon", kind = "framework")]
unsafe extern "C" {
    fn GetApplicationEventTarget() -> Reference;
    fn InstallEventHandler(
        target: Reference,
        handler: Handler,
        count: usize,
        kinds: *const EventTypeSpec,
        data: *mut c_void,
        installed: *mut Reference,
    ) -> OsStatus;
    fn RemoveEventHandler(handler: Reference) -> OsStatus;
    fn RegisterEventHotKey(
        code: u32,
        modifiers: u32,
        id: EventHotKeyId,
        target: Reference,
        options: u32,
        registered: *mut Reference,
    ) -> OsStatus;
    fn UnregisterEventHotKey(key: Reference) -> OsStatus;
}

/// Rings when `hotkey` is pressed.
pub(super) async fn follow(hotkey: Hotkey, bell: &Bell) {
    let Some(code) = code(hotkey.key) else {
        let says = format!("keyboards of Macs have no key {}", hotkey.key);
        return bell.unheard(says, Some("Choose a key that they have."));
    };
    // Holds from the moment that the main thread runs its loop, if it ever does.
    bell.unheard(
        "macOS tells keys only to programs with windows",
        Some("Let the desktop app hold the engine, or bind `idlewatt back` to a key with the Shortcuts app."),
    );
    let asked = Asked::default();
    let (place, held, bell) = (Arc::clone(&asked.0), modifiers(hotkey.held), bell.clone());
    DispatchQueue::main().exec_async(move || match Registered::ask(code, held, &bell) {
        Ok(registered) => {
            bell.heard(format!("macOS tells of {hotkey}"));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(registered);
        }
        Err(TAKEN) => bell.unheard(
            format!("another program has {hotkey}"),
            Some("Choose another key, or free this one there and set it again."),
        ),
        Err(status) => bell.unheard(format!("macOS does not give {hotkey} (error {status})"), None),
    });
    pending().await
}

/// What the main thread was asked for. Once this is dropped it takes that back, in the same order.
#[derive(Default)]
struct Asked(Arc<Mutex<Option<Registered>>>);

impl Drop for Asked {
    fn drop(&mut self) {
        let place = Arc::clone(&self.0);
        DispatchQueue::main().exec_async(move || {
            drop(place.lock().unwrap_or_else(PoisonError::into_inner).take());
        });
    }
}

/// A key that the system tells of. To be made and dropped on the main thread.
struct Registered {
    key: Reference,
    handler: Reference,
    bell: *mut Bell,
}

// SAFETY: it goes to other threads only inside `Asked`, which takes it out on the main thread.
unsafe impl Send for Registered {}

impl Registered {
    fn ask(code: u32, held: u32, bell: &Bell) -> Result<Self, OsStatus> {
        let bell = Box::into_raw(Box::new(bell.clone()));
        let mut this = Self { key: null_mut(), handler: null_mut(), bell };
        // SAFETY: the places live through the calls, and the bell until the handler is removed.
        unsafe {
            let target = GetApplicationEventTarget();
            done(InstallEventHandler(
                target,
                ring,
                1,
                &raw const PRESSED,
                bell.cast(),
                &raw mut this.handler,
            ))?;
            done(RegisterEventHotKey(code, held, KEY, target, 0, &raw mut this.key))?;
        }
        Ok(this)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: what was never made is null; nobody rings the bell once its handler is removed.
        unsafe {
            if !self.key.is_null() {
                UnregisterEventHotKey(self.key);
            }
            if !self.handler.is_null() {
                RemoveEventHandler(self.handler);
            }
            drop(Box::from_raw(self.bell));
        }
    }
}

fn done(status: OsStatus) -> Result<(), OsStatus> {
    if status == 0 { Ok(()) } else { Err(status) }
}

unsafe extern "C" fn ring(_call: Reference, _event: Reference, bell: *mut c_void) -> OsStatus {
    // SAFETY: the bell that the handler was installed with, which outlives it.
    unsafe { &*bell.cast::<Bell>() }.ring();
    0
}

/// `controlKey`, `optionKey`, `shiftKey`, `cmdKey`
fn modifiers(held: Held) -> u32 {
    let all = [(held.ctrl, 1 << 12), (held.alt, 1 << 11), (held.shift, 1 << 9), (held.logo, 1 << 8)];
    all.into_iter().filter(|(held, _)| *held).map(|(_, one)| one).sum()
}

/// Places on the keyboard (`HIToolbox/Events.h`), as an American one is labelled: on others the key in that place.
fn code(key: Key) -> Option<u32> {
    const LETTERS: [u32; 26] = [
        0x00, 0x0B, 0x08, 0x02, 0x0E, 0x03, 0x05, 0x04, 0x22, 0x26, 0x28, 0x25, 0x2E, 0x2D, 0x1F, 0x23, 0x0C,
        0x0F, 0x01, 0x11, 0x20, 0x09, 0x0D, 0x07, 0x10, 0x06,
    ];
    const DIGITS: [u32; 10] = [0x1D, 0x12, 0x13, 0x14, 0x15, 0x17, 0x16, 0x1A, 0x1C, 0x19];
    const FUNCTIONS: [u32; 20] = [
        0x7A, 0x78, 0x63, 0x76, 0x60, 0x61, 0x62, 0x64, 0x65, 0x6D, 0x67, 0x6F, 0x69, 0x6B, 0x71, 0x6A, 0x40,
        0x4F, 0x50, 0x5A,
    ];
    let at = |codes: &[u32], index: Option<u8>| codes.get(usize::from(index?)).copied();
    match key {
        Key::Sign(sign) if sign.is_ascii_digit() => at(&DIGITS, sign.checked_sub(b'0')),
        Key::Sign(sign) => at(&LETTERS, sign.checked_sub(b'A')),
        Key::F(number) => at(&FUNCTIONS, number.checked_sub(1)),
        Key::Home => Some(0x73),
        Key::End => Some(0x77),
        Key::PageUp => Some(0x74),
        Key::PageDown => Some(0x79),
        Key::Pause | Key::Insert => None,
    }
}
