//! `idlewatt measure -- COMMAND`: what a command took in joules, by every power sensor of this machine.
//!
//! The command runs as if it had been started itself: its input, output, terminal, signals and exit code are its own. The
//! report goes to stderr. With `--json` the report is alone on stdout, and what the command prints there goes to stderr.

mod child;
mod line;
mod table;

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idlewatt_core::device::Scope;
use idlewatt_engine::config::Config;
use idlewatt_engine::home::Home;
use serde::Serialize;

use crate::args::Measure;
use crate::commands::print_json;
use crate::exit::{Exit, Failure};
use crate::sampling::{Sampling, Stretch};
use crate::say;
use line::Line;
use table::Table;

/// What `--json` prints; part of the command contract.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The command's own, or 128 and the number of the signal that ended it.
    pub(crate) exit_code: u8,
    /// How long it ran.
    pub(crate) seconds: f64,
    /// What each sensor measured.
    pub(crate) sensors: Vec<Measured>,
    /// What is here and measured nothing, and why, for people.
    pub(crate) missing: Vec<String>,
}

/// What one sensor measured.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) id: String,
    pub(crate) name: String,
    /// `board`, `package`, `rail`, `machine` or `wall`.
    pub(crate) scope: &'static str,
    pub(crate) method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaves_out: Option<String>,
    pub(crate) energy_mj: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error_mj: Option<i64>,
    pub(crate) mean_mw: i64,
    pub(crate) peak_mw: i64,
    /// How well it is known: `measured` or `estimated`.
    pub(crate) label: &'static str,
}

/// Runs the command and reports. Gives its exit code.
///
/// # Errors
/// When the command is not run, or cannot be.
pub(crate) fn execute(home: &Home, arguments: &Measure) -> Result<ExitCode, Failure> {
    let config = Config::load(&home.config).map_err(|error| Failure { exit: Exit::NotRun, error })?;
    // Before anything runs: an hour's work must not end in a file that cannot be written.
    let table = arguments.out.as_deref().map(Table::create).transpose()?.map(|it| Arc::new(Mutex::new(it)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Exit::NotRun,
            format!("The system gives no timer or no sockets: {error}."),
            "The command was not run.",
            "See the limits of this user (`ulimit -a`).",
        )
    })?;
    let (rows, line) = (table.clone(), Line::new(arguments.json.json).map(|it| Arc::new(Mutex::new(it))));
    let shown = line.clone();
    let settings = config.settings();
    let sampling = Sampling::start(&settings.places(), &settings.plugs, arguments.interval, move |sample| {
        if let Some(table) = &rows {
            lock(table).row(sample);
        }
        if let Some(line) = &shown {
            lock(line).show(sample);
        }
    });
    if let Some(table) = &table {
        lock(table).head(sampling.sensors())?;
    }
    if let Some(line) = &line {
        lock(line).names(sampling.sensors());
    }
    sampling.begin();
    let begun = Instant::now();
    let exit_code = runtime.block_on(child::run(&arguments.command, arguments.json.json))?;
    let time = begun.elapsed();
    let report = Report::of(exit_code, time, sampling.end(), sampling.missing());
    drop(sampling);
    drop(line);
    if let Some(problem) = table.and_then(|table| lock(&table).problem()) {
        drop(writeln!(std::io::stderr(), "idlewatt: the table is not whole: {problem}"));
    }
    if arguments.json.json {
        print_json(&report)?;
    } else {
        // A closed stderr changes nothing of how the command ended.
        drop(std::io::stderr().write_all(say::measured(&report).as_bytes()));
    }
    Ok(ExitCode::from(exit_code))
}

impl Report {
    fn of(exit_code: u8, time: Duration, stretches: Vec<Stretch>, missing: &[String]) -> Self {
        let (measured, silent): (Vec<_>, Vec<_>) =
            stretches.into_iter().partition(|it| it.energy.total_mj.is_some());
        let silent =
            silent.iter().map(|it| format!("{}: it sleeps, or told nothing meanwhile", it.sensor.name));
        Self {
            exit_code,
            seconds: time.as_secs_f64(),
            sensors: measured.iter().map(Measured::of).collect(),
            missing: silent.chain(missing.iter().cloned()).collect(),
        }
    }
}

impl Measured {
    fn of(stretch: &Stretch) -> Self {
        let sensor = &stretch.sensor;
        let energy = stretch.energy;
        let mean = stretch.mean().unwrap_or_default();
        Self {
            id: sensor.id.clone(),
            name: sensor.name.clone(),
            scope: scope(sensor.scope),
            method: sensor.method.clone(),
            leaves_out: sensor.leaves_out.clone(),
            energy_mj: energy.total_mj.unwrap_or_default().0,
            error_mj: energy.error_mj.map(|it| it.0),
            mean_mw: mean.0,
            // Of a command shorter than the sensor's refresh no reading is higher than the mean.
            peak_mw: stretch.peak.unwrap_or(mean).0,
            label: energy.label.as_str(),
        }
    }
}

const fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Board => "board",
        Scope::Package => "package",
        Scope::Rail => "rail",
        Scope::Machine => "machine",
        Scope::Wall => "wall",
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
