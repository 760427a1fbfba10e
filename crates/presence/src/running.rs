//! Programs that run, by name, where the system has one way to list them: Windows and macOS.

use idlewatt_core::presence::{Activity, App};
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
use tokio::sync::watch;

use crate::Program;
use crate::teller::Teller;

/// What Windows itself runs in every session; a Mac's own programs live below `/System`.
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

/// Looks whether any of the host's list runs.
pub(crate) async fn look(listed: &watch::Receiver<Vec<String>>, teller: &Teller) {
    let wanted = listed.borrow().clone();
    if wanted.is_empty() {
        teller.unheard("listed programs", "none are listed, or none matter now");
        return;
    }
    let found = tokio::task::spawn_blocking(move || of(&wanted)).await.unwrap_or_default();
    let says = format!("{} of them run", found.len());
    teller.says("listed programs", says, Activity { listed: found, ..Activity::default() });
}

/// A process's name without `.exe`.
#[cfg(windows)]
pub(crate) fn name(pid: u32) -> Option<String> {
    let pid = Pid::from_u32(pid);
    let mut system = System::new().ok()?;
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
    system.process(pid).map(|it| plain(&it.name().to_string_lossy()))
}

/// Of these names or paths, those that run.
fn of(wanted: &[String]) -> Vec<App> {
    let Some(system) = all() else { return Vec::new() };
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

pub(crate) fn programs() -> Vec<Program> {
    let Some(system) = all() else { return Vec::new() };
    let own = system.process(Pid::from_u32(std::process::id())).and_then(|it| it.session_id());
    let mine = system.processes().values().filter(|it| it.session_id() == own && it.exe().is_some());
    mine.map(|it| {
        let name = plain(&it.name().to_string_lossy());
        let of_the_system = it.exe().is_some_and(|exe| exe.starts_with("/System") || exe.starts_with("/usr"));
        let likely = !of_the_system && !SYSTEM.iter().any(|it| it.eq_ignore_ascii_case(&name));
        Program { name, likely }
    })
    .collect()
}

fn all() -> Option<System> {
    let mut system = System::new().ok()?;
    let wanted = ProcessRefreshKind::nothing().with_exe(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, wanted);
    Some(system)
}

fn plain(name: &str) -> String {
    let end = name.len().saturating_sub(4);
    match name.get(end..) {
        Some(ending) if ending.eq_ignore_ascii_case(".exe") => name.get(..end).unwrap_or(name).to_owned(),
        _ => name.to_owned(),
    }
}
