//! `idlewatt-helper`: the one privileged part of Idlewatt, installed only where the host asks for it.
//!
//! It knows four verbs (list, get, set within the card's own range, restore), on a local socket that only the group
//! `idlewatt` reaches. It saves a card's own limit before it sets another, and gives it back when the client that set it
//! is gone, when it ends, and when it starts. Who governs a card, and why, is not its business.

mod custody;
mod session;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(not(any(target_os = "linux", windows)), path = "elsewhere.rs")]
mod system;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::{Parser, Subcommand};
use idlewatt_devices::Places;
use idlewatt_devices::cap::{CapPlaces, Setter};

use custody::Custody;

/// Sets GPU power limits for Idlewatt, within each card's own range, and gives them back.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where to listen: a socket, or on Windows a pipe
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = CapPlaces::usual_helper())]
    socket: PathBuf,
    /// Folder in which the cards' own limits are kept while others are set
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = system::state())]
    state: PathBuf,
    /// NVML's library, where it is not in its usual place
    #[arg(long, global = true, value_name = "LIBRARY")]
    nvml: Option<PathBuf>,
    /// Where Linux tells of devices
    #[arg(long, global = true, value_name = "DIR", default_value = "/sys")]
    sysfs: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Listens until it is ended (the default)
    Serve,
    /// Gives every card its own limit back, and exits: for after a helper that was killed
    Restore,
    /// As the Windows service of that name does
    #[cfg(windows)]
    Service,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).without_time().init();
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None | Some(Command::Serve) => serve(&arguments),
        Some(Command::Restore) => restore(&arguments),
        #[cfg(windows)]
        Some(Command::Service) => system::run_as_service(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let custody = Arc::new(Custody::new(setter(arguments)));
    // Before anyone is listened to: a client must not find a limit of an earlier run, and take it for the card's own.
    custody.restore_orphans();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(system::serve(&arguments.socket, Arc::clone(&custody)));
    let left = custody.restore_all();
    // A driver that hangs would hold this process up for ever; what it keeps is given back by the next start.
    runtime.shutdown_background();
    served?;
    ensure!(left == 0, "{left} cards do not have their own limit yet; the next start tries again");
    Ok(())
}

fn restore(arguments: &Arguments) -> anyhow::Result<()> {
    let left = setter(arguments).restore_all()?;
    ensure!(left == 0, "{left} cards do not have their own limit yet; `idlewatt-helper restore` tries again");
    Ok(())
}

fn setter(arguments: &Arguments) -> Setter {
    let Arguments { nvml, sysfs, state, .. } = arguments;
    Setter::new(&Places { nvml: nvml.clone(), sysfs: sysfs.clone(), ..Places::default() }, state)
}
