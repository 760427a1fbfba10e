//! The helper on Windows: a named pipe, and the service control manager as supervisor.
//!
//! Tried under Wine on a simulated card, by hand and as a service; no test repeats that (docs/known-issues.md).

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::sync::{Notify, Semaphore};
use windows_service::service::{
    ServiceControl, ServiceControlAccept, ServiceExitCode, ServiceState, ServiceStatus, ServiceType,
};
use windows_service::service_control_handler::{self, ServiceControlHandlerResult};
use windows_service::{define_windows_service, service_dispatcher};
use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::Security::Authorization::{
    ConvertStringSecurityDescriptorToSecurityDescriptorW, SDDL_REVISION_1,
};
use windows_sys::Win32::Security::SECURITY_ATTRIBUTES;

use crate::custody::{Client, Custody};
use crate::{Arguments, session};

const SERVICE: &str = "idlewatt-helper";
const MOST_CLIENTS: usize = 16;

/// The service's own account and administrators do all; who sits at this machine may connect; nobody over the network.
const WHO_MAY: &str = "D:P(D;;GA;;;NU)(A;;GA;;;SY)(A;;GA;;;BA)(A;;GRGW;;;IU)";

/// Told by the service control manager.
static STOP: Notify = Notify::const_new();

define_windows_service!(service_entry, service_main);

pub(crate) fn state() -> PathBuf {
    let shared = std::env::var_os("ProgramData").map_or_else(|| r"C:\ProgramData".into(), PathBuf::from);
    shared.join("idlewatt-helper")
}

/// Hands this process to the service control manager; returns when the service has ended.
pub(crate) fn run_as_service() -> anyhow::Result<()> {
    service_dispatcher::start(SERVICE, service_entry)
        .context("only the service control manager starts this; by hand it is `idlewatt-helper serve`")
}

fn service_main(_arguments: Vec<OsString>) {
    if let Err(error) = service() {
        tracing::error!("{error:#}");
    }
}

fn service() -> anyhow::Result<()> {
    let status = service_control_handler::register(SERVICE, |control| match control {
        ServiceControl::Stop | ServiceControl::Shutdown => {
            STOP.notify_one();
            ServiceControlHandlerResult::NoError
        }
        ServiceControl::Interrogate => ServiceControlHandlerResult::NoError,
        _ => ServiceControlHandlerResult::NotImplemented,
    })?;
    let say = |current_state, exit_code| {
        status.set_service_status(ServiceStatus {
            service_type: ServiceType::OWN_PROCESS,
            current_state,
            controls_accepted: ServiceControlAccept::STOP | ServiceControlAccept::SHUTDOWN,
            exit_code: ServiceExitCode::Win32(exit_code),
            checkpoint: 0,
            wait_hint: Duration::from_secs(5),
            process_id: None,
        })
    };
    say(ServiceState::Running, 0)?;
    // The command line of the service holds its options.
    let served = crate::serve(&Arguments::parse());
    say(ServiceState::Stopped, u32::from(served.is_err()))?;
    served
}

/// Listens until Ctrl-C or the service is stopped.
pub(crate) async fn serve(path: &Path, custody: Arc<Custody>) -> anyhow::Result<()> {
    let first = pipe(path, true).with_context(|| format!("cannot listen on {}", path.display()))?;
    tokio::spawn(Arc::clone(&custody).keep_restoring());
    tracing::info!(pipe = %path.display(), "listening");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        () = STOP.notified() => Ok(()),
        ended = accept(path, first, &custody) => ended,
    }
}

async fn accept(path: &Path, first: NamedPipeServer, custody: &Arc<Custody>) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(MOST_CLIENTS));
    let mut free = first;
    for number in 0.. {
        let place = Arc::clone(&room).acquire_owned().await?;
        free.connect().await?;
        let stream = std::mem::replace(&mut free, pipe(path, false)?);
        let client = Client { number, name: format!("another program (connection {number})") };
        let custody = Arc::clone(custody);
        tokio::spawn(async move {
            session::serve(stream, client, custody).await;
            drop(place);
        });
    }
    Ok(())
}

/// One end of the pipe. The first takes the name; where somebody else has it already, this fails.
fn pipe(path: &Path, first: bool) -> anyhow::Result<NamedPipeServer> {
    let mut options = ServerOptions::new();
    options.first_pipe_instance(first).reject_remote_clients(true);
    let rules: Vec<u16> = WHO_MAY.encode_utf16().chain([0]).collect();
    let mut descriptor = std::ptr::null_mut();
    #[expect(unsafe_code, reason = "a pipe's access list can be given by a raw pointer only")]
    // SAFETY: `rules` ends with zero; the descriptor is used while it lives, and freed once, by who allocated it.
    unsafe {
        let made = ConvertStringSecurityDescriptorToSecurityDescriptorW(
            rules.as_ptr(),
            SDDL_REVISION_1,
            &mut descriptor,
            std::ptr::null_mut(),
        );
        if made == 0 {
            return Err(std::io::Error::last_os_error()).context("the pipe's access list");
        }
        let mut attributes = SECURITY_ATTRIBUTES {
            nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>())?,
            lpSecurityDescriptor: descriptor,
            bInheritHandle: 0,
        };
        let pipe = options.create_with_security_attributes_raw(path, (&raw mut attributes).cast());
        LocalFree(descriptor);
        Ok(pipe?)
    }
}
