//! Processes by name.

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::running::Process;

/// All processes.
pub(crate) fn processes() -> Vec<Process> {
    let Ok(mut system) = System::new() else { return Vec::new() };
    let wanted = ProcessRefreshKind::nothing().with_exe(UpdateKind::Always).with_user(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, wanted);
    let own = system.process(Pid::from_u32(std::process::id())).and_then(|it| it.user_id()).cloned();
    let process = |it: &sysinfo::Process| Process {
        name: it.name().to_string_lossy().into_owned(),
        path: it.exe().map(|it| it.to_string_lossy().into_owned()),
        is_mine: own.is_some() && it.user_id() == own.as_ref(),
    };
    system.processes().values().map(process).collect()
}
