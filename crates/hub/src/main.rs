//! The `idlewatt-hub` binary.

mod cli;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let color = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(color).with_env_filter(filter);
    // One JSON object a line, for programs that collect logs.
    if std::env::var_os("IDLEWATT_LOG").is_some_and(|form| form == "json") {
        log.json().init();
    } else {
        log.init();
    }
    match cli::execute(cli) {
        Ok((text, code)) => {
            // Whoever closed stdout does not want the text.
            if !text.is_empty() {
                let _ = writeln!(std::io::stdout(), "{text}");
            }
            code
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "idlewatt-hub: {error:#}");
            cli::exit_code(&error)
        }
    }
}
