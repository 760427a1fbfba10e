//! When there was input last.
#![expect(unsafe_code, reason = "the registry of devices has a C interface")]

use std::time::Duration;

use objc2_core_foundation::{CFNumber, CFString};
use objc2_core_graphics::{CGEventSource, CGEventSourceStateID, CGEventType};
use objc2_io_kit::{
    IOObjectRelease, IORegistryEntryCreateCFProperty, IOServiceGetMatchingService, IOServiceMatching,
    kIOMainPortDefault,
};

/// `kCGAnyInputEventType`
const ANY: CGEventType = CGEventType(u32::MAX);

/// Time since the last input.
pub(super) fn since_input() -> Duration {
    let by_session =
        CGEventSource::seconds_since_last_event_type(CGEventSourceStateID::CombinedSessionState, ANY);
    let by_session = Duration::try_from_secs_f64(by_session).unwrap_or_default();
    since_devices_told().map_or(by_session, |by_devices| by_devices.min(by_session))
}

/// `HIDIdleTime`, nanoseconds.
fn since_devices_told() -> Option<Duration> {
    // SAFETY: the name ends with a zero, the matching dictionary is used up by the call that takes it, and the service is
    // given back.
    let idle = unsafe {
        let matching = IOServiceMatching(c"IOHIDSystem".as_ptr())?;
        let system = IOServiceGetMatchingService(kIOMainPortDefault, Some(matching.downcast().ok()?));
        if system == 0 {
            return None;
        }
        let name = CFString::from_static_str("HIDIdleTime");
        let idle = IORegistryEntryCreateCFProperty(system, Some(&name), None, 0);
        IOObjectRelease(system);
        idle?
    };
    let nanos = idle.downcast_ref::<CFNumber>()?.as_i64()?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}
