//! Games that Steam started. Steam notes in `logs/gameprocess_log.txt` which processes it follows; each game has a `reaper` that
//! lives exactly as long as the game does, and the kernel tells when it ends.
//!
//! `RunningAppID` in `registry.vdf` would be the plain place to look, but on Linux Steam has not written it since June 2023
//! (ValveSoftware/steam-for-linux issue 9672).

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use idlewatt_core::presence::{Activity, App};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{Pid, PidfdFlags};
use tokio::net::unix::pipe;

use super::wire::Wire;
use crate::teller::Teller;

mod library;
mod log;

const NAME: &str = "Steam";
const LOG: &str = "logs/gameprocess_log.txt";

/// Where Steam keeps itself below a home folder: installed as usual, from Flathub, as a snap.
const PLACES: [&str; 3] = [
    ".steam/steam",
    ".var/app/com.valvesoftware.Steam/.local/share/Steam",
    "snap/steam/common/.local/share/Steam",
];

/// This much of the log's end is read, bytes: some hundred games.
const END: u64 = 256 * 1024;

/// After news of a launch the processes are looked at once more: the log may name a reaper a moment before it has its name.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells of Steam's games for as long as it is polled. A Steam that is installed later is found at the next start.
pub(super) async fn follow(home: Option<&Path>, proc: &Path, teller: &Teller) {
    let _part = teller.listening(NAME);
    let places = home.into_iter().flat_map(|home| PLACES.map(|place| home.join(place)));
    let Some(steam) = places.into_iter().find(|place| place.join("logs").is_dir()) else {
        teller.unheard(NAME, "not installed here");
        return pending().await;
    };
    if let Err(error) = listen(&steam, proc, teller).await {
        teller.unheard(NAME, format!("its log cannot be followed ({error})"));
    }
    pending().await
}

async fn listen(steam: &Path, proc: &Path, teller: &Teller) -> std::io::Result<()> {
    let changes = Changes::watch(steam)?;
    let mut running: BTreeMap<u32, App> = BTreeMap::new();
    let mut ends = FuturesUnordered::new();
    let mut known = Vec::new();
    let (mut again, mut now) = (false, false);
    loop {
        let launches = log::launches(&end_of_log(&steam.join(LOG)));
        let news = launches != known;
        if news || now {
            for (pid, app) in log::alive(&launches, proc) {
                if running.contains_key(&pid) {
                    continue;
                }
                let Some(process) = open(pid) else { continue };
                running.insert(pid, App { name: library::name(steam, app) });
                ends.push(async move {
                    // A process that can be waited on no more has ended.
                    let _ = process.readable().await;
                    pid
                });
            }
            known = launches;
        }
        (again, now) = (again || news, false);
        let games: Vec<App> = running.values().cloned().collect();
        let says = match games.len() {
            0 => "no game".to_owned(),
            1 => "a game runs".to_owned(),
            n => format!("{n} games run"),
        };
        teller.says(NAME, says, Activity { games, ..Activity::default() });
        tokio::select! {
            changed = changes.next() => changed?,
            Some(ended) = ends.next() => drop(running.remove(&ended)),
            () = tokio::time::sleep(AGAIN), if again => (again, now) = (false, true),
        }
    }
}

/// Something to wait for the end of a process on; `None` once it has ended.
fn open(pid: u32) -> Option<Wire> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let process = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    Wire::new(process).ok()
}

/// Changes of the log, and a new one in its place: Steam begins one at each start.
struct Changes {
    told: pipe::Receiver,
    log: PathBuf,
}

impl Changes {
    fn watch(steam: &Path) -> std::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let log = steam.join(LOG);
        if let Some(folder) = log.parent() {
            inotify::add_watch(&inotify, folder, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        }
        let changes = Self { told: pipe::Receiver::from_owned_fd_unchecked(inotify)?, log };
        changes.watch_log();
        Ok(changes)
    }

    /// The log of now. Before Steam's first game there is none; its folder tells of it.
    fn watch_log(&self) {
        let _ = inotify::add_watch(&self.told, &self.log, WatchFlags::MODIFY);
    }

    async fn next(&self) -> std::io::Result<()> {
        self.told.readable().await?;
        while self.told.try_read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        self.watch_log();
        Ok(())
    }
}

fn end_of_log(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut log = std::fs::File::open(path)?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(END)))?;
        let mut end = Vec::new();
        log.take(END).read_to_end(&mut end)?;
        Ok(end)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
