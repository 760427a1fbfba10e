//! A circle of one: a hub of the host's own beside the engine, so that every device of the host's has one endpoint.
//!
//! The hub is the ordinary `idlewatt-hub`, found beside this program or in `PATH`, with its data under this home. The
//! engine starts it, joins it with an invite like any node, keeps it running while it runs itself, and stops it last. It is
//! for this machine only, until the host opens it to the networks that the machine is in (`hub.lan`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatt_control::{Code, CodePicture, ControlError, HubInvite, OwnHub};
use idlewatt_protocol::invite::{Invite, InviteError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Notify;
use tokio::time::timeout;
use url::Url;

use crate::home::write_private;
use crate::node::{Node, lock};
use crate::problem::of_store;

/// Where the database notes the hub.
const NOTE: &str = "circle";
/// The account of the host on it.
const ACCOUNT: &str = "me";
/// What it is called in sentences and tables.
const NAME: &str = "your own hub";
/// Where it listens, unless that is taken when it is first made: for this machine, and for the networks that it is in.
const USUAL: &str = "127.0.0.1:4181";
const USUAL_LAN: &str = "0.0.0.0:4182";
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
    doors: Doors,
}

/// How the host wants it to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Doors {
    lan: bool,
    public_url: Option<Url>,
}

/// What is kept of it: enough to start it again at the same address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    address: String,
    network: String,
    /// Where it listens for the networks that this machine is in, once it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lan: Option<String>,
}

/// Where it says that it listens.
struct Listening {
    address: String,
    lan: Option<String>,
}

/// What `idlewatt-hub invite create --json` prints.
#[derive(Deserialize)]
struct Invited {
    invite: String,
    #[serde(default)]
    picture: Option<CodePicture>,
}

impl Circle {
    /// Ends the hub, gently first.
    pub(crate) async fn close(&self) {
        if let Some(Running { mut child, leash, .. }) = self.running.lock().await.take() {
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
        let listening = self.spawn_hub(&program, listen, None).await?;
        if let Err(error) = self.settle_in(&program, listening).await {
            self.circle.close().await;
            return Err(error);
        }
        self.circle.changed.notify_one();
        self.own_hub().ok_or_else(|| hub_failed("its key is not there"))
    }

    async fn settle_in(self: &Arc<Self>, program: &Path, listening: Listening) -> Result<(), ControlError> {
        #[derive(Deserialize)]
        struct Key {
            key: String,
        }
        let data = self.hub_data();
        if self.kept_key().is_none() {
            let made: Key = command(program, &data, ["key", "create", "--account", ACCOUNT]).await?;
            write_private(&self.key_path(), made.key.as_bytes())?;
        }
        let made: Invited = command(program, &data, ["invite", "create", "--account", ACCOUNT]).await?;
        let Listening { address, lan } = listening;
        // This machine's own way to it does not go through a network.
        let near =
            Url::parse(&format!("http://{address}")).map_err(|error| hub_failed(&error.to_string()))?;
        let invite: Invite =
            made.invite.parse().map_err(|error: InviteError| hub_failed(&error.to_string()))?;
        let network = self.join(&Invite { hubs: vec![near], ..invite }.to_string()).await?;
        self.keep_made(Made { address, network, lan }).await
    }

    async fn keep_made(&self, made: Made) -> Result<(), ControlError> {
        let note = serde_json::to_string(&made).unwrap_or_default();
        self.store.set_setting(NOTE, &note).await.map_err(|error| of_store(&error))?;
        *lock(&self.circle.made) = Some(made);
        Ok(())
    }

    /// An invite to it for another device: a node's, or a browser's.
    pub(crate) async fn invite_to_own_hub(&self) -> Result<HubInvite, ControlError> {
        if lock(&self.circle.made).is_none() {
            return Err(ControlError::new(
                Code::NotFound,
                "You have no hub of your own.",
                "An invite leads another device to a hub.",
                "Start it first: `idlewatt hub start`.",
            ));
        }
        let doors = self.doors();
        if !doors.lan && doors.public_url.is_none() {
            return Err(ControlError::new(
                Code::BadValue,
                "Your own hub is for this machine only, so no other device would reach it.",
                "It is opened to the networks that this machine is in by your choice alone, and always encrypted.",
                "Open it with `idlewatt config set hub.lan true`, then make the invite.",
            ));
        }
        let made: Invited =
            command(&program()?, &self.hub_data(), ["invite", "create", "--account", ACCOUNT]).await?;
        let invite: Invite =
            made.invite.parse().map_err(|error: InviteError| hub_failed(&error.to_string()))?;
        let page = invite.page().map(String::from).unwrap_or_default();
        Ok(HubInvite { invite: made.invite, page, picture: made.picture })
    }

    fn doors(&self) -> Doors {
        let config = self.config();
        let settings = config.settings();
        Doors { lan: settings.hub_lan, public_url: settings.hub_public_url.clone() }
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
        let mut config = self.config.subscribe();
        let mut again = AGAIN_FIRST;
        let mut tried = Instant::now();
        loop {
            let made = lock(&self.circle.made).clone();
            if let Some(made) = made
                && !self.hub_runs_as_wanted().await
            {
                tried = Instant::now();
                match self.start_again(made).await {
                    Ok(()) => self.settled("circle"),
                    Err(error) => self.wants_person("circle", &error),
                }
            }
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = self.circle.changed.notified() => {}
                // The node outlives this.
                Ok(()) = config.changed() => {}
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

    /// Whether it runs; one whose doors the host wants otherwise is ended, and starts again so.
    async fn hub_runs_as_wanted(&self) -> bool {
        let wanted = self.doors();
        let mut running = self.circle.running.lock().await;
        let Some(it) = running.as_mut() else { return false };
        if !matches!(it.child.try_wait(), Ok(None)) {
            return false;
        }
        if it.doors == wanted {
            return true;
        }
        drop(running);
        tracing::info!(lan = wanted.lan, "the host's own hub starts again with other doors");
        self.circle.close().await;
        false
    }

    async fn start_again(&self, made: Made) -> Result<(), ControlError> {
        let listening = self.spawn_hub(&program()?, &made.address, made.lan.as_deref()).await?;
        match listening.lan {
            Some(lan) if made.lan.as_ref() != Some(&lan) => {
                self.keep_made(Made { lan: Some(lan), ..made }).await
            }
            _ => Ok(()),
        }
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

    /// Starts the hub, as the host wants it to be reached; `lan` is where it listened before for other devices.
    async fn spawn_hub(
        &self,
        program: &Path,
        listen: &str,
        lan: Option<&str>,
    ) -> Result<Listening, ControlError> {
        let doors = self.doors();
        let mut command = hub(program);
        command
            .args(["serve", "--with-parent", "--name", NAME, "--listen", listen, "--data"])
            .arg(self.hub_data());
        if doors.lan {
            let is_free = |address: &&str| std::net::TcpListener::bind(address).is_ok();
            command.args(["--lan", lan.into_iter().chain([USUAL_LAN]).find(is_free).unwrap_or("0.0.0.0:0")]);
        }
        if let Some(url) = &doors.public_url {
            command.args(["--public-url", url.as_str()]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| hub_failed(&error.to_string()))?;
        let leash = child.stdin.take();
        let lines = child.stdout.take().map(|out| BufReader::new(out).lines());
        let lan = doors.lan;
        let said = async {
            let mut lines = lines?;
            let address = listens(&mut lines, "http").await?;
            let lan = if lan { Some(listens(&mut lines, "https").await?) } else { None };
            Some(Listening { address, lan })
        };
        let Some((listening, leash)) = timeout(READY, said).await.ok().flatten().zip(leash) else {
            drop(child.kill().await);
            return Err(hub_failed("it ended, or did not say where it listens"));
        };
        tracing::info!(address = %listening.address, lan = ?listening.lan, "the host's own hub runs");
        *self.circle.running.lock().await = Some(Running { child, leash, doors });
        Ok(listening)
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

/// The address in the hub's next line, which must be one of this scheme.
async fn listens(lines: &mut Lines<BufReader<ChildStdout>>, scheme: &str) -> Option<String> {
    let line = lines.next_line().await.ok()??;
    line.strip_prefix(&format!("listening on {scheme}://")).map(str::to_owned)
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
