//! What Windows is asked: the power supply, memory, the cost of the connection, how long it slept; and to stay awake.
#![expect(unsafe_code, reason = "Windows' power and networks have a C interface")]

use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use ::windows::Win32::Foundation::CloseHandle;
use ::windows::Win32::Networking::NetworkListManager::{
    INetworkCostManager, NLM_CONNECTION_COST_UNKNOWN, NLM_CONNECTION_COST_UNRESTRICTED, NetworkListManager,
};
use ::windows::Win32::System::Com::{
    CLSCTX_ALL, COINIT_MULTITHREADED, CoCreateInstance, CoInitializeEx, CoUninitialize,
};
use ::windows::Win32::System::Memory::{
    CreateMemoryResourceNotification, LowMemoryResourceNotification, QueryMemoryResourceNotification,
};
use ::windows::Win32::System::Power::{
    ES_CONTINUOUS, ES_SYSTEM_REQUIRED, EXECUTION_STATE, SetThreadExecutionState,
};
use ::windows::Win32::System::SystemInformation::GetTickCount64;
use ::windows::Win32::System::WindowsProgramming::QueryUnbiasedInterruptTime;
use ::windows::core::BOOL;
use idlewatt_core::machine::Supply;
use idlewatt_devices::{Places, supply};

use crate::Sight;

/// The answers of one turn.
pub(super) struct Asked {
    pub(super) supply: Option<Supply>,
    pub(super) metered: Option<bool>,
    pub(super) memory_short: Option<bool>,
}

impl Asked {
    /// Blocks for some milliseconds.
    pub(super) fn now(places: &Places) -> Self {
        Self { supply: supply(places), metered: is_metered(), memory_short: is_memory_short() }
    }

    pub(super) fn sights(&self) -> [Sight; 3] {
        let said = |subject, told: Option<&str>| Sight {
            subject,
            reading: told.map(|told| format!("Windows says: {told}")),
            unseen: None,
        };
        [
            said(
                "power supply",
                self.supply.map(|it| if it == Supply::Mains { "the mains" } else { "a battery" }),
            ),
            said(
                "connection",
                self.metered.map(|it| if it { "paid by volume" } else { "not paid by volume" }),
            ),
            said("memory", self.memory_short.map(|it| if it { "short" } else { "enough" })),
        ]
    }
}

fn is_metered() -> Option<bool> {
    let mut cost = 0;
    // SAFETY: COM is begun and ended on this thread around its use, and the number lives through the call.
    unsafe {
        let begun = CoInitializeEx(None, COINIT_MULTITHREADED).is_ok();
        let told = CoCreateInstance::<_, INetworkCostManager>(&NetworkListManager, None, CLSCTX_ALL)
            .and_then(|manager| manager.GetCost(&raw mut cost, std::ptr::null()));
        if begun {
            CoUninitialize();
        }
        told.ok()?;
    }
    #[expect(clippy::cast_sign_loss, reason = "bits")]
    let (unknown, free) = (NLM_CONNECTION_COST_UNKNOWN.0 as u32, NLM_CONNECTION_COST_UNRESTRICTED.0 as u32);
    (cost != unknown).then_some(cost & free == 0)
}

/// Windows' own threshold: about 32 MB for each 4 GB, 64 MB at most.
fn is_memory_short() -> Option<bool> {
    let mut short = BOOL(0);
    // SAFETY: the handle is closed here, and the answer lives through the call.
    unsafe {
        let notification = CreateMemoryResourceNotification(LowMemoryResourceNotification).ok()?;
        let told = QueryMemoryResourceNotification(notification, &raw mut short);
        drop(CloseHandle(notification));
        told.ok()?;
    }
    Some(short.as_bool())
}

/// How long the machine has slept since it started: one clock counts sleep, the other does not.
pub(crate) fn slept() -> Duration {
    /// Of 100 ns.
    const UNITS_A_MICROSECOND: u64 = 10;
    let mut awake = 0;
    // SAFETY: the number lives through the call.
    let (told, all) = unsafe { (QueryUnbiasedInterruptTime(&raw mut awake).as_bool(), GetTickCount64()) };
    let awake = Duration::from_micros(awake / UNITS_A_MICROSECOND);
    if told { Duration::from_millis(all).saturating_sub(awake) } else { Duration::ZERO }
}

/// Keeps the machine awake until it is dropped. Windows keeps such a wish for a thread, so one waits for the end of this.
#[derive(Debug)]
pub(super) struct Request {
    _end: Sender<()>,
}

impl Request {
    pub(super) fn stay_awake() -> Result<Self, &'static str> {
        let (end, ended) = channel::<()>();
        let (tell, told) = channel();
        let hold = move || {
            // SAFETY: asks for nothing but the flags.
            let before = unsafe { SetThreadExecutionState(ES_CONTINUOUS | ES_SYSTEM_REQUIRED) };
            let _ = tell.send(before != EXECUTION_STATE(0));
            // Returns when the other end is dropped; with this thread goes its wish.
            let _ = ended.recv();
        };
        std::thread::Builder::new()
            .name("awake".into())
            .spawn(hold)
            .map_err(|_| "there is no thread for it")?;
        match told.recv() {
            Ok(true) => Ok(Self { _end: end }),
            _ => Err("Windows did not take the wish"),
        }
    }
}
