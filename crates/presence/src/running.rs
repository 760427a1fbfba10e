//! Programs that run, by name, on Windows and macOS: which of the list, and which there are to choose from.

use idlewatt_core::presence::{Activity, App};
use tokio::sync::watch;

use crate::Program;
use crate::platform::processes;
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

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    /// The name of its file.
    pub(crate) name: String,
    /// Where its file is, where that may be known.
    pub(crate) path: Option<String>,
    /// Whether it is of this session.
    pub(crate) is_mine: bool,
}

/// Of these names or paths, those that run.
fn of(wanted: &[String]) -> Vec<App> {
    let running = processes();
    let runs = |wanted: &&String| {
        let by_path = wanted.contains(['\\', '/']);
        running.iter().any(|it| match (by_path, &it.path) {
            (true, Some(path)) => path.eq_ignore_ascii_case(wanted),
            (true, None) => false,
            (false, _) => plain(&it.name).eq_ignore_ascii_case(plain(wanted)),
        })
    };
    wanted.iter().filter(runs).map(|it| App { name: it.clone() }).collect()
}

pub(crate) fn programs() -> Vec<Program> {
    let mine = processes().into_iter().filter(|it| it.is_mine);
    mine.map(|it| {
        let name = plain(&it.name).to_owned();
        let of_the_system =
            it.path.is_some_and(|path| path.starts_with("/System") || path.starts_with("/usr"));
        let likely = !of_the_system && !SYSTEM.iter().any(|it| it.eq_ignore_ascii_case(&name));
        Program { name, likely }
    })
    .collect()
}

/// Without `.exe`.
pub(crate) fn plain(name: &str) -> &str {
    let end = name.len().saturating_sub(4);
    match name.get(end..) {
        Some(ending) if ending.eq_ignore_ascii_case(".exe") => name.get(..end).unwrap_or(name),
        _ => name,
    }
}
