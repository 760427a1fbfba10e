//! Memory by process on Windows, where the display driver model keeps it from NVML: the performance counters
//! `GPU Process Memory`, asked in English on every system.

/// Where a card sits on the PCI bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) bus: u32,
    pub(crate) device: u32,
    pub(crate) function: u32,
}

impl Slot {
    /// From `0000:01:00.0`; Windows knows no domains.
    pub(crate) fn parse(address: &str) -> Option<Self> {
        let (_, slot) = address.split_once(':')?;
        let (bus, rest) = slot.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let hex = |text| u32::from_str_radix(text, 16).ok();
        Some(Self { bus: hex(bus)?, device: hex(device)?, function: hex(function)? })
    }
}

/// Process and adapter of an instance: `pid_1234_luid_0x00000000_0x0000C2B5_phys_0`.
fn instance(name: &str) -> Option<(u32, Luid)> {
    let mut words = name.split('_');
    let mut after = |key: &str| if words.next() == Some(key) { words.next() } else { None };
    let (pid, high) = (after("pid")?.parse().ok()?, after("luid")?);
    let low = words.next()?;
    let hex = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some((pid, Luid { high: hex(high)?, low: hex(low)? }))
}

/// An adapter's number until the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Luid {
    high: u32,
    low: u32,
}

#[cfg(windows)]
pub(crate) use system::Wddm;

#[cfg(windows)]
#[expect(unsafe_code, reason = "Windows' performance counters and display kernel have a C interface")]
mod system {
    use std::collections::BTreeMap;
    use std::ffi::c_void;
    use std::mem::size_of;

    use windows::Wdk::Graphics::Direct3D::{
        D3DKMT_ADAPTERADDRESS, D3DKMT_CLOSEADAPTER, D3DKMT_OPENADAPTERFROMLUID, D3DKMT_QUERYADAPTERINFO,
        D3DKMTCloseAdapter, D3DKMTOpenAdapterFromLuid, D3DKMTQueryAdapterInfo, KMTQAITYPE_ADAPTERADDRESS,
    };
    use windows::Win32::Foundation::LUID;
    use windows::Win32::System::Performance::{
        PDH_CSTATUS_NEW_DATA, PDH_CSTATUS_VALID_DATA, PDH_FMT_COUNTERVALUE_ITEM_W, PDH_FMT_LARGE,
        PDH_HCOUNTER, PDH_HQUERY, PDH_MORE_DATA, PdhAddEnglishCounterW, PdhCloseQuery, PdhCollectQueryData,
        PdhGetFormattedCounterArrayW, PdhOpenQueryW,
    };
    use windows::core::{PCWSTR, w};

    use super::{Luid, Slot, instance};

    /// What a call answers that succeeded.
    const DONE: u32 = 0;

    /// The counters, open as long as this lives: opening them takes longer than reading.
    pub(crate) struct Wddm {
        query: Option<Query>,
        /// Where each adapter sits; `None` for one without a place, such as the software renderer.
        slots: BTreeMap<Luid, Option<Slot>>,
    }

    impl Wddm {
        pub(crate) fn new() -> Self {
            Self { query: Query::open(), slots: BTreeMap::new() }
        }

        /// Bytes of the cards' own memory that each process holds.
        pub(crate) fn vram(&mut self) -> Vec<(u32, Slot, u64)> {
            let told = self.query.as_ref().map(Query::collect).unwrap_or_default();
            let placed = told.into_iter().filter_map(|(name, bytes)| {
                let (pid, luid) = instance(&name)?;
                let slot = *self.slots.entry(luid).or_insert_with(|| slot(luid));
                Some((pid, slot?, u64::try_from(bytes).ok()?))
            });
            placed.collect()
        }
    }

    struct Query {
        query: PDH_HQUERY,
        counter: PDH_HCOUNTER,
    }

    // SAFETY: a query's handle belongs to the process; any thread may use it, one at a time.
    unsafe impl Send for Query {}

    impl Query {
        /// `None` on a Windows without these counters (before 10, or where they are switched off).
        fn open() -> Option<Self> {
            let mut this = Self { query: PDH_HQUERY::default(), counter: PDH_HCOUNTER::default() };
            // SAFETY: the pointers are to fields that live through the calls.
            unsafe {
                if PdhOpenQueryW(PCWSTR::null(), 0, &raw mut this.query) != DONE {
                    return None;
                }
                let path = w!("\\GPU Process Memory(*)\\Dedicated Usage");
                let added = PdhAddEnglishCounterW(this.query, path, 0, &raw mut this.counter);
                (added == DONE).then_some(this)
            }
        }

        /// Each instance with its value now.
        fn collect(&self) -> Vec<(String, i64)> {
            let (mut bytes, mut count) = (0, 0);
            // SAFETY: without a buffer only its size is told.
            let asked = unsafe {
                if PdhCollectQueryData(self.query) != DONE {
                    return Vec::new();
                }
                PdhGetFormattedCounterArrayW(
                    self.counter,
                    PDH_FMT_LARGE,
                    &raw mut bytes,
                    &raw mut count,
                    None,
                )
            };
            if asked != PDH_MORE_DATA {
                return Vec::new();
            }
            // The names lie behind the items in the same buffer.
            let length = (bytes as usize).div_ceil(size_of::<PDH_FMT_COUNTERVALUE_ITEM_W>());
            let mut items = vec![PDH_FMT_COUNTERVALUE_ITEM_W::default(); length];
            // SAFETY: the buffer holds at least `bytes`, and lives until the names were read from it.
            unsafe {
                let buffer = Some(items.as_mut_ptr());
                let told = PdhGetFormattedCounterArrayW(
                    self.counter,
                    PDH_FMT_LARGE,
                    &raw mut bytes,
                    &raw mut count,
                    buffer,
                );
                if told != DONE {
                    return Vec::new();
                }
                let valid = |item: &&PDH_FMT_COUNTERVALUE_ITEM_W| {
                    matches!(item.FmtValue.CStatus, PDH_CSTATUS_VALID_DATA | PDH_CSTATUS_NEW_DATA)
                };
                let items = items.iter().take(count as usize).filter(valid);
                items
                    .filter_map(|it| Some((it.szName.to_string().ok()?, it.FmtValue.Anonymous.largeValue)))
                    .collect()
            }
        }
    }

    impl Drop for Query {
        fn drop(&mut self) {
            // SAFETY: opened once, closed once.
            unsafe { PdhCloseQuery(self.query) };
        }
    }

    fn slot(luid: Luid) -> Option<Slot> {
        let luid = LUID { HighPart: luid.high.cast_signed(), LowPart: luid.low };
        let mut adapter = D3DKMT_OPENADAPTERFROMLUID { AdapterLuid: luid, hAdapter: 0 };
        let mut address = D3DKMT_ADAPTERADDRESS::default();
        // SAFETY: each structure lives through its call, the sizes are those of the structures, the handle is closed once.
        let found = unsafe {
            if D3DKMTOpenAdapterFromLuid(&raw mut adapter).is_err() {
                return None;
            }
            let mut question = D3DKMT_QUERYADAPTERINFO {
                hAdapter: adapter.hAdapter,
                Type: KMTQAITYPE_ADAPTERADDRESS,
                pPrivateDriverData: (&raw mut address).cast::<c_void>(),
                PrivateDriverDataSize: u32::try_from(size_of::<D3DKMT_ADAPTERADDRESS>()).ok()?,
            };
            let found = D3DKMTQueryAdapterInfo(&raw mut question);
            let _ = D3DKMTCloseAdapter(&D3DKMT_CLOSEADAPTER { hAdapter: adapter.hAdapter });
            found
        };
        let slot =
            Slot { bus: address.BusNumber, device: address.DeviceNumber, function: address.FunctionNumber };
        found.is_ok().then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_names_its_process_and_adapter() {
        let told = instance("pid_1234_luid_0x00000001_0x0000C2B5_phys_0");
        assert_eq!(told, Some((1234, Luid { high: 1, low: 0xc2b5 })));
        for other in ["_Total", "", "pid_x_luid_0x0_0x1", "pid_12_luid_0x0", "luid_0x0_0x1_pid_12"] {
            assert_eq!(instance(other), None, "{other}");
        }
    }

    #[test]
    fn a_card_is_found_by_its_place_on_the_bus() {
        assert_eq!(Slot::parse("0000:0a:1f.3"), Some(Slot { bus: 10, device: 31, function: 3 }));
        assert_eq!(Slot::parse("nonsense"), None);
    }

    #[cfg(windows)]
    #[test]
    fn a_system_without_the_counters_tells_nothing_and_one_with_them_tells_processes() {
        let mut wddm = Wddm::new();
        for _ in 0..2 {
            assert!(
                wddm.vram().iter().all(|(pid, slot, _)| *pid > 0 && slot.device < 32 && slot.function < 8)
            );
        }
    }
}
