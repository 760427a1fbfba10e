//! Gamepads and joysticks. Display servers do not count them as input, so a person who plays looks away; the kernel lets the
//! account at the seat read them (`uaccess`). Keyboards and pointers are never opened, readable or not.

use std::collections::HashMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use idlewatt_core::presence::{Activity, PresenceReading};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use self::event::{EVENT, Event};
use self::sticks::Sticks;
use super::wire::Wire;
use crate::teller::Teller;

mod event;
mod sticks;

const NAME: &str = "gamepads";

/// A pad whose sticks only tremble is looked at no more often than this: some send hundreds of such events a second.
const TREMBLES: Duration = Duration::from_secs(1);

/// Tells of hands on gamepads for as long as it is polled.
pub(super) async fn follow(root: &Path, quiet: Duration, teller: &Teller) {
    let _part = teller.listening(NAME);
    let folder = root.join("dev/input");
    let Ok(changes) = watch(&folder) else {
        teller.unheard(NAME, "this system shows no input devices");
        return pending().await;
    };
    let (touch, touched) = mpsc::channel(1);
    tokio::join!(hands(touched, quiet, teller), devices(root, &folder, &changes, quiet, &touch, teller));
}

/// Puts touches together: somebody is here until `quiet` after the last.
async fn hands(mut touched: mpsc::Receiver<Instant>, quiet: Duration, teller: &Teller) {
    while let Some(mut last) = touched.recv().await {
        teller.pads(PresenceReading::Active { since: last });
        while let Ok(Some(again)) = tokio::time::timeout(quiet, touched.recv()).await {
            last = again;
        }
        teller.pads(PresenceReading::Idle { last_input: last });
    }
}

/// Listens to every gamepad that is there and may be read, as they come and go.
async fn devices(
    root: &Path,
    folder: &Path,
    changes: &pipe::Receiver,
    quiet: Duration,
    touch: &mpsc::Sender<Instant>,
    teller: &Teller,
) {
    let mut heard = FuturesUnordered::new();
    let mut known: HashMap<PathBuf, bool> = HashMap::new();
    loop {
        let there = pads(root, folder);
        known.retain(|path, open| *open || there.contains(path));
        for path in there {
            if known.get(&path) == Some(&true) {
                continue;
            }
            let pad = Pad::open(&path);
            known.insert(path.clone(), pad.is_some());
            if let Some(pad) = pad {
                heard.push(async move {
                    let gone = pad.follow(quiet, touch).await;
                    tracing::debug!(%gone, "gamepad gone");
                    path
                });
            }
        }
        say(&known, teller);
        tokio::select! {
            changed = changed(changes) => if changed.is_err() { return pending().await },
            Some(gone) = heard.next() => drop(known.remove(&gone)),
        }
    }
}

fn say(known: &HashMap<PathBuf, bool>, teller: &Teller) {
    let open = known.values().filter(|open| **open).count();
    if open < known.len() {
        teller.unheard(NAME, "one is connected, but this account may not read it");
    } else {
        let says = match open {
            0 => "none connected".to_owned(),
            1 => "1 connected".to_owned(),
            n => format!("{n} connected"),
        };
        teller.says(NAME, says, Activity::default());
    }
}

fn watch(folder: &Path) -> std::io::Result<pipe::Receiver> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    // The right to read comes a moment after the device: a change of its attributes.
    inotify::add_watch(&inotify, folder, WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ATTRIB)?;
    pipe::Receiver::from_owned_fd_unchecked(inotify)
}

async fn changed(changes: &pipe::Receiver) -> std::io::Result<()> {
    changes.readable().await?;
    while changes.try_read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    Ok(())
}

/// The devices that are gamepads, by what the kernel says they have.
fn pads(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let events = names.filter(|name| name.starts_with("event"));
    let is_pad = |name: &String| {
        let keys = root.join("sys/class/input").join(name).join("device/capabilities/key");
        std::fs::read_to_string(keys).is_ok_and(|keys| event::is_gamepad(&keys))
    };
    events.filter(is_pad).map(|name| folder.join(name)).collect()
}

struct Pad {
    device: Wire,
    sticks: Sticks,
}

impl Pad {
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let sticks = Sticks::of(&device);
        Some(Self { device: Wire::new(device).ok()?, sticks })
    }

    /// Tells of touches until the pad is gone; says why it is.
    async fn follow(mut self, quiet: Duration, touch: &mpsc::Sender<Instant>) -> std::io::Error {
        loop {
            match self.wait().await {
                Ok(true) => {
                    // Whether one waits to be taken already or not, somebody is known to be here.
                    let _ = touch.try_send(Instant::now());
                    tokio::time::sleep(quiet / 2).await;
                }
                Ok(false) => tokio::time::sleep(TREMBLES).await,
                Err(gone) => return gone,
            }
        }
    }

    /// Waits for events and takes all there are: whether any of them was a hand.
    async fn wait(&mut self) -> std::io::Result<bool> {
        let mut ready = self.device.readable().await?;
        let mut hand = false;
        let mut buffer = [0; EVENT * 64];
        loop {
            match rustix::io::read(&self.device, &mut buffer) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    let events = buffer.get(..length).unwrap_or_default().chunks_exact(EVENT);
                    for event in events.filter_map(Event::read) {
                        hand |= event.is_press() || self.sticks.moved(event);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    ready.clear_ready();
                    return Ok(hand);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
