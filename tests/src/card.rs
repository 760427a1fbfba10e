//! A simulated card (`tests/simnvml`) that draws what a model server really does: little while its process rests or is
//! stopped, much while it computes. Its own record is the truth that claims are held against.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idlewatt_simnvml::rig::{RIGHT, Rig};
use nvml_wrapper::Nvml;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The card's id.
const UUID: &str = "GPU-51515151-0000-0000-0000-000000000000";
/// How often it looks at the process. Shorter than a slice of a duty cycle.
const LOOK: Duration = Duration::from_millis(10);
/// A process that used no processor time for this long rests.
const RESTS: Duration = Duration::from_millis(50);

/// A card, and the thread that drives it.
pub struct Card {
    folder: TempDir,
    rig: Rig,
    process: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    has_right: bool,
}

/// What a card draws, watts.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// Without work.
    pub resting: u32,
    /// At work, without a limit.
    pub working: u32,
}

impl Card {
    /// A card with these further fields of `simnvml`'s control file. `has_right`: whether an engine may set its limit.
    #[must_use]
    pub fn start(draws: Draws, fields: &Value, has_right: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::new(folder.path(), &control(fields, draws.resting, false, 0))
            .expect("idlewatt-simnvml is built");
        let (process, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let drive = Drive {
            rig: rig.clone(),
            fields: fields.clone(),
            draws,
            process: Arc::clone(&process),
            stop: Arc::clone(&stop),
        };
        let thread = Some(std::thread::spawn(move || drive.run()));
        Self { folder, rig, process, stop, thread, has_right }
    }

    /// From now on it draws what this process does, and its driver names that process.
    pub fn follow(&self, process: u32) {
        self.process.store(process, Ordering::Relaxed);
    }

    /// What an engine needs in its environment.
    #[must_use]
    pub fn session(&self) -> Vec<(&'static str, String)> {
        if self.has_right { vec![(RIGHT, "1".into())] } else { Vec::new() }
    }

    /// The library, for `devices.nvml`.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.rig.library()
    }

    /// The limit that the card itself keeps to, watts.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        Some(self.rig.limit_mw(UUID)? / 1000)
    }

    /// The true energy from a moment on: seconds since then, and joules since then, every 10 ms or so.
    #[must_use]
    pub fn truth(&self, since: SystemTime) -> Vec<(f64, f64)> {
        let text = fs::read_to_string(self.folder.path().join("simnvml.csv")).unwrap_or_default();
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let rows = text.lines().filter_map(|line| {
            let mut columns = line.split(',').map(|column| column.parse::<f64>().ok());
            let (at, _, _, energy) = (columns.next()??, columns.next()?, columns.next()?, columns.next()??);
            Some((at / 1e6 - since, energy / 1e3))
        });
        let mut rows: Vec<(f64, f64)> = rows.filter(|(at, _)| *at >= 0.0).collect();
        let first = rows.first().map_or(0.0, |row| row.1);
        rows.iter_mut().for_each(|row| row.1 -= first);
        rows
    }

    /// The highest mean power of any ten seconds, and the mean of all, watts.
    #[must_use]
    pub fn powers(&self, since: SystemTime) -> (f64, f64) {
        const WINDOW: f64 = 10.0;
        let truth = self.truth(since);
        let mut from = 0;
        let mut worst = 0.0_f64;
        for (at, energy) in &truth {
            // Ten seconds, and what the record has no finer than that.
            while truth.get(from + 1).is_some_and(|next| next.0 <= at - WINDOW) {
                from += 1;
            }
            let time = at - truth[from].0;
            if time >= WINDOW {
                worst = worst.max((energy - truth[from].1) / time);
            }
        }
        let mean = truth.last().map_or(0.0, |(at, energy)| energy / at);
        (worst, mean)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Drive {
    rig: Rig,
    fields: Value,
    draws: Draws,
    process: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Drive {
    fn run(self) {
        // Somebody who looks all the time, so that the record is as fine as it can be.
        let nvml =
            Nvml::builder().lib_path(self.rig.library().as_os_str()).init().expect("the simulated driver");
        let (mut known, mut drawn) = (0, self.draws.resting);
        let (mut ticks, mut quiet) = (0, RESTS);
        while !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK);
            let process = self.process.load(Ordering::Relaxed);
            let (held, now) = work(process).unwrap_or((true, ticks));
            quiet = if now == ticks { quiet + LOOK } else { Duration::ZERO };
            ticks = now;
            let rests = held || quiet >= RESTS;
            let wanted = if rests { self.draws.resting } else { self.draws.working };
            if (wanted, process) != (drawn, known) {
                (drawn, known) = (wanted, process);
                self.rig.steer(&control(&self.fields, drawn, !rests, known)).expect("a control file");
            }
            drop(nvml.device_by_index(0).and_then(|card| card.power_usage()));
        }
    }
}

fn control(fields: &Value, watts: u32, works: bool, process: u32) -> Value {
    let mut card = fields.clone();
    card["uuid"] = UUID.into();
    card["load_w"] = watts.into();
    // A sensor whose figure never changes is no sensor.
    card["noise_mw"] = 1500.into();
    card["utilisation"] = if works { 95 } else { 0 }.into();
    if process > 0 {
        card["processes"] = json!([{ "pid": process, "vram": 2_u64 << 30 }]);
        card["vram_used"] = (3_u64 << 30).into();
    }
    json!({ "cards": [card] })
}

/// Whether a process is stopped where it stands, and the processor time that it used, in ticks.
fn work(process: u32) -> Option<(bool, u64)> {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    // The name may hold anything; what follows its bracket does not.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let held = fields.next()? == "T";
    let mut times = fields.skip(10).map(|field| field.parse::<u64>().ok());
    Some((held, times.next()?? + times.next()??))
}
