//! Programs that run, by name and by the file they were started from. The kernel tells an ordinary account of no start and
//! no end, so they are looked through now and then, and only while the host's list asks for it. What is read is what the
//! kernel itself knows of a process (its name, its file, its control group); never its arguments, environment or memory.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idlewatt_core::presence::{Activity, App};
use tokio::sync::watch;

use crate::Program;
use crate::teller::Teller;

const NAME: &str = "listed programs";

/// How often running programs are looked through.
const AGAIN: Duration = Duration::from_secs(5);

/// The kernel keeps 15 bytes of a process's name (`TASK_COMM_LEN` in `include/linux/sched.h`, less the closing zero).
const COMM: usize = 15;

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// As the kernel calls it, cut to [`COMM`] bytes.
    comm: String,
    /// What it was started from; only told of processes of this account.
    file: Option<PathBuf>,
}

impl Process {
    /// `None` once it has ended.
    pub(super) fn read(proc: &Path, pid: u32) -> Option<Self> {
        let folder = proc.join(pid.to_string());
        let comm = std::fs::read(folder.join("comm")).ok()?;
        let comm = String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned();
        Some(Self { pid, comm, file: std::fs::read_link(folder.join("exe")).ok() })
    }

    /// What a person calls it: the file's name where the kernel's is cut from it. A script keeps its own name rather than
    /// its interpreter's, and a Windows game its own rather than Wine's.
    pub(super) fn name(&self) -> String {
        let file = self.file.as_deref().and_then(Path::file_name).map(OsStr::to_string_lossy);
        match file {
            Some(file) if self.comm.len() >= COMM && file.starts_with(&self.comm) => file.into_owned(),
            _ => self.comm.clone(),
        }
    }

    /// Whether the host means this one by `entry`: a path, or a name in any case.
    fn is(&self, entry: &str) -> bool {
        if entry.contains('/') {
            return self.file.as_deref() == Some(Path::new(entry));
        }
        let entry = entry.as_bytes();
        let cut = entry.get(..COMM).unwrap_or(entry);
        let file = self.file.as_deref().and_then(Path::file_name).map(OsStr::as_bytes);
        self.comm.as_bytes().eq_ignore_ascii_case(cut)
            || file.is_some_and(|file| file.eq_ignore_ascii_case(entry))
    }
}

/// All processes but the kernel's own threads.
fn running(proc: &Path) -> impl Iterator<Item = Process> {
    let pids = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Process::read(proc, pid))
}

/// Tells which programs of the host's list run, for as long as there is a list.
pub(super) async fn follow(proc: &Path, mut listed: watch::Receiver<Vec<String>>, teller: &Teller) {
    loop {
        let entries = listed.borrow_and_update().clone();
        if entries.is_empty() {
            teller.says(NAME, "none is looked for now", Activity::default());
            if listed.changed().await.is_err() {
                return;
            }
            continue;
        }
        let (among, count) = (proc.to_owned(), entries.len());
        let look = tokio::task::spawn_blocking(move || which(&among, entries));
        let Ok(found) = look.await else { return };
        let says = format!("{} of {count} run", found.len());
        teller.says(NAME, says, Activity { listed: found, ..Activity::default() });
        tokio::select! {
            changed = listed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Those entries that a process is meant by, in the list's order.
fn which(proc: &Path, mut entries: Vec<String>) -> Vec<App> {
    let processes: Vec<Process> = running(proc).collect();
    entries.retain(|entry| processes.iter().any(|it| it.is(entry)));
    entries.into_iter().map(|name| App { name }).collect()
}

/// Programs of this account. `windows` are the processes that have one.
pub(super) fn own(proc: &Path, windows: &[u32]) -> Vec<Program> {
    let own = rustix::process::getuid().as_raw();
    let of_this_account =
        |it: &Process| std::fs::metadata(proc.join(it.pid.to_string())).is_ok_and(|about| about.uid() == own);
    let program = |it: Process| {
        let likely = windows.contains(&it.pid) || from_a_menu(proc, it.pid);
        // Where another account may look, or in a container as root, the kernel's threads are "of this account" too: they
        // have no file.
        it.file.is_some().then(|| Program { name: it.name(), likely })
    };
    running(proc).filter(of_this_account).filter_map(program).collect()
}

/// Desktops start what a person clicks in a control group `app-….scope` of its own, as systemd's "Desktop environments"
/// document asks them to; what starts by itself at login ends in `@autostart.service`.
fn from_a_menu(proc: &Path, pid: u32) -> bool {
    let group = std::fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).unwrap_or_default();
    let unit = group.trim_end().rsplit('/').next().unwrap_or_default();
    unit.starts_with("app-") && !unit.contains("@autostart")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(comm: &str, file: Option<&str>) -> Process {
        Process { pid: 1, comm: comm.to_owned(), file: file.map(PathBuf::from) }
    }

    #[test]
    fn a_program_is_meant_by_its_name_in_any_case_or_by_its_path() {
        let blender = process("blender", Some("/opt/blender-4.2/blender"));
        assert!(blender.is("blender") && blender.is("Blender") && blender.is("/opt/blender-4.2/blender"));
        assert!(!blender.is("blend") && !blender.is("/usr/bin/blender"));
    }

    #[test]
    fn a_name_longer_than_the_kernel_keeps_is_known_all_the_same() {
        let wine = process("Cyberpunk2077.e", Some("/opt/proton/bin/wine64-preloader"));
        assert!(wine.is("cyberpunk2077.exe") && !wine.is("cyberpunk2078.exe"));
        assert_eq!(wine.name(), "Cyberpunk2077.e");
        let long = process("gnome-system-mo", Some("/usr/bin/gnome-system-monitor"));
        assert!(long.is("gnome-system-monitor"));
        assert_eq!(long.name(), "gnome-system-monitor");
    }

    #[test]
    fn a_script_has_its_own_name_not_its_interpreters() {
        assert_eq!(process("lutris", Some("/usr/bin/python3.11")).name(), "lutris");
    }

    #[test]
    fn what_a_person_started_from_a_menu_is_likely_meant() {
        let proc = tempfile::tempdir().unwrap();
        let group = |pid: u32, group: &str| {
            std::fs::create_dir(proc.path().join(pid.to_string())).unwrap();
            std::fs::write(proc.path().join(pid.to_string()).join("cgroup"), group).unwrap();
        };
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice";
        group(1, &format!("{user}/app-gnome-blender-4242.scope\n"));
        group(2, &format!("{user}/app-org.gnome.Evolution@autostart.service\n"));
        group(3, "0::/user.slice/user-1000.slice/user@1000.service/session.slice/dbus.service\n");
        assert!(from_a_menu(proc.path(), 1));
        assert!(!from_a_menu(proc.path(), 2) && !from_a_menu(proc.path(), 3) && !from_a_menu(proc.path(), 4));
    }
}
