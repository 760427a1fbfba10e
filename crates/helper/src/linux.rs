//! The helper on Linux: a socket, its clients' credentials, and systemd as supervisor.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::custody::{Client, Custody};
use crate::session;

/// An engine needs one; more are let in as others leave.
const MOST_CLIENTS: usize = 16;

pub(crate) fn state() -> PathBuf {
    "/var/lib/idlewatt".into()
}

/// Listens until SIGTERM or SIGINT.
pub(crate) async fn serve(path: &Path, custody: Arc<Custody>) -> anyhow::Result<()> {
    let listener = listen(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let (mut ended, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(Arc::clone(&custody).keep_restoring());
    tracing::info!(socket = %path.display(), "listening");
    tell_supervisor("READY=1");
    tokio::select! {
        _ = ended.recv() => {}
        _ = interrupted.recv() => {}
        () = accept(&listener, &custody) => {}
        () = show_life(&custody) => {}
    }
    // A client that comes now finds nobody, not a helper that is about to end.
    drop(fs::remove_file(path));
    Ok(())
}

async fn accept(listener: &UnixListener, custody: &Arc<Custody>) {
    let room = Arc::new(Semaphore::new(MOST_CLIENTS));
    for number in 0.. {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let client = Client { number, name: name(&stream) };
                let custody = Arc::clone(custody);
                tokio::spawn(async move {
                    session::serve(stream, client, custody).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a client could not be let in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Who it is, by the kernel's word.
fn name(stream: &UnixStream) -> String {
    match stream.peer_cred() {
        Ok(it) => format!("process {} of user {}", it.pid().unwrap_or_default(), it.uid()),
        Err(_) => "an unknown process".into(),
    }
}

/// The socket is for the group of this process: connecting takes the right to write.
fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => bail!("another helper listens there"),
        // A helper that was killed left it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Tells systemd's watchdog that the drivers answer. Where nobody watches, never ends.
async fn show_life(custody: &Arc<Custody>) {
    let watched = std::env::var("WATCHDOG_USEC").ok().and_then(|it| it.parse().ok()).filter(|it| *it > 0);
    let Some(every) = watched.map(Duration::from_micros) else { return std::future::pending().await };
    loop {
        let custody = Arc::clone(custody);
        drop(tokio::task::spawn_blocking(move || custody.is_alive()).await);
        tell_supervisor("WATCHDOG=1");
        tokio::time::sleep(every / 3).await;
    }
}

/// One datagram, as `sd_notify(3)` describes. No supervisor is no error.
fn tell_supervisor(what: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let told = address.and_then(|to| UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &to));
    if let Err(error) = told {
        tracing::warn!(%error, "the supervisor cannot be told");
    }
}
