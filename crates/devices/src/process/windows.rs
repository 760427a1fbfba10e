//! Windows: the system's table of TCP ports names each listener's process to everybody, and its list of processes who
//! started whom. No process is opened with more than the right to its public facts.
#![expect(unsafe_code, reason = "ports and processes have a C interface")]

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{offset_of, size_of};
use std::net::SocketAddr;

use windows::Win32::Foundation::{CloseHandle, FILETIME, NO_ERROR};
use windows::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, MIB_TCP_STATE_ESTAB, MIB_TCP6ROW_OWNER_PID, MIB_TCP6TABLE_OWNER_PID,
    MIB_TCPROW_OWNER_PID, MIB_TCPTABLE_OWNER_PID, TCP_TABLE_CLASS, TCP_TABLE_OWNER_PID_CONNECTIONS,
    TCP_TABLE_OWNER_PID_LISTENER,
};
use windows::Win32::Networking::WinSock::{AF_INET, AF_INET6};
use windows::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use windows::Win32::System::Threading::{GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION};

/// Doors of containers and of WSL: who answers behind them is another machine's process.
const DOORS: [&str; 4] = ["wslrelay.exe", "wslhost.exe", "com.docker.backend.exe", "gvproxy.exe"];

/// The table grows between the question for its size and the one for its rows; so often it is asked again.
const TRIES: usize = 4;

pub(super) fn serving(port: u16) -> Option<BTreeSet<u32>> {
    let listening = listeners(port);
    let all = processes();
    let is_door = |pid: &u32| {
        all.get(pid).is_some_and(|it| DOORS.iter().any(|door| door.eq_ignore_ascii_case(&it.name)))
    };
    if listening.is_empty() || listening.iter().any(is_door) {
        return None;
    }
    Some(with_children_among(listening, &all))
}

/// Whoever listens is seen; who stands behind a container's door is not.
pub(super) fn of_listener(_port: u16) -> BTreeSet<u32> {
    BTreeSet::new()
}

pub(super) fn of_plain_listener(_port: u16) -> Option<BTreeSet<u32>> {
    None
}

pub(super) fn with_children(found: BTreeSet<u32>) -> BTreeSet<u32> {
    with_children_among(found, &processes())
}

/// The moment of its start, in steps of 100 ns since 1601, which no two runs of the machine share.
pub(super) fn began(pid: u32) -> Option<(u64, String)> {
    let mut times = [FILETIME::default(); 4];
    let [began, ended, kernel, user] = &mut times;
    // SAFETY: the process is closed here, and the times live through the call.
    unsafe {
        let process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, false, pid).ok()?;
        let told = GetProcessTimes(process, began, ended, kernel, user);
        drop(CloseHandle(process));
        told.ok()?;
    }
    let whole = |it: &FILETIME| (u64::from(it.dwHighDateTime) << 32) | u64::from(it.dwLowDateTime);
    // One that has ended is there for as long as somebody holds it.
    (whole(ended) == 0).then(|| (whole(began), String::new()))
}

pub(super) fn is_here(_pid: u32) -> bool {
    true
}

/// A process with who started it.
struct Process {
    parent: u32,
    name: String,
}

/// A number may be another's once its process has ended, so a stranger may count as a child: the milder error.
fn with_children_among(mut found: BTreeSet<u32>, all: &BTreeMap<u32, Process>) -> BTreeSet<u32> {
    loop {
        let children = all.iter().filter(|(pid, it)| found.contains(&it.parent) && !found.contains(pid));
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        if children.is_empty() {
            return found;
        }
        found.extend(children);
    }
}

fn processes() -> BTreeMap<u32, Process> {
    let mut found = BTreeMap::new();
    // SAFETY: the snapshot is closed here, and the entry says its own size and lives through the calls.
    unsafe {
        let Ok(snapshot) = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) else { return found };
        let size = u32::try_from(size_of::<PROCESSENTRY32W>()).unwrap_or_default();
        let mut entry = PROCESSENTRY32W { dwSize: size, ..PROCESSENTRY32W::default() };
        let mut next = Process32FirstW(snapshot, &raw mut entry);
        while next.is_ok() {
            let name = entry.szExeFile.split(|it| *it == 0).next().unwrap_or_default();
            let process = Process { parent: entry.th32ParentProcessID, name: String::from_utf16_lossy(name) };
            found.insert(entry.th32ProcessID, process);
            next = Process32NextW(snapshot, &raw mut entry);
        }
        drop(CloseHandle(snapshot));
    }
    // The system's idle process is its own parent.
    found.remove(&0);
    found
}

/// Who listens on a port, on any address.
fn listeners(port: u16) -> BTreeSet<u32> {
    let here = |it: Socket| (it.local.port() == port && it.pid != 0).then_some(it.pid);
    sockets(TCP_TABLE_OWNER_PID_LISTENER).into_iter().flatten().filter_map(here).collect()
}

pub(super) fn connections_of_others(port: u16) -> Option<usize> {
    others_at(port, std::process::id(), &sockets(TCP_TABLE_OWNER_PID_CONNECTIONS)?)
}

/// A connection is this process's where its other end is, and there is no such end here where it came from another machine.
/// `None` where one has no owner: Wine names none.
fn others_at(port: u16, own: u32, all: &[Socket]) -> Option<usize> {
    let open = || all.iter().filter(|it| it.is_open);
    let ours: BTreeSet<_> = open().filter(|it| it.pid == own).map(|it| (it.local, it.remote)).collect();
    let mut others = 0;
    for it in open().filter(|it| it.local.port() == port) {
        if it.pid == 0 {
            return None;
        }
        others += usize::from(!ours.contains(&(it.remote, it.local)));
    }
    Some(others)
}

/// One end of a connection, or a listener.
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    is_open: bool,
    pid: u32,
}

/// `None` where one of the two tables is not told.
fn sockets(class: TCP_TABLE_CLASS) -> Option<Vec<Socket>> {
    let is_open = |state: u32| i32::try_from(state) == Ok(MIB_TCP_STATE_ESTAB.0);
    let (v4, v6) = (table(u32::from(AF_INET.0), class)?, table(u32::from(AF_INET6.0), class)?);
    let at = |address: u32, port| SocketAddr::from((address.to_le_bytes(), host_order(port)));
    // SAFETY: the rows of this table are of this kind and begin there.
    let v4 = unsafe { rows::<MIB_TCPROW_OWNER_PID>(&v4, offset_of!(MIB_TCPTABLE_OWNER_PID, table)) };
    let v4 = v4.into_iter().map(|it| Socket {
        local: at(it.dwLocalAddr, it.dwLocalPort),
        remote: at(it.dwRemoteAddr, it.dwRemotePort),
        is_open: is_open(it.dwState),
        pid: it.dwOwningPid,
    });
    let at = |address: [u8; 16], port| SocketAddr::from((address, host_order(port)));
    // SAFETY: likewise.
    let v6 = unsafe { rows::<MIB_TCP6ROW_OWNER_PID>(&v6, offset_of!(MIB_TCP6TABLE_OWNER_PID, table)) };
    let v6 = v6.into_iter().map(|it| Socket {
        local: at(it.ucLocalAddr, it.dwLocalPort),
        remote: at(it.ucRemoteAddr, it.dwRemotePort),
        is_open: is_open(it.dwState),
        pid: it.dwOwningPid,
    });
    Some(v4.chain(v6).collect())
}

/// The low two bytes, in the network's order; what lies above them is not said.
fn host_order(port: u32) -> u16 {
    let [first, second, ..] = port.to_le_bytes();
    u16::from_be_bytes([first, second])
}

/// The table as it came, in words so that it is aligned.
fn table(family: u32, class: TCP_TABLE_CLASS) -> Option<Vec<u32>> {
    let mut words: Vec<u32> = Vec::new();
    for _ in 0..TRIES {
        let mut bytes = u32::try_from(words.len() * size_of::<u32>()).unwrap_or_default();
        let place = (!words.is_empty()).then(|| words.as_mut_ptr().cast());
        // SAFETY: the place has the room that is told, and lives through the call.
        let answer = unsafe { GetExtendedTcpTable(place, &raw mut bytes, false, family, class, 0) };
        if answer == NO_ERROR.0 && place.is_some() {
            return Some(words);
        }
        words.resize((bytes as usize).div_ceil(size_of::<u32>()) + 256, 0);
    }
    None
}

/// # Safety
/// The table holds, after a count in its first word, so many of these rows from `at` on.
unsafe fn rows<R: Copy>(table: &[u32], at: usize) -> Vec<R> {
    let count = table.first().map_or(0, |count| *count as usize);
    let room = (size_of_val(table).saturating_sub(at)) / size_of::<R>();
    let first = table.as_ptr().cast::<u8>().wrapping_add(at).cast::<R>();
    // SAFETY: within the table, whose rows need no more than a word's alignment.
    (0..count.min(room)).map(|index| unsafe { first.add(index).read_unaligned() }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_tables_hold_a_listener_and_both_ends_of_a_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let here = listener.local_addr().unwrap();
            let ours = TcpStream::connect(here).unwrap();
            let there = ours.local_addr().unwrap();
            let _accepted = listener.accept().unwrap();
            let listening = sockets(TCP_TABLE_OWNER_PID_LISTENER).unwrap();
            assert!(listening.iter().any(|it| it.local == here && !it.is_open), "{address}");
            let open = sockets(TCP_TABLE_OWNER_PID_CONNECTIONS).unwrap();
            for ends in [(here, there), (there, here)] {
                assert!(open.iter().any(|it| (it.local, it.remote) == ends && it.is_open), "{ends:?}");
            }
        }
    }

    #[test]
    fn our_own_connections_are_left_out_and_those_without_an_owner_tell_nothing() {
        const SERVER: u32 = 7;
        const OWN: u32 = 8;
        let socket = |local: &str, remote: &str, pid| Socket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            is_open: true,
            pid,
        };
        let (here, a, b) = ("127.0.0.1:80", "127.0.0.1:5000", "127.0.0.1:5001");
        let mut all = vec![socket(here, a, SERVER), socket(a, here, OWN)];
        assert_eq!(others_at(80, OWN, &all), Some(0));
        all.extend([socket(here, b, SERVER), socket(b, here, 9)]);
        all.push(socket("192.0.2.1:80", "192.0.2.9:5000", SERVER));
        assert_eq!(others_at(80, OWN, &all), Some(2), "one from here, one from another machine");
        all[2].is_open = false;
        assert_eq!(others_at(80, OWN, &all), Some(1), "one that is closing is over");
        all[0].pid = 0;
        assert_eq!(others_at(80, OWN, &all), None);
    }

    #[test]
    fn what_this_process_started_is_found() {
        let mut child = Command::new("cmd").args(["/c", "pause"]).stdin(Stdio::piped()).spawn().unwrap();
        let found = with_children(BTreeSet::from([std::process::id()]));
        assert!(found.contains(&child.id()), "{found:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        let found = with_children(BTreeSet::from([std::process::id()]));
        assert!(!found.contains(&child.id()), "{found:?}");
    }
}
