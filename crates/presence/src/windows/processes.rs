//! Processes by name, from a snapshot of the system's own list. Only a file's place needs the process itself, opened with
//! the right to its public facts and no other: none to its memory, which a game's guard against cheats would see.
#![expect(unsafe_code, reason = "Windows' processes have a C interface")]

use std::mem::size_of;

use ::windows::Win32::Foundation::CloseHandle;
use ::windows::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, PROCESSENTRY32W, Process32FirstW, Process32NextW, TH32CS_SNAPPROCESS,
};
use ::windows::Win32::System::RemoteDesktop::ProcessIdToSessionId;
use ::windows::Win32::System::Threading::{
    OpenProcess, PROCESS_NAME_WIN32, PROCESS_QUERY_LIMITED_INFORMATION, QueryFullProcessImageNameW,
};
use ::windows::core::PWSTR;

use crate::running::{Process, plain};

/// The longest path that is asked for, UTF-16 units.
const LONGEST: u32 = 1024;

/// All processes.
pub(crate) fn processes() -> Vec<Process> {
    let own = session(std::process::id());
    let process =
        |(pid, name)| Process { name, path: path(pid), is_mine: own.is_some() && session(pid) == own };
    snapshot().into_iter().map(process).collect()
}

/// A process's name without `.exe`.
pub(super) fn name(pid: u32) -> Option<String> {
    snapshot().into_iter().find(|it| it.0 == pid).map(|(_, name)| plain(&name).to_owned())
}

/// Every process id with the name of its file.
fn snapshot() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    // SAFETY: the snapshot is closed here, and the entry says its own size and lives through the calls.
    unsafe {
        let Ok(snapshot) = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0) else { return found };
        let size = u32::try_from(size_of::<PROCESSENTRY32W>()).unwrap_or_default();
        let mut entry = PROCESSENTRY32W { dwSize: size, ..PROCESSENTRY32W::default() };
        let mut next = Process32FirstW(snapshot, &raw mut entry);
        while next.is_ok() {
            let name = entry.szExeFile.split(|it| *it == 0).next().unwrap_or_default();
            found.push((entry.th32ProcessID, String::from_utf16_lossy(name)));
            next = Process32NextW(snapshot, &raw mut entry);
        }
        drop(CloseHandle(snapshot));
    }
    found
}

fn session(pid: u32) -> Option<u32> {
    let mut session = 0;
    // SAFETY: the number lives through the call.
    unsafe { ProcessIdToSessionId(pid, &raw mut session) }.ok().map(|()| session)
}

fn path(pid: u32) -> Option<String> {
    let (mut text, mut length) = ([0; LONGEST as usize], LONGEST);
    // SAFETY: the process is closed here; the text's room is told and lives through the call.
    unsafe {
        let process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, false, pid).ok()?;
        let told = QueryFullProcessImageNameW(
            process,
            PROCESS_NAME_WIN32,
            PWSTR(text.as_mut_ptr()),
            &raw mut length,
        );
        drop(CloseHandle(process));
        told.ok()?;
    }
    Some(String::from_utf16_lossy(text.get(..length as usize)?))
}
