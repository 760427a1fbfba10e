//! Programs that run, by name.

use idlewatt_core::presence::App;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::Program;

/// What Windows itself runs in every session.
const SYSTEM: [&str; 12] = [
    "svchost",
    "conhost",
    "dllhost",
    "RuntimeBroker",
    "sihost",
    "taskhostw",
    "ctfmon",
    "explorer",
    "SearchHost",
    "StartMenuExperienceHost",
    "ShellExperienceHost",
    "backgroundTaskHost",
];

/// A process's name without `.exe`.
pub(super) fn name(pid: u32) -> Option<String> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
    system.process(pid).map(|it| plain(&it.name().to_string_lossy()))
}

/// Of these names or paths, those that run.
pub(super) fn of(wanted: &[String]) -> Vec<App> {
    let system = all();
    let runs = |wanted: &&String| {
        let by_path = wanted.contains(['\\', '/']);
        system.processes().values().any(|it| {
            if by_path {
                it.exe().is_some_and(|exe| exe.to_string_lossy().eq_ignore_ascii_case(wanted))
            } else {
                plain(&it.name().to_string_lossy()).eq_ignore_ascii_case(&plain(wanted))
            }
        })
    };
    wanted.iter().filter(runs).map(|it| App { name: it.clone() }).collect()
}

pub(super) fn programs() -> Vec<Program> {
    let system = all();
    let own = system.process(Pid::from_u32(std::process::id())).and_then(|it| it.session_id());
    let mine = system.processes().values().filter(|it| it.session_id() == own && it.exe().is_some());
    mine.map(|it| {
        let name = plain(&it.name().to_string_lossy());
        let likely = !SYSTEM.iter().any(|it| it.eq_ignore_ascii_case(&name));
        Program { name, likely }
    })
    .collect()
}

fn all() -> System {
    let mut system = System::new();
    let wanted = ProcessRefreshKind::nothing().with_exe(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, wanted);
    system
}

fn plain(name: &str) -> String {
    let end = name.len().saturating_sub(4);
    match name.get(end..) {
        Some(ending) if ending.eq_ignore_ascii_case(".exe") => name.get(..end).unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    }
}
