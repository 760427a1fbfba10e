//! Which processes serve a port of this machine, so that the cards on which a model server computes can be told from the
//! others. Linux tells; elsewhere nothing is known.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// One run of a process, so that it is known again: its number may be given to another once it has ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessRun {
    /// Its number.
    pub pid: u32,
    /// When it began, in the kernel's ticks since the machine started.
    began: u64,
    /// The start of the machine that it runs in.
    boot: String,
}

impl ProcessRun {
    /// The run of a process that runs now; `None` where there is none, or the system tells nothing of it.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let (began, boot) = system::began(pid)?;
        Some(Self { pid, began, boot })
    }

    /// Whether it still goes on.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// The runs of the processes that listen on a TCP port of this machine and of all that they started; where these cannot be
/// seen, of every process of the user who listens there, so that none that serves is missing. `None` where that is not
/// certain: nobody listens, the system is not Linux, or it is root who listens, which is also the door of a container
/// whose processes are somebody else's.
#[must_use]
pub fn runs_serving(port: u16) -> Option<BTreeSet<ProcessRun>> {
    let all = serving(port).or_else(|| system::of_plain_listener(port))?;
    Some(all.into_iter().filter_map(ProcessRun::of).collect())
}

/// The processes that listen on a TCP port of this machine, and all that they started. `None` where that cannot be seen:
/// nobody listens, it is another user's or a container's, or the system is neither Linux nor Windows. Takes milliseconds: not for an async thread.
#[must_use]
pub fn serving(port: u16) -> Option<BTreeSet<u32>> {
    system::serving(port)
}

/// Whether a process that a driver names is to be seen here: in a container it also names those outside.
#[must_use]
pub fn is_here(process: u32) -> bool {
    system::is_here(process)
}

/// How many open connections to a TCP port of this machine are not this process's own. `None` where the system does not say
/// whose they are: Windows does. What goes over them it tells only administrators. A fraction of a millisecond.
#[must_use]
pub fn connections_of_others(port: u16) -> Option<usize> {
    #[cfg(windows)]
    return system::connections_of_others(port);
    #[cfg(not(windows))]
    {
        let _ = port;
        None
    }
}

/// The file of a process' program where this user may see it, its name otherwise (at most 15 bytes). `None` where the system
/// tells neither.
#[must_use]
pub fn program(process: u32) -> Option<String> {
    #[cfg(target_os = "linux")]
    return system::program(process);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = process;
        None
    }
}

/// A process and all that it started, as far as that can be seen.
#[must_use]
pub fn started_by(process: u32) -> BTreeSet<u32> {
    system::with_children(BTreeSet::from([process]))
}

/// The processes that listen on a TCP port of this machine, and all that they started; where that cannot be seen, every
/// process of the user who listens there, whose servers are hidden from this one: none that serves is missing, and others
/// may be among them. Empty where nothing can be seen.
#[must_use]
pub fn may_serve(port: u16) -> BTreeSet<u32> {
    serving(port).unwrap_or_else(|| system::of_listener(port))
}

#[cfg(windows)]
#[path = "process/windows.rs"]
mod system;

#[cfg(not(any(target_os = "linux", windows)))]
mod system {
    use std::collections::BTreeSet;

    pub(super) fn serving(_port: u16) -> Option<BTreeSet<u32>> {
        None
    }

    pub(super) fn of_listener(_port: u16) -> BTreeSet<u32> {
        BTreeSet::new()
    }

    pub(super) fn of_plain_listener(_port: u16) -> Option<BTreeSet<u32>> {
        None
    }

    pub(super) fn began(_pid: u32) -> Option<(u64, String)> {
        None
    }

    pub(super) fn is_here(_pid: u32) -> bool {
        false
    }

    pub(super) fn with_children(processes: BTreeSet<u32>) -> BTreeSet<u32> {
        processes
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    /// `TCP_LISTEN` in `/proc/net/tcp`.
    const LISTENS: &str = "0A";

    pub(super) fn serving(port: u16) -> Option<BTreeSet<u32>> {
        let sockets: BTreeSet<String> =
            tables().iter().flat_map(|table| listeners(table, port)).map(|it| it.socket).collect();
        if sockets.is_empty() {
            return None;
        }
        let found: BTreeSet<u32> = processes().filter(|id| holds(*id, &sockets)).collect();
        Some(with_children(found)).filter(|found| !found.is_empty())
    }

    pub(super) fn with_children(mut found: BTreeSet<u32>) -> BTreeSet<u32> {
        let parents: BTreeMap<u32, u32> = processes()
            .filter_map(|id| Some((id, parent(&fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?)))
            .collect();
        loop {
            let children =
                parents.iter().filter(|(id, parent)| found.contains(parent) && !found.contains(id));
            let children: Vec<u32> = children.map(|(id, _)| *id).collect();
            if children.is_empty() {
                return found;
            }
            found.extend(children);
        }
    }

    pub(super) fn of_listener(port: u16) -> BTreeSet<u32> {
        of_users(&who_listens(port))
    }

    /// Nobody's where root listens.
    pub(super) fn of_plain_listener(port: u16) -> Option<BTreeSet<u32>> {
        const ROOT: u32 = 0;
        let users = who_listens(port);
        (!users.is_empty() && !users.contains(&ROOT)).then(|| of_users(&users))
    }

    fn who_listens(port: u16) -> BTreeSet<u32> {
        tables().iter().flat_map(|table| listeners(table, port)).map(|it| it.user).collect()
    }

    fn of_users(users: &BTreeSet<u32>) -> BTreeSet<u32> {
        let user = |id: &u32| Some(fs::metadata(format!("/proc/{id}")).ok()?.uid());
        if users.is_empty() {
            return BTreeSet::new();
        }
        processes().filter(|id| user(id).is_some_and(|user| users.contains(&user))).collect()
    }

    pub(super) fn program(pid: u32) -> Option<String> {
        let file = fs::read_link(format!("/proc/{pid}/exe")).ok();
        // A program that was updated while it runs.
        let file = file.map(|it| it.to_string_lossy().trim_end_matches(" (deleted)").to_owned());
        file.or_else(|| Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned()))
    }

    /// When a process began, and in which run of the machine.
    pub(super) fn began(pid: u32) -> Option<(u64, String)> {
        let began = start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some((began, boot.trim().to_owned()))
    }

    pub(super) fn is_here(pid: u32) -> bool {
        fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    }

    fn tables() -> [String; 2] {
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default())
    }

    fn processes() -> impl Iterator<Item = u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    /// A socket that listens.
    #[derive(Debug, PartialEq, Eq)]
    struct Listener {
        /// As links to open files name it.
        socket: String,
        /// Whose it is.
        user: u32,
    }

    fn listeners(table: &str, port: u16) -> Vec<Listener> {
        let port = format!(":{port:04X}");
        let listener = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&port) && *fields.get(3)? == LISTENS;
            listens.then(|| {
                let socket = format!("socket:[{}]", fields.get(9)?);
                Some(Listener { socket, user: fields.get(7)?.parse().ok()? })
            })?
        };
        table.lines().filter_map(listener).collect()
    }

    /// Whether a process has one of these files open; not, where it is another user's.
    fn holds(id: u32, files: &BTreeSet<String>) -> bool {
        let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| files.contains(target)))
    }

    /// The second field after the name, which may itself hold blanks and brackets.
    fn parent(stat: &str) -> Option<u32> {
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    }

    /// `starttime`, the twentieth field after the name (proc(5), field 22). None of a process that has ended and was not
    /// waited for yet.
    fn start(stat: &str) -> Option<u64> {
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        fields.nth(18)?.parse().ok().filter(|_| !matches!(state, "Z" | "X"))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_listener_is_told_from_a_connection_on_its_port() {
            let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n\
                   1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1\n";
            assert_eq!(listeners(table, 8080), [Listener { socket: "socket:[4711]".into(), user: 1000 }]);
            assert!(listeners(table, 8081).is_empty());
        }

        #[test]
        fn a_name_with_brackets_does_not_hide_the_parent() {
            assert_eq!(parent("12 (a) b) S 7 12 12 0"), Some(7));
        }
    }
}

#[cfg(all(test, any(target_os = "linux", windows)))]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that waits for its input to end.
    fn waiting() -> std::io::Result<Child> {
        let program: &[&str] = if cfg!(windows) { &["cmd", "/c", "pause"] } else { &["cat"] };
        Command::new(program[0]).args(&program[1..]).stdin(Stdio::piped()).spawn()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_is_told_by_its_file() {
        let me = program(std::process::id()).unwrap();
        assert_eq!(me, std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(program(u32::MAX), None);
    }

    #[test]
    fn a_run_is_over_when_its_process_ends() {
        let mut child = waiting().unwrap();
        let run = ProcessRun::of(child.id()).unwrap();
        assert!(run.goes_on());
        let kept: ProcessRun = serde_json::from_str(&serde_json::to_string(&run).unwrap()).unwrap();
        assert_eq!(kept, run, "it is known again after a restart of this program");
        let another = ProcessRun { began: run.began + 1, ..run.clone() };
        assert!(!another.goes_on(), "the number alone says nothing");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!run.goes_on());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_that_listens_is_found_and_what_it_started_with_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut child = waiting().unwrap();
        let found = serving(port).unwrap();
        assert!(found.contains(&std::process::id()) && found.contains(&child.id()), "{found:?}");
        assert!(may_serve(port).is_superset(&found));
        assert!(super::system::of_listener(port).is_superset(&found), "it is this user's");
        drop(child.stdin.take());
        child.wait().unwrap();
        drop(listener);
        assert_eq!(serving(port), None);
    }
}
