//! The desktop app.
//!
//! On Linux it is a guest: a window on the engine that `idlewatt run --tray` holds all day. It starts that resident if
//! there is none, shows one window, and is gone when the window closes; nothing of GTK or WebKit stays. The page in the
//! window reaches the engine through one command and one stream of events, see `link`. On Windows and macOS it stays for
//! the tray as well.
#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod link;
mod resident;
#[cfg(not(target_os = "linux"))]
mod tray;
mod window;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use idlewatt_engine::home::Home;
use tracing_subscriber::EnvFilter;

/// Lend your idle GPU: the desktop window.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Only make sure that Idlewatt runs; open no window.
    #[arg(long)]
    hidden: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell when stderr itself is closed.
            drop(writeln!(std::io::stderr(), "idlewatt-desktop: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // The HTTP client is built without a provider of its own; the first to ask would otherwise fail.
    drop(rustls::crypto::ring::default_provider().install_default());
    let home = Home::locate()?;
    // The engine first: a page that opens before it would begin with an error.
    tauri::async_runtime::block_on(resident::ensure(&home))?;
    // On Linux the tray is the resident's, so there is nothing to keep here.
    if arguments.hidden && cfg!(target_os = "linux") {
        return Ok(());
    }
    window::run(home, arguments.hidden)
}
