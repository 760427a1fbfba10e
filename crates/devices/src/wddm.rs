//! Memory and load by process on Windows, where the display driver model keeps them from NVML: the performance counters
//! `GPU Process Memory` and `GPU Engine`, asked in English on every system.

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

/// What a process uses of a card.
#[cfg(windows)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) pid: u32,
    pub(crate) card: Slot,
    /// Bytes of the card's own memory.
    pub(crate) vram: Option<u64>,
    /// Percent of the time since the last look in which its busiest engine that computes was busy.
    pub(crate) load: Option<u8>,
}

/// Whether an instance, `pid_1234_luid_0x0_0xC2B5_phys_0_eng_0_engtype_3D`, is of an engine that games, renderers and models
/// run on. Films have engines of their own, and copies too.
fn computes(name: &str) -> bool {
    let kind = name.rsplit_once("_engtype_").map(|(_, kind)| kind.to_ascii_lowercase());
    kind.is_some_and(|it| it == "3d" || it.starts_with("compute") || it.starts_with("cuda"))
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
        PDH_CSTATUS_NEW_DATA, PDH_CSTATUS_VALID_DATA, PDH_FMT, PDH_FMT_COUNTERVALUE,
        PDH_FMT_COUNTERVALUE_ITEM_W, PDH_FMT_DOUBLE, PDH_FMT_LARGE, PDH_HCOUNTER, PDH_HQUERY, PDH_MORE_DATA,
        PdhAddEnglishCounterW, PdhCloseQuery, PdhCollectQueryData, PdhGetFormattedCounterArrayW,
        PdhOpenQueryW,
    };
    use windows::core::{PCWSTR, w};

    use super::{Luid, Slot, Use, computes, instance};

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

        /// What each process uses of each card. Loads are known from the second look on.
        pub(crate) fn uses(&mut self) -> Vec<Use> {
            let Some((memory, engines)) = self.query.as_ref().and_then(Query::collect) else {
                return Vec::new();
            };
            let mut uses: BTreeMap<(u32, Luid), (Option<u64>, Option<f64>)> = BTreeMap::new();
            for (name, value) in memory {
                let Some(whose) = instance(&name) else { continue };
                // SAFETY: it was asked for as a whole number.
                let bytes = u64::try_from(unsafe { value.Anonymous.largeValue }).unwrap_or_default();
                let known = &mut uses.entry(whose).or_default().0;
                *known = Some(known.unwrap_or(0).saturating_add(bytes));
            }
            for (name, value) in engines.into_iter().filter(|(name, _)| computes(name)) {
                let Some(whose) = instance(&name) else { continue };
                // SAFETY: it was asked for as a floating number.
                let percent = unsafe { value.Anonymous.doubleValue };
                let known = &mut uses.entry(whose).or_default().1;
                *known = Some(known.unwrap_or(0.0).max(percent));
            }
            let placed = uses.into_iter().filter_map(|((pid, luid), (vram, load))| {
                let card = (*self.slots.entry(luid).or_insert_with(|| slot(luid)))?;
                Some(Use { pid, card, vram, load: load.map(percent) })
            });
            placed.collect()
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is from 0 to 100")]
    fn percent(value: f64) -> u8 {
        value.clamp(0.0, 100.0).round() as u8
    }

    /// Instances with their values.
    type Told = Vec<(String, PDH_FMT_COUNTERVALUE)>;

    struct Query {
        query: PDH_HQUERY,
        memory: PDH_HCOUNTER,
        engines: PDH_HCOUNTER,
    }

    // SAFETY: a query's handle belongs to the process; any thread may use it, one at a time.
    unsafe impl Send for Query {}

    impl Query {
        /// `None` on a Windows without these counters (before 10, or where they are switched off).
        fn open() -> Option<Self> {
            let none = PDH_HCOUNTER::default;
            let mut this = Self { query: PDH_HQUERY::default(), memory: none(), engines: none() };
            // SAFETY: the pointers are to fields that live through the calls.
            unsafe {
                if PdhOpenQueryW(PCWSTR::null(), 0, &raw mut this.query) != DONE {
                    return None;
                }
                let memory = w!("\\GPU Process Memory(*)\\Dedicated Usage");
                let engines = w!("\\GPU Engine(*)\\Utilization Percentage");
                let added = PdhAddEnglishCounterW(this.query, memory, 0, &raw mut this.memory) == DONE
                    && PdhAddEnglishCounterW(this.query, engines, 0, &raw mut this.engines) == DONE;
                added.then_some(this)
            }
        }

        /// Memory and engines now; a load is what went on since the last time.
        fn collect(&self) -> Option<(Told, Told)> {
            // SAFETY: the query is open as long as this lives.
            let collected = unsafe { PdhCollectQueryData(self.query) } == DONE;
            collected.then(|| (values(self.memory, PDH_FMT_LARGE), values(self.engines, PDH_FMT_DOUBLE)))
        }
    }

    /// Each instance of a counter with its value; none that is not valid yet.
    fn values(counter: PDH_HCOUNTER, format: PDH_FMT) -> Told {
        let (mut bytes, mut count) = (0, 0);
        // SAFETY: without a buffer only its size is told.
        let asked =
            unsafe { PdhGetFormattedCounterArrayW(counter, format, &raw mut bytes, &raw mut count, None) };
        if asked != PDH_MORE_DATA {
            return Vec::new();
        }
        // The names lie behind the items in the same buffer.
        let length = (bytes as usize).div_ceil(size_of::<PDH_FMT_COUNTERVALUE_ITEM_W>());
        let mut items = vec![PDH_FMT_COUNTERVALUE_ITEM_W::default(); length];
        // SAFETY: the buffer holds at least `bytes`, and lives until the names were read from it.
        unsafe {
            let buffer = Some(items.as_mut_ptr());
            let told = PdhGetFormattedCounterArrayW(counter, format, &raw mut bytes, &raw mut count, buffer);
            if told != DONE {
                return Vec::new();
            }
            let valid = |item: &&PDH_FMT_COUNTERVALUE_ITEM_W| {
                matches!(item.FmtValue.CStatus, PDH_CSTATUS_VALID_DATA | PDH_CSTATUS_NEW_DATA)
            };
            let items = items.iter().take(count as usize).filter(valid);
            items.filter_map(|it| Some((it.szName.to_string().ok()?, it.FmtValue))).collect()
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
    fn an_engine_of_films_or_copies_is_no_load() {
        let told = |kind: &str| format!("pid_1234_luid_0x00000000_0x0000C2B5_phys_0_eng_0_engtype_{kind}");
        for kind in ["3D", "Compute_0", "Compute", "Cuda"] {
            assert!(computes(&told(kind)), "{kind}");
            assert_eq!(instance(&told(kind)).map(|it| it.0), Some(1234));
        }
        for kind in ["VideoDecode", "VideoEncode", "Copy", "VR", "Security_1", ""] {
            assert!(!computes(&told(kind)), "{kind}");
        }
        assert!(!computes("_Total"));
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
            let uses = wddm.uses();
            assert!(uses.iter().all(|it| it.pid > 0 && it.card.device < 32 && it.card.function < 8));
        }
    }
}
