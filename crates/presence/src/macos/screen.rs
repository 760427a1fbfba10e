//! The lock, the displays, and whether a program covers one.
#![expect(unsafe_code, reason = "the window server has a C interface")]

use idlewatt_core::presence::App;
use objc2_core_foundation::{CFBoolean, CFDictionary, CFNumber, CFRetained, CFString, CFType, CGRect};
use objc2_core_graphics::{
    CGDisplayBounds, CGDisplayIsAsleep, CGMainDisplayID, CGRectMakeWithDictionaryRepresentation,
    CGSessionCopyCurrentDictionary, CGWindowListCopyWindowInfo, CGWindowListOption, kCGWindowBounds,
    kCGWindowLayer, kCGWindowOwnerName,
};

type Facts = CFDictionary<CFString, CFType>;

/// What covers a display and is nobody's program.
const SYSTEM: [&str; 4] = ["Window Server", "Dock", "Finder", "loginwindow"];

/// Whether this session is locked; `None` outside a graphical session.
pub(super) fn is_locked() -> Option<bool> {
    let session = CGSessionCopyCurrentDictionary()?;
    // SAFETY: the keys of this dictionary are texts.
    let session: CFRetained<Facts> = unsafe { CFRetained::cast_unchecked(session) };
    let locked = session.get(&CFString::from_static_str("CGSSessionScreenIsLocked"));
    // The entry is there only while it is true.
    Some(locked.is_some_and(|it| it.downcast_ref::<CFBoolean>().is_none_or(CFBoolean::as_bool)))
}

/// Whether the main display sleeps; the others sleep with it.
pub(super) fn displays_are_off() -> bool {
    CGDisplayIsAsleep(CGMainDisplayID())
}

/// The program whose window covers the main display, menu bar and all.
pub(super) fn covering() -> Option<App> {
    let display = CGDisplayBounds(CGMainDisplayID());
    let wanted = CGWindowListOption::OptionOnScreenOnly | CGWindowListOption::ExcludeDesktopElements;
    let windows = CGWindowListCopyWindowInfo(wanted, 0)?;
    // SAFETY: the list holds dictionaries with texts as keys.
    let windows: CFRetained<objc2_core_foundation::CFArray<Facts>> =
        unsafe { CFRetained::cast_unchecked(windows) };
    windows.iter().find_map(|window| covers(&window, display).then(|| owner(&window)).flatten())
}

fn covers(window: &Facts, display: CGRect) -> bool {
    // SAFETY: the names are constants of the system.
    let (layer, bounds) = unsafe { (window.get(kCGWindowLayer), window.get(kCGWindowBounds)) };
    let layer = layer.and_then(|it| it.downcast_ref::<CFNumber>()?.as_i64());
    let Some(bounds) = bounds.as_ref().and_then(|it| it.downcast_ref::<CFDictionary>()) else { return false };
    let mut place = CGRect::default();
    // SAFETY: the rectangle lives through the call.
    let told = unsafe { CGRectMakeWithDictionaryRepresentation(Some(bounds), &raw mut place) };
    told && layer == Some(0) && place == display
}

fn owner(window: &Facts) -> Option<App> {
    // SAFETY: the name is a constant of the system.
    let name = unsafe { window.get(kCGWindowOwnerName) }?;
    let name = name.downcast_ref::<CFString>()?.to_string();
    (!SYSTEM.contains(&name.as_str())).then_some(App { name })
}
