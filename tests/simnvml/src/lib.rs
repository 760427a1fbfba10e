//! A simulated NVML: cards behind NVML's own C symbols, for tests. Product code loads it as it loads the driver's.
//!
//! It knows nothing of Idlewatt. A test steers it by a JSON file ([`control`]) whose path is in `IDLEWATT_SIMNVML`, or
//! else `simnvml.json` beside the library itself: copy the library for each test that wants cards of its own. What
//! really happened is written to `simnvml.csv` beside the control file, one line a card and 10 ms:
//! `unix_us,card,power_mw,energy_mj,temperature_mc`.
//!
//! The cards are one machine's: every process that loads the library beside the same control file sees the same limits and
//! the same energy, which outlive it in `simnvml.state`. Only a process with `IDLEWATT_SIMNVML_RIGHT` in its environment
//! sets limits, as only root does.
//!
//! The truth is no estimator's model: power follows the load with a lag, sensors look back, refresh late and carry
//! noise, and the counter has a gain of its own.

#![expect(
    unsafe_code,
    clippy::missing_safety_doc,
    reason = "the C ABI of NVML; its header says what is safe"
)]

mod control;
pub mod rig;
mod sim;
mod state;

use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use control::Fault;
use sim::{Card, Sim};

const SUCCESS: c_uint = 0;
const UNINITIALIZED: c_uint = 1;
const INVALID_ARGUMENT: c_uint = 2;
const INSUFFICIENT_SIZE: c_uint = 7;
const NOT_SUPPORTED: c_uint = 3;

const MEMORY_TEMPERATURE: c_uint = 82;
const POWER_AVERAGE: c_uint = 185;
const POWER_INSTANT: c_uint = 186;
const UNSIGNED_INT: c_uint = 1;

/// A pointer that is the card's number plus one.
type Device = *mut c_void;

static SIM: Mutex<Option<Sim>> = Mutex::new(None);

fn sim() -> MutexGuard<'static, Option<Sim>> {
    SIM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks one card one thing, by the name that its faults are steered by.
fn ask<T>(
    device: Device,
    what: &str,
    answer: impl FnOnce(&mut Card) -> Result<T, Fault>,
) -> Result<T, c_uint> {
    let mut sim = sim();
    let sim = sim.as_mut().ok_or(UNINITIALIZED)?;
    sim.advance();
    if !sim.is_loaded() {
        return Err(UNINITIALIZED);
    }
    let card = sim.cards.get_mut(number(device)?).ok_or(INVALID_ARGUMENT)?;
    card.fault(what).and_then(|()| answer(card)).map_err(Fault::code)
}

/// The card's place in the list.
fn number(device: Device) -> Result<usize, c_uint> {
    (device as usize).checked_sub(1).ok_or(INVALID_ARGUMENT)
}

unsafe fn give<T>(to: *mut T, answer: Result<T, c_uint>) -> c_uint {
    if to.is_null() {
        return INVALID_ARGUMENT;
    }
    match answer {
        Ok(value) => {
            unsafe { to.write(value) };
            SUCCESS
        }
        Err(code) => code,
    }
}

unsafe fn give_text(to: *mut c_char, length: c_uint, answer: Result<String, c_uint>) -> c_uint {
    let text = match answer.map(CString::new) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => return INVALID_ARGUMENT,
        Err(code) => return code,
    };
    let bytes = text.as_bytes_with_nul();
    if to.is_null() || bytes.len() > length as usize {
        return INSUFFICIENT_SIZE;
    }
    unsafe { bytes.as_ptr().cast::<c_char>().copy_to_nonoverlapping(to, bytes.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_uint {
    let mut sim = sim();
    let started = sim.get_or_insert_with(Sim::start);
    started.advance();
    match started.control.init_error {
        Some(fault) => fault.code(),
        None => {
            if started.users == 0 {
                started.loaded = started.control.driver_loads;
            }
            started.users += 1;
            SUCCESS
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_uint {
    match sim().as_mut() {
        Some(sim) if sim.users > 0 => {
            sim.users -= 1;
            SUCCESS
        }
        _ => UNINITIALIZED,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> c_uint {
    let answer = sim().as_ref().map(|sim| sim.control.driver.clone()).ok_or(UNINITIALIZED);
    unsafe { give_text(version, length, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_uint {
    let mut sim = sim();
    let answer = sim.as_mut().ok_or(UNINITIALIZED).and_then(|sim| {
        sim.advance();
        if sim.is_loaded() { Ok(sim.cards.len() as c_uint) } else { Err(UNINITIALIZED) }
    });
    unsafe { give(count, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut Device) -> c_uint {
    let handle = (index as usize + 1) as Device;
    unsafe { give(device, ask(handle, "handle", |_| Ok(handle))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut Device) -> c_uint {
    const NOT_FOUND: c_uint = 6;
    if uuid.is_null() {
        return INVALID_ARGUMENT;
    }
    let uuid = unsafe { CStr::from_ptr(uuid) };
    let index = match sim().as_mut() {
        Some(sim) => {
            sim.advance();
            sim.cards.iter().position(|card| card.control.uuid.as_bytes() == uuid.to_bytes())
        }
        None => return UNINITIALIZED,
    };
    let Some(index) = index else { return NOT_FOUND };
    let handle = (index + 1) as Device;
    unsafe { give(device, ask(handle, "handle", |_| Ok(handle))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Device, name: *mut c_char, length: c_uint) -> c_uint {
    unsafe { give_text(name, length, ask(device, "name", |card| Ok(card.control.name.clone()))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Device, uuid: *mut c_char, length: c_uint) -> c_uint {
    unsafe { give_text(uuid, length, ask(device, "uuid", |card| Ok(card.control.uuid.clone()))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetArchitecture(device: Device, architecture: *mut c_uint) -> c_uint {
    unsafe { give(architecture, ask(device, "architecture", |card| Ok(card.control.architecture))) }
}

#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [c_char; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    pci_device_id: c_uint,
    pci_sub_system_id: c_uint,
    bus_id: [c_char; 32],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(device: Device, info: *mut PciInfo) -> c_uint {
    let answer = ask(device, "pci", |card| {
        let mut info = PciInfo {
            bus_id_legacy: [0; 16],
            domain: 0,
            bus: 0,
            device: 0,
            pci_device_id: 0,
            pci_sub_system_id: 0,
            bus_id: [0; 32],
        };
        // The last byte stays the end of the text.
        for (to, from) in info.bus_id[..31].iter_mut().zip(card.control.pci.bytes()) {
            *to = from as c_char;
        }
        Ok(info)
    });
    unsafe { give(info, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: Device, power: *mut c_uint) -> c_uint {
    unsafe { give(power, ask(device, "power", |card| Ok(card.averaged_power()))) }
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union Value {
    double: f64,
    unsigned: c_uint,
    wide: c_ulonglong,
}

#[repr(C)]
pub struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp: c_longlong,
    latency: c_longlong,
    value_type: c_uint,
    result: c_uint,
    value: Value,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: Device,
    count: c_int,
    values: *mut FieldValue,
) -> c_uint {
    let (Ok(count), false) = (usize::try_from(count), values.is_null()) else { return INVALID_ARGUMENT };
    // As the driver does: the call succeeds, and each field has its own result.
    if let Err(code) = ask(device, "fields", |_| Ok(())) {
        return code;
    }
    for field in unsafe { std::slice::from_raw_parts_mut(values, count) } {
        let answer = match field.field {
            POWER_INSTANT => ask(device, "power_instant", |card| Ok(card.instant_power())),
            POWER_AVERAGE => ask(device, "power_average", |card| Ok(card.averaged_power())),
            MEMORY_TEMPERATURE => ask(device, "memory_temperature", |card| Ok(card.memory_temperature())),
            _ => Err(NOT_SUPPORTED),
        };
        field.value_type = UNSIGNED_INT;
        match answer {
            Ok(value) => {
                field.result = SUCCESS;
                field.value = Value { unsigned: value };
            }
            Err(code) => field.result = code,
        }
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEnergyConsumption(
    device: Device,
    energy: *mut c_ulonglong,
) -> c_uint {
    unsafe { give(energy, ask(device, "energy", |card| Ok(card.counter()))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: Device,
    sensor: c_uint,
    celsius: *mut c_uint,
) -> c_uint {
    let answer = ask(device, "temperature", |card| {
        if sensor == 0 { Ok(card.temperature()) } else { Err(Fault::NotSupported) }
    });
    unsafe { give(celsius, answer) }
}

#[repr(C)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Device, memory: *mut Memory) -> c_uint {
    if memory.is_null() {
        return INVALID_ARGUMENT;
    }
    let version = unsafe { (*memory).version };
    let answer = ask(device, "memory", |card| {
        let (total, used) = (card.control.vram_total, card.control.vram_used);
        Ok(Memory { version, total, reserved: 0, free: total.saturating_sub(used), used })
    });
    unsafe { give(memory, answer) }
}

#[repr(C)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(device: Device, rates: *mut Utilization) -> c_uint {
    let answer = ask(device, "utilisation", |card| Ok(Utilization { gpu: card.utilisation(), memory: 0 }));
    unsafe { give(rates, answer) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: Device, limit: *mut c_uint) -> c_uint {
    unsafe { give(limit, ask(device, "limit", |card| Ok(card.limit()))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementLimit(device: Device, limit: *mut c_uint) -> c_uint {
    unsafe { give(limit, ask(device, "own_limit", |card| Ok(card.limit()))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    device: Device,
    min: *mut c_uint,
    max: *mut c_uint,
) -> c_uint {
    let range = ask(device, "limit_range", |card| Ok(card.control.limit_range_w.map(|watts| watts * 1000)));
    match unsafe { give(min, range.map(|[min, _]| min)) } {
        SUCCESS => unsafe { give(max, range.map(|[_, max]| max)) },
        code => code,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetPowerManagementLimit(device: Device, limit: c_uint) -> c_uint {
    let set = ask(device, "set_limit", |_| Ok(())).and_then(|()| number(device)).and_then(|index| {
        let mut sim = sim();
        sim.as_mut().ok_or(UNINITIALIZED)?.set_limit(index, limit)
    });
    set.err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNumFans(device: Device, fans: *mut c_uint) -> c_uint {
    unsafe { give(fans, ask(device, "fan", |_| Ok(1))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFanSpeed(device: Device, percent: *mut c_uint) -> c_uint {
    unsafe { give(percent, ask(device, "fan", |card| Ok(card.fan()))) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFanSpeed_v2(
    device: Device,
    fan: c_uint,
    percent: *mut c_uint,
) -> c_uint {
    let speed = if fan == 0 { ask(device, "fan", |card| Ok(card.fan())) } else { Err(INVALID_ARGUMENT) };
    unsafe { give(percent, speed) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerManagementDefaultLimit(
    device: Device,
    limit: *mut c_uint,
) -> c_uint {
    unsafe { give(limit, ask(device, "default_limit", |card| Ok(card.control.default_limit_w * 1000))) }
}

#[repr(C)]
pub struct ProcessInfo {
    pid: c_uint,
    used_gpu_memory: c_ulonglong,
    gpu_instance_id: c_uint,
    compute_instance_id: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    processes: *mut ProcessInfo,
) -> c_uint {
    /// As on Windows: memory by process is not available.
    const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    let found = match ask(device, "processes", |card| Ok(card.control.processes.clone())) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let wddm = sim().as_ref().is_some_and(|sim| sim.control.wddm);
    let room = unsafe { *count } as usize;
    unsafe { count.write(found.len() as c_uint) };
    if found.is_empty() {
        return SUCCESS;
    }
    if processes.is_null() || room < found.len() {
        return INSUFFICIENT_SIZE;
    }
    for (index, process) in found.iter().enumerate() {
        let info = ProcessInfo {
            pid: process.pid,
            used_gpu_memory: process.vram.filter(|_| !wddm).unwrap_or(NOT_AVAILABLE),
            gpu_instance_id: c_uint::MAX,
            compute_instance_id: c_uint::MAX,
        };
        unsafe { processes.add(index).write(info) };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: Device,
    count: *mut c_uint,
    _processes: *mut ProcessInfo,
) -> c_uint {
    unsafe { give(count, ask(device, "processes", |_| Ok(0))) }
}

#[repr(C)]
pub struct ProcessUtilizationSample {
    pid: c_uint,
    time_stamp: c_ulonglong,
    sm_util: c_uint,
    mem_util: c_uint,
    enc_util: c_uint,
    dec_util: c_uint,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: Device,
    samples: *mut ProcessUtilizationSample,
    count: *mut c_uint,
    last_seen: c_ulonglong,
) -> c_uint {
    if count.is_null() {
        return INVALID_ARGUMENT;
    }
    let found = match ask(device, "processes", |card| Ok(card.control.processes.clone())) {
        Ok(found) => found,
        Err(code) => return code,
    };
    let busy: Vec<_> = found.iter().filter_map(|it| Some((it.pid, it.utilisation?))).collect();
    if busy.is_empty() {
        return NOT_SUPPORTED;
    }
    let room = unsafe { *count } as usize;
    unsafe { count.write(busy.len() as c_uint) };
    if samples.is_null() || room < busy.len() {
        return INSUFFICIENT_SIZE;
    }
    for (index, (pid, sm_util)) in busy.into_iter().enumerate() {
        let sample = ProcessUtilizationSample {
            pid,
            time_stamp: last_seen + 1,
            sm_util,
            mem_util: 0,
            enc_util: 0,
            dec_util: 0,
        };
        unsafe { samples.add(index).write(sample) };
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_code: c_uint) -> *const c_char {
    c"simulated".as_ptr()
}
