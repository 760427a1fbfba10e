//! A circle of one: a hub of the host's own beside the engine, so that every device of the host's has one endpoint.
//!
//! The hub is the ordinary `idlewatt-hub`, found beside this program or in `PATH`, with its data under this home. The
//! engine starts it, joins it with an invite like any node, keeps it running while it runs itself, and stops it last.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatt_control::{Code, ControlError, OwnHub};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::home::write_private;
use crate::node::{Node, lock};
use crate::problem::of_store;

/// Where the database notes the hub.
const NOTE: &str = "circle";
/// The account of the host on it.
const ACCOUNT: &str = "me";
/// What it is called in sentences and tables.
const NAME: &str = "your own hub";
/// Where it listens, unless that is taken when it is first made.
const USUAL: &str = "127.0.0.1:4181";
/// It is ready, or has answered a command, within this time.
const READY: Duration = Duration::from_secs(20);
/// It drains within this time, or is ended.
const DRAIN: Duration = Duration::from_secs(4);
/// The flag of `CreateProcess` by which a console program gets no window of its own beside the desktop app's.
#[cfg(windows)]
const CREATE_NO_WINDOW: u32 = 0x0800_0000;
const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_LAST: Duration = Duration::from_secs(60);

/// The hub while it runs.
#[derive(Debug, Default)]
pub(crate) struct Circle {
    made: Mutex<Option<Made>>,
    running: tokio::sync::Mutex<Option<Running>>,
    changed: Notify,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// The hub ends when this is closed: by [`Circle::close`], or with this process, however it ends.
    leash: ChildStdin,
}

/// What is kept of it: enough to start it again at the same address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    address: String,
    network: String,
}

impl Circle {
    /// Ends the hub, gently first.
    pub(crate) async fn close(&self) {
        if let Some(Running { mut child, leash }) = self.running.lock().await.take() {
            drop(leash);
            if timeout(DRAIN, child.wait()).await.is_err() {
                drop(child.kill().await);
            }
        }
    }
}

impl Node {
    /// The hub's address and key; `None` while it is off.
    pub(crate) fn own_hub(&self) -> Option<OwnHub> {
        let made = lock(&self.circle.made).clone()?;
        Some(OwnHub { url: format!("http://{}/v1", made.address), key: self.kept_key()? })
    }

    /// Starts the hub, makes an account and a key, and joins it.
    pub(crate) async fn start_own_hub(self: &Arc<Self>) -> Result<OwnHub, ControlError> {
        if let Some(hub) = self.own_hub() {
            return Ok(hub);
        }
        let program = program()?;
        let listen = if std::net::TcpListener::bind(USUAL).is_ok() { USUAL } else { "127.0.0.1:0" };
        let address = self.spawn_hub(&program, listen).await?;
        if let Err(error) = self.settle_in(&program, &address).await {
            self.circle.close().await;
            return Err(error);
        }
        self.circle.changed.notify_one();
        self.own_hub().ok_or_else(|| hub_failed("its key is not there"))
    }

    async fn settle_in(self: &Arc<Self>, program: &Path, address: &str) -> Result<(), ControlError> {
        #[derive(Deserialize)]
        struct Key {
            key: String,
        }
        #[derive(Deserialize)]
        struct Invite {
            invite: String,
        }
        let data = self.hub_data();
        if self.kept_key().is_none() {
            let made: Key = command(program, &data, ["key", "create", "--account", ACCOUNT]).await?;
            write_private(&self.key_path(), made.key.as_bytes())?;
        }
        let made: Invite = command(program, &data, ["invite", "create", "--account", ACCOUNT]).await?;
        let network = self.join(&made.invite).await?;
        let made = Made { address: address.to_owned(), network };
        let note = serde_json::to_string(&made).unwrap_or_default();
        self.store.set_setting(NOTE, &note).await.map_err(|error| of_store(&error))?;
        *lock(&self.circle.made) = Some(made);
        Ok(())
    }

    /// Leaves the hub and stops it. Its books stay where they are.
    pub(crate) async fn stop_own_hub(self: &Arc<Self>) -> Result<(), ControlError> {
        let Some(made) = lock(&self.circle.made).take() else { return Ok(()) };
        self.store.set_setting(NOTE, "").await.map_err(|error| of_store(&error))?;
        self.circle.changed.notify_one();
        // It may have been left by name already.
        drop(self.leave(&made.network).await);
        self.circle.close().await;
        Ok(())
    }

    /// Runs the hub that was made, again when it ends by itself. Ends when the node stops.
    pub(crate) async fn keep_circle(self: Arc<Self>) {
        let note = self.store.setting(NOTE).await.ok().flatten();
        *lock(&self.circle.made) = note.and_then(|text| serde_json::from_str(&text).ok());
        let mut again = AGAIN_FIRST;
        let mut tried = Instant::now();
        loop {
            let made = lock(&self.circle.made).clone();
            if let Some(made) = made
                && !self.hub_runs().await
            {
                tried = Instant::now();
                let started = match program() {
                    Ok(program) => self.spawn_hub(&program, &made.address).await,
                    Err(error) => Err(error),
                };
                match started {
                    Ok(_) => self.settled("circle"),
                    Err(error) => self.wants_person("circle", &error),
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.circle.changed.notified() => {}
                () = self.hub_ended() => {
                    if tried.elapsed() > AGAIN_LAST {
                        again = AGAIN_FIRST;
                    }
                    tracing::warn!(after = ?again, "the host's own hub does not run; it is started again");
                    tokio::select! {
                        () = self.stopping.cancelled() => return,
                        () = tokio::time::sleep(again) => {}
                    }
                    again = (again * 2).min(AGAIN_LAST);
                }
            }
        }
    }

    async fn hub_runs(&self) -> bool {
        let mut running = self.circle.running.lock().await;
        running.as_mut().is_some_and(|it| matches!(it.child.try_wait(), Ok(None)))
    }

    /// Resolves when a hub that should run does not.
    async fn hub_ended(&self) {
        if lock(&self.circle.made).is_none() {
            return std::future::pending().await;
        }
        let mut running = self.circle.running.lock().await;
        if let Some(it) = running.as_mut() {
            drop(it.child.wait().await);
        }
    }

    /// Starts the hub; gives the address that it listens on.
    async fn spawn_hub(&self, program: &Path, listen: &str) -> Result<String, ControlError> {
        let mut command = hub(program);
        command
            .args(["serve", "--with-parent", "--name", NAME, "--listen", listen, "--data"])
            .arg(self.hub_data());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| hub_failed(&error.to_string()))?;
        let leash = child.stdin.take();
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        let line = async { lines?.next_line().await.ok().flatten() };
        let address = timeout(READY, line).await.ok().flatten();
        let address = address.as_deref().and_then(|line| line.strip_prefix("listening on http://"));
        let Some((address, leash)) = address.map(str::to_owned).zip(leash) else {
            drop(child.kill().await);
            return Err(hub_failed("it ended, or did not say where it listens"));
        };
        tracing::info!(%address, "the host's own hub runs");
        *self.circle.running.lock().await = Some(Running { child, leash });
        Ok(address)
    }

    fn hub_data(&self) -> PathBuf {
        self.home.data.join("hub")
    }

    fn key_path(&self) -> PathBuf {
        self.home.data.join("own-hub.key")
    }

    fn kept_key(&self) -> Option<String> {
        std::fs::read_to_string(self.key_path()).ok().map(|key| key.trim().to_owned())
    }
}

fn hub(program: &Path) -> Command {
    #[cfg_attr(not(windows), expect(unused_mut, reason = "a console is Windows'"))]
    let mut command = Command::new(program);
    #[cfg(windows)]
    command.creation_flags(CREATE_NO_WINDOW);
    command
}

/// Asks the running hub one thing, through the door in its data folder.
async fn command<T: DeserializeOwned, const N: usize>(
    program: &Path,
    data: &Path,
    args: [&str; N],
) -> Result<T, ControlError> {
    let mut command = hub(program);
    command.args(args).arg("--json").arg("--data").arg(data).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(READY, command.output()).await;
    let output = output.map_err(|_| hub_failed("it did not answer"))?;
    let output = output.map_err(|error| hub_failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(hub_failed(String::from_utf8_lossy(&output.stderr).trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| hub_failed(&error.to_string()))
}

/// `idlewatt-hub` beside this program, or in `PATH`.
fn program() -> Result<PathBuf, ControlError> {
    let name = format!("idlewatt-hub{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|it| Some(it.parent()?.join(&name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join(&name));
    beside.into_iter().chain(in_path).find(|it| it.is_file()).ok_or_else(|| {
        ControlError::new(
            Code::NotFound,
            "The program idlewatt-hub was not found.",
            "A hub of your own is a program of its own; it lies beside idlewatt, or in PATH.",
            "Install it, or join somebody else's hub by an invite.",
        )
    })
}

fn hub_failed(why: &str) -> ControlError {
    ControlError::new(
        Code::Internal,
        format!("Your own hub does not run: {}.", why.trim_end_matches('.')),
        "Your devices cannot reach this machine's models through it. Nothing in its books is lost.",
        "`idlewatt-hub serve --data` with the `hub` folder of the data folder shows what is wrong.",
    )
}
