//! What Windows calls a program for: sleep, waking, the lid.
#![expect(unsafe_code, reason = "Windows calls back through C")]

use std::ffi::c_void;
use std::sync::mpsc;
use std::time::Duration;

use ::windows::Win32::Foundation::{ERROR_SUCCESS, HANDLE};
use ::windows::Win32::System::Power::{
    DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS, HPOWERNOTIFY, POWERBROADCAST_SETTING,
    PowerRegisterSuspendResumeNotification, PowerSettingRegisterNotification,
    PowerSettingUnregisterNotification, PowerUnregisterSuspendResumeNotification,
};
use ::windows::Win32::System::SystemServices::GUID_LIDSWITCH_STATE_CHANGE;
use ::windows::Win32::UI::WindowsAndMessaging::{
    DEVICE_NOTIFY_CALLBACK, PBT_APMRESUMEAUTOMATIC, PBT_APMSUSPEND, PBT_POWERSETTINGCHANGE,
};
use tokio::sync::mpsc::UnboundedSender;

use super::Told;

/// Windows waits two seconds for all who were called, then sleeps anyway.
const MOST: Duration = Duration::from_millis(1500);

/// Two registrations, given up when dropped.
pub(super) struct Calls {
    /// Whether sleep and waking are told.
    pub(super) sleep: bool,
    /// Whether the lid is told.
    pub(super) lid: bool,
    handles: [*mut c_void; 2],
    tell: *mut UnboundedSender<Told>,
}

// SAFETY: the handles belong to the process, and the sender is only read through a shared reference by the calls.
unsafe impl Send for Calls {}

impl Calls {
    pub(super) fn register(tell: &UnboundedSender<Told>) -> Self {
        let tell = Box::into_raw(Box::new(tell.clone()));
        let subscription =
            DEVICE_NOTIFY_SUBSCRIBE_PARAMETERS { Callback: Some(called), Context: tell.cast() };
        let recipient = HANDLE((&raw const subscription).cast_mut().cast());
        let mut handles = [std::ptr::null_mut(); 2];
        let [first, second] = &mut handles;
        // SAFETY: the subscription is copied by both calls, and what it points at lives until they are given up.
        let (sleep, lid) = unsafe {
            (
                PowerRegisterSuspendResumeNotification(DEVICE_NOTIFY_CALLBACK, recipient, first),
                PowerSettingRegisterNotification(
                    &GUID_LIDSWITCH_STATE_CHANGE,
                    DEVICE_NOTIFY_CALLBACK,
                    recipient,
                    second,
                ),
            )
        };
        Self { sleep: sleep == ERROR_SUCCESS, lid: lid == ERROR_SUCCESS, handles, tell }
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let [first, second] = self.handles.map(|it| HPOWERNOTIFY(it as isize));
        // SAFETY: each was registered once; after both are given up nobody calls, and the sender may go.
        unsafe {
            if self.sleep {
                let _ = PowerUnregisterSuspendResumeNotification(first);
            }
            if self.lid {
                let _ = PowerSettingUnregisterNotification(second);
            }
            drop(Box::from_raw(self.tell));
        }
    }
}

/// Runs on a thread of the system's.
unsafe extern "system" fn called(context: *const c_void, kind: u32, setting: *const c_void) -> u32 {
    // SAFETY: the context is the sender of the registration, which outlives it.
    let tell = unsafe { &*context.cast::<UnboundedSender<Told>>() };
    match kind {
        PBT_APMSUSPEND => {
            let (call, goes_on) = mpsc::channel();
            if tell.send(Told::Sleeps(call)).is_ok() {
                // Returns when the other end is dropped.
                let _ = goes_on.recv_timeout(MOST);
            }
        }
        PBT_APMRESUMEAUTOMATIC => drop(tell.send(Told::Woke)),
        PBT_POWERSETTINGCHANGE if !setting.is_null() => {
            // SAFETY: with this kind comes this structure, whose data is at least one byte.
            let (which, open) = unsafe {
                let setting = setting.cast::<POWERBROADCAST_SETTING>();
                ((*setting).PowerSetting, (*setting).Data[0])
            };
            if which == GUID_LIDSWITCH_STATE_CHANGE {
                drop(tell.send(Told::LidClosed(open == 0)));
            }
        }
        _ => {}
    }
    ERROR_SUCCESS.0
}
