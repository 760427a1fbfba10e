//! `idlewatt bench`: what a token of a local model costs in joules, by the published workload `idlewatt-1`, at one power
//! limit or over several.
//!
//! The model server is asked directly. A running engine is paused for sharing meanwhile and then goes on as it was; it
//! keeps the report and, with `--publish`, signs it and sends it to its hubs. Limits that were changed are always given
//! back: at the end, on Ctrl-C, and after a crash by whoever set them (see [`idlewatt_devices::cap`]).

mod asking;
mod figures;
mod quiet;
mod running;
mod sweep;
mod target;
mod workload;

use std::path::{Path, PathBuf};

use idlewatt_control::{NetworkState, Request, Response};
use idlewatt_engine::config::Config;
use idlewatt_engine::home::Home;
use idlewatt_protocol::bench::{BenchReport, COLUMNS, csv_line};
use idlewatt_protocol::receipt::Envelope;
use serde_json::json;

use crate::args::Bench;
use crate::client::{ask, ask_if_running};
use crate::commands::{print, print_json};
use crate::exit::{Exit, Failure};
use crate::say;

pub(crate) use figures::best;

/// Measures, shows, keeps and publishes.
///
/// # Errors
/// What went wrong; limits and sharing are then as they were before.
pub(crate) fn execute(home: &Home, arguments: &Bench) -> Result<(), Failure> {
    if let Some(file) = &arguments.verify {
        return verify(file, arguments.json.json);
    }
    let config = Config::load(&home.config)?;
    // Nothing is measured that could then not be written or sent.
    let out = arguments.out.as_deref().map(Out::create).transpose()?;
    if arguments.publish {
        can_publish(home)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::new(
            Exit::Failed,
            format!("The system gives no timer or no sockets: {error}."),
            "Nothing was measured.",
            "See the limits of this user (`ulimit -a`).",
        )
    })?;
    let report = runtime.block_on(running::run(home, &config, arguments))?;
    if let Some(out) = out {
        out.write(&report)?;
    }
    let keep = Request::KeepBench { report: Box::new(report.clone()), publish: arguments.publish };
    let kept = match ask_if_running(home, &keep) {
        Ok(kept) => kept,
        Err(failure) => {
            show(&report, arguments.json.json, false, &[])?;
            return Err(failure);
        }
    };
    match kept {
        Some(Response::Published(pages)) => show(&report, arguments.json.json, true, &pages),
        _ => show(&report, arguments.json.json, false, &[]),
    }
}

fn show(report: &BenchReport, as_json: bool, kept: bool, pages: &[String]) -> Result<(), Failure> {
    if as_json {
        let best = best(&report.points).and_then(|(point, _)| point.cap_mw);
        return print_json(
            &json!({ "report": report, "best_cap_mw": best, "kept": kept, "published": pages }),
        );
    }
    print(&say::bench(report, kept, pages))
}

/// A hub takes reports of nodes that joined it: that takes an engine, and a hub.
fn can_publish(home: &Home) -> Result<(), Failure> {
    let Response::Networks(networks) = ask(home, &Request::Networks)? else { return Ok(()) };
    if networks.iter().any(|it| it.state != NetworkState::Refused) {
        return Ok(());
    }
    Err(Failure::new(
        Exit::NotFound,
        "This node is in no hub that could publish the report.",
        "A hub publishes reports of nodes that joined it. Nothing was measured.",
        "Join one with `idlewatt join INVITE`, or measure without `--publish`.",
    ))
}

/// Checks a report as a hub gives it out, offline.
fn verify(file: &Path, as_json: bool) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(
            Exit::NotFound,
            format!("{} cannot be read: {error}.", file.display()),
            "Nothing was checked.",
            "Name a file as a hub's /energy page links to.",
        )
    })?;
    let not_verified = |why: String| {
        Failure::new(
            Exit::NotVerified,
            format!("The report does not verify: {why}."),
            "It is not what its node signed.",
            "Fetch it again from the hub; believe no figure in this copy.",
        )
    };
    let envelope: Envelope = serde_json::from_str(&text).map_err(|error| not_verified(error.to_string()))?;
    let report = BenchReport::open(&envelope).map_err(|error| not_verified(error.to_string()))?;
    if as_json {
        return print_json(&json!({ "verified": true, "signer": envelope.keyid, "report": report }));
    }
    print(&say::verified_bench(&report, &envelope.keyid))
}

/// Where the report goes besides the screen.
struct Out {
    path: PathBuf,
    json: bool,
}

impl Out {
    /// Makes the file, empty, so that it is known that it can be written.
    fn create(path: &Path) -> Result<Self, Failure> {
        let json = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json"));
        if !json && !path.extension().is_some_and(|it| it.eq_ignore_ascii_case("csv")) {
            return Err(Failure::new(
                Exit::Usage,
                format!("{} ends in neither .csv nor .json.", path.display()),
                "The ending says in which form the report is written.",
                "Give the file one of these endings.",
            ));
        }
        std::fs::write(path, "").map_err(|error| not_written(path, &error))?;
        Ok(Self { path: path.to_owned(), json })
    }

    fn write(&self, report: &BenchReport) -> Result<(), Failure> {
        let text =
            if self.json { serde_json::to_string_pretty(report).unwrap_or_default() } else { csv(report) };
        std::fs::write(&self.path, text).map_err(|error| not_written(&self.path, &error))
    }
}

fn csv(report: &BenchReport) -> String {
    let began = jiff::Timestamp::from_millisecond(report.started.0).unwrap_or_default();
    let began = began.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let rows = report.rows().into_iter().map(|row| csv_line(std::iter::once(began.clone()).chain(row)));
    let head = csv_line(std::iter::once("began (UTC)").chain(COLUMNS));
    std::iter::once(head).chain(rows).collect()
}

fn not_written(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::Failed,
        format!("{} cannot be written: {error}.", path.display()),
        "The report is not in that file.",
        "Choose another place for `--out`.",
    )
}
