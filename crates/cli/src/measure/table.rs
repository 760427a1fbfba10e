//! The readings as a table for a spreadsheet: one row a round of readings, units in the header.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use idlewatt_core::device::Sensor;
use idlewatt_protocol::bench::{csv_line, decimal};
use jiff::Timestamp;

use crate::exit::{Exit, Failure};
use crate::sampling::Sample;

/// A CSV file being written.
pub(super) struct Table {
    file: File,
    path: PathBuf,
    begun: Option<Instant>,
    problem: Option<io::Error>,
}

impl Table {
    /// Makes the file, empty.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| not_written(path, &error))?;
        Ok(Self { file, path: path.to_owned(), begun: None, problem: None })
    }

    /// Writes the header.
    ///
    /// # Errors
    /// When the disk does not take even that.
    pub(super) fn head(&mut self, sensors: &[Sensor]) -> Result<(), Failure> {
        let twice = |name: &str| sensors.iter().filter(|it| it.name == name).count() > 1;
        let name =
            |it: &Sensor| if twice(&it.name) { format!("{} {}", it.name, it.id) } else { it.name.clone() };
        let columns = sensors
            .iter()
            .map(name)
            .flat_map(|name| [format!("{name} power (W)"), format!("{name} energy (J)")]);
        let first = ["time (UTC)", "elapsed (s)"].map(str::to_owned);
        let line = csv_line(first.into_iter().chain(columns));
        self.file.write_all(line.as_bytes()).map_err(|error| not_written(&self.path, &error))
    }

    /// Adds a row. A disk that refuses is told of at the end: the command goes on.
    pub(super) fn row(&mut self, sample: &Sample) {
        if self.problem.is_some() {
            return;
        }
        let elapsed = sample.at.saturating_duration_since(*self.begun.get_or_insert(sample.at));
        let millis = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let cells = sample.sensors.iter().flat_map(|(power, energy)| {
            [power.map(|it| decimal(it.0, 3)).unwrap_or_default(), decimal(energy.0, 3)]
        });
        let first = [Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(), decimal(millis, 3)];
        let line = csv_line(first.into_iter().chain(cells));
        self.problem = self.file.write_all(line.as_bytes()).err();
    }

    /// What kept rows from being written.
    pub(super) fn problem(&mut self) -> Option<String> {
        self.problem.take().map(|error| format!("{}: {error}", self.path.display()))
    }
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        Exit::NotRun,
        format!("{} cannot be written: {error}.", path.display()),
        "The command was not run.",
        "Choose another place for `--out`.",
    )
}
