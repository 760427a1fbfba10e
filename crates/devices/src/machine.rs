//! The machine around the cards, for `doctor`.

use std::fmt;

use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// Processor and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor's own name; `None` where it has none.
    pub cpu: Option<String>,
    /// Logical processors.
    pub threads: usize,
    /// Memory, bytes.
    pub memory: u64,
    /// Of it, what programs could still take without anything being swapped out, bytes.
    pub available: u64,
}

impl Machine {
    /// Looks once; `None` where the system does not tell.
    #[must_use]
    pub fn look() -> Option<Self> {
        let wanted = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(wanted).ok()?;
        let cpu = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
        Some(Self {
            cpu: cpu.filter(|name| !name.is_empty()),
            threads: system.cpus().len(),
            memory: system.total_memory(),
            available: system.available_memory(),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gibibytes = (self.memory + (1 << 29)) >> 30;
        let cpu = self.cpu.as_deref().unwrap_or("unnamed processor");
        write!(f, "{cpu}, {} threads, {gibibytes} GiB memory", self.threads)
    }
}
