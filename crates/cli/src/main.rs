//! The `idlewatt` binary: daemon, tray host and commands.
//!
//! Commands print their result on stdout, as text or with `--json` as JSON and nothing else; everything that goes wrong
//! goes to stderr as what happened, what it means and what to do, with an exit code of [`exit::Exit`].

mod args;
mod bench;
mod client;
mod commands;
mod exit;
mod measure;
mod receipt;
mod run;
mod sampling;
mod say;
mod tray;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use exit::{Exit, Failure};
use idlewatt_engine::home::Home;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version go to stdout and are no failure.
            drop(answer.print());
            return if answer.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    // reqwest is built without a provider of its own; the first to ask would otherwise fail.
    drop(rustls::crypto::ring::default_provider().install_default());
    match Home::locate().map_err(Failure::from).and_then(|home| commands::execute(&home, cli.command)) {
        Ok(code) => code,
        Err(failure) => {
            // Nothing is left to tell when stderr itself is closed.
            drop(writeln!(std::io::stderr(), "idlewatt: {}", failure.error));
            failure.exit.into()
        }
    }
}
