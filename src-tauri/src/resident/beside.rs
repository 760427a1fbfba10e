//! Linux: the resident is a program beside this one. Found by the home it owns, started where there is none.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use idlewatt_control::ControlError;
use idlewatt_engine::home::{ControlFile, Home};
use tokio::process::{Child, Command};

use super::{START, announced};

/// At most this much of the resident's last words is shown.
const LAST_WORDS: usize = 2_000;

/// Why no resident runs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    #[error(transparent)]
    Home(#[from] ControlError),
    #[error(
        "Idlewatt could not be started: {program:?} does not run ({cause}).\n  why: the window only shows an engine that \
         runs beside it.\n  do:  install `idlewatt` next to this program or in the PATH."
    )]
    NoProgram { program: OsString, cause: std::io::Error },
    #[error("Idlewatt ended while it started ({status}).\n{words}")]
    Ended { status: std::process::ExitStatus, words: String },
    #[error(
        "Idlewatt did not come up within 20 s.\n  why: it runs but has not said where it listens.\n  do:  look into {log}."
    )]
    Silent { log: PathBuf },
    #[error("{log} could not be written ({cause}).\n  do:  make its folder writable for this user.")]
    NoLog { log: PathBuf, cause: std::io::Error },
}

/// The resident of this home, started if there is none. Returns once it listens.
pub(crate) async fn ensure(home: &Home) -> Result<ControlFile, NotStarted> {
    if let Some(resident) = home.resident() {
        return Ok(resident);
    }
    home.prepare()?;
    let log = home.run.join("resident.log");
    let mut child = start(&log)?;
    tokio::select! {
        resident = announced(home) => Ok(resident),
        ended = child.wait() => match (home.resident(), ended) {
            // Another one took this home at the same moment; it serves as well.
            (Some(resident), _) => Ok(resident),
            (None, Ok(status)) => Err(NotStarted::Ended { status, words: last_words(&log) }),
            (None, Err(cause)) => Err(NotStarted::NoProgram { program: program(), cause }),
        },
        () = tokio::time::sleep(START) => Err(NotStarted::Silent { log }),
    }
}

/// Starts the resident so that it outlives this process.
fn start(log: &Path) -> Result<Child, NotStarted> {
    let no_log = |cause| NotStarted::NoLog { log: log.to_owned(), cause };
    let words = File::create(log).map_err(no_log)?;
    let program = program();
    let mut command = Command::new(&program);
    command.args(["run", "--tray"]);
    // Its first line holds a login code, which belongs to a terminal and to nobody else.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words);
    command.process_group(0);
    command.spawn().map_err(|cause| NotStarted::NoProgram { program, cause })
}

/// `idlewatt` beside this program, or else the PATH's.
fn program() -> OsString {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("idlewatt"));
    beside.filter(|path| path.is_file()).map_or_else(|| "idlewatt".into(), PathBuf::into_os_string)
}

fn last_words(log: &Path) -> String {
    let words = std::fs::read_to_string(log).unwrap_or_default();
    let mut from = words.len().saturating_sub(LAST_WORDS);
    while !words.is_char_boundary(from) {
        from += 1;
    }
    words[from..].trim().to_owned()
}
