//! The desktop app.
//!
//! On Linux it is a guest: a window on the engine that `idlewatt run --tray` holds all day. It starts that resident if
//! there is none, shows one window, and is gone when the window closes; nothing of GTK or WebKit stays. On Windows and
//! macOS, where a toolkit weighs little, it is the resident itself: it holds the engine and shows the tray, and the
//! window comes on demand and goes when closed. Where an engine runs already it is a guest there too. The page in the
//! window reaches the engine through one command and one stream of events, see `link`.
#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod link;
mod resident;
mod tell;
#[cfg(not(target_os = "linux"))]
mod tray;
mod window;

use std::process::ExitCode;

use clap::Parser;
use idlewatt_engine::home::Home;

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
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // The HTTP client is built without a provider of its own; the first to ask would otherwise fail.
    drop(rustls::crypto::ring::default_provider().install_default());
    let home = Home::locate()?;
    #[cfg(target_os = "linux")]
    {
        tell::log_to_stderr();
        // The engine first: a page that opens before it would begin with an error.
        tauri::async_runtime::block_on(resident::beside::ensure(&home))?;
        // The tray is the resident's, so there is nothing to keep here.
        if arguments.hidden {
            return Ok(());
        }
    }
    window::run(home, arguments.hidden)
}
