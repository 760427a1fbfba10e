//! A llama-server of the engine's own, for hosts who have no model server: started, slowed, and ended here.
//!
//! It listens on loopback with a key that only this process knows, and ends with this process, however that ends. What it
//! prints is kept in memory only, the last lines of it, for `doctor`. Asking it things is the llama.cpp adapter's.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tokio::sync::watch;
use url::Url;

use crate::http::client;

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix::Process;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows::Process;

/// Lines of its output that are kept.
const LINES: usize = 200;
/// Of each, bytes.
const LINE: usize = 500;
/// What makes llama-server print more, or to a file: then prompts would be among it.
const WORDY: [&str; 4] =
    ["LLAMA_LOG_VERBOSITY", "LLAMA_LOG_FILE", "LLAMA_ARG_LOG_VERBOSITY", "LLAMA_ARG_LOG_FILE"];
/// What a llama-server that does not know of these does not mind: as an argument they would end an older one.
const QUIET: [(&str, &str); 2] = [
    // Up to 8 GiB of main memory for prompts of others that nobody asked for.
    ("LLAMA_ARG_CACHE_RAM", "0"),
    // What is loaded where was chosen already.
    ("LLAMA_ARG_FIT", "off"),
];
/// How often a starting server is asked whether its model is loaded.
const ASKED: Duration = Duration::from_millis(50);
/// It answers that within this time.
const HEALTH: Duration = Duration::from_secs(1);

/// What is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// `llama-server`, or a program that takes its arguments.
    pub program: PathBuf,
    /// The GGUF file.
    pub model: PathBuf,
    /// What the model is called, where its file does not say it.
    pub alias: Option<String>,
    /// Where it listens, on loopback.
    pub port: u16,
    /// Context of one slot, tokens.
    pub context: u32,
    /// Requests at once.
    pub slots: u32,
    /// Layers on the cards, the output counting as one; `None` lets the server decide.
    pub gpu_layers: Option<u32>,
    /// The cards that it may use, with the layers on each; `None` is all that it sees.
    pub cards: Option<Vec<(String, u32)>>,
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Managed {
    process: Arc<Process>,
    log: Arc<Log>,
    ended: watch::Receiver<bool>,
    url: Url,
}

/// Why a server did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The program is not there, or may not be run.
    #[error("{program} cannot be run: {why}")]
    Program {
        /// Which.
        program: String,
        /// The system's words.
        why: String,
    },
    /// Somebody else listens there.
    #[error("port {0} on this machine is in use")]
    PortInUse(u16),
    /// It ended before its model was loaded.
    #[error("it ended before its model was loaded: {}", last(.log))]
    Ended {
        /// The last lines that it printed.
        log: Vec<String>,
    },
    /// It did not load its model in time.
    #[error("its model was not loaded after {} s", .0.as_secs())]
    Late(Duration),
}

impl Managed {
    /// Starts it and waits until its model is loaded, at most `within`. `key` is the API key that it will want.
    ///
    /// # Errors
    /// When it cannot be started, or ends or idles instead of loading. Nothing of it is left running then.
    pub async fn start(launch: &Launch, key: &str, within: Duration) -> Result<Self, StartError> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, launch.port));
        // A stranger's server on this port would be taken for ours.
        drop(TcpListener::bind(address).map_err(|_| StartError::PortInUse(launch.port))?);
        let mut command = command(launch);
        // In the environment rather than an argument: arguments are everybody's to read.
        command.env("LLAMA_API_KEY", key);
        let log = Arc::new(Log::default());
        let (process, ended) = Process::start(command, &log).map_err(|why| StartError::Program {
            program: launch.program.display().to_string(),
            why: why.to_string(),
        })?;
        let url = Url::parse(&format!("http://{address}")).map_err(|_| StartError::PortInUse(launch.port))?;
        let mut managed = Self { process, log, ended, url };
        managed.loaded(within).await?;
        Ok(managed)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops it where it stands, with all it holds; [`go_on`](Self::go_on) takes it up again. Gives whether this system
    /// can do that.
    pub fn hold(&self) -> bool {
        self.process.hold()
    }

    /// Lets it run again.
    pub fn go_on(&self) -> bool {
        self.process.go_on()
    }

    /// Resolves when it has ended, by itself or otherwise.
    pub async fn ended(&self) {
        drop(self.ended.clone().wait_for(|ended| *ended).await);
    }

    /// Whether it has ended, by itself or otherwise.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends it at once. Its memory is the system's again when [`ended`](Self::ended) resolves.
    pub fn end(&self) {
        self.process.end();
    }

    /// The last lines that it printed.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.lines().iter().cloned().collect()
    }

    async fn loaded(&mut self, within: Duration) -> Result<(), StartError> {
        let deadline = Instant::now() + within;
        let client = client().timeout(HEALTH).pool_max_idle_per_host(0).build().ok();
        // `/health` needs no key, and says 503 while the model loads.
        let health = client.zip(self.url.join("/health").ok());
        let is_healthy = || async {
            let (client, url) = health.as_ref()?;
            let answer = client.get(url.clone()).send().await.ok()?;
            (answer.status() == StatusCode::OK).then_some(())
        };
        while is_healthy().await.is_none() {
            if *self.ended.borrow() {
                return Err(StartError::Ended { log: self.log() });
            }
            if Instant::now() >= deadline {
                return Err(StartError::Late(within));
            }
            tokio::select! {
                () = tokio::time::sleep(ASKED) => {}
                () = self.ended() => {}
            }
        }
        Ok(())
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.process.end();
    }
}

fn command(launch: &Launch) -> Command {
    let mut command = Command::new(&launch.program);
    command
        .arg("--model")
        .arg(&launch.model)
        .args(["--host", "127.0.0.1", "--port", &launch.port.to_string()])
        .args(["--parallel", &launch.slots.to_string()])
        // llama-server shares its whole context out among its slots.
        .args(["--ctx-size", &launch.context.saturating_mul(launch.slots).to_string()])
        .args(["--slots", "--no-webui"]);
    if let Some(alias) = &launch.alias {
        command.args(["--alias", alias]);
    }
    if let Some(layers) = launch.gpu_layers {
        command.args(["--n-gpu-layers", &layers.to_string()]).envs(QUIET);
    }
    if let Some(cards) = &launch.cards {
        confine(&mut command, cards);
    }
    for variable in WORDY {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // No console of its own (CREATE_NO_WINDOW), which Windows would open beside the desktop app.
    #[cfg(windows)]
    std::os::windows::process::CommandExt::creation_flags(&mut command, 0x0800_0000);
    command
}

fn last(log: &[String]) -> &str {
    log.iter().rfind(|line| !line.is_empty()).map_or("it said nothing", String::as_str)
}

/// Lets it see these cards only, in this order, each with its part of the layers.
fn confine(command: &mut Command, cards: &[(String, u32)]) {
    if cards.is_empty() {
        // A driver that is only looked at takes memory of the card.
        command.env("CUDA_VISIBLE_DEVICES", "-1").env("LLAMA_ARG_DEVICE", "none");
        return;
    }
    if cards.iter().all(|(id, _)| id.starts_with("GPU-")) {
        let ids: Vec<&str> = cards.iter().map(|(id, _)| id.as_str()).collect();
        command.env("CUDA_VISIBLE_DEVICES", ids.join(","));
    }
    if cards.len() > 1 {
        let layers: Vec<String> = cards.iter().map(|(_, layers)| layers.to_string()).collect();
        command.args(["--tensor-split", &layers.join(",")]);
    }
}

/// The last lines of a server's output.
#[derive(Debug, Default)]
struct Log(Mutex<VecDeque<String>>);

impl Log {
    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads until the other end is closed, whatever comes: a line without an end is cut.
    fn follow(&self, out: impl Read) {
        let mut out = BufReader::new(out);
        let mut line = Vec::new();
        loop {
            line.clear();
            match out.by_ref().take(LINE as u64).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let mut lines = self.lines();
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch() -> Launch {
        Launch {
            program: "llama-server".into(),
            model: "m.gguf".into(),
            port: 4182,
            alias: None,
            context: 4096,
            slots: 2,
            gpu_layers: None,
            cards: None,
        }
    }

    fn variable(command: &Command, name: &str) -> Option<String> {
        command.get_envs().find(|(key, _)| *key == name)?.1.map(|it| it.to_string_lossy().into_owned())
    }

    fn arguments(command: &Command) -> String {
        command.get_args().map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nobodys_environment_makes_it_write_prompts_down() {
        let command = command(&launch());
        let removed = |name: &str| command.get_envs().any(|(key, value)| key == name && value.is_none());
        assert!(WORDY.iter().all(|name| removed(name)));
    }

    #[test]
    fn it_sees_the_cards_that_share_and_no_other() {
        let cards = vec![("GPU-b".to_owned(), 20), ("GPU-a".to_owned(), 13)];
        let both = command(&Launch { gpu_layers: Some(33), cards: Some(cards.clone()), ..launch() });
        assert_eq!(variable(&both, "CUDA_VISIBLE_DEVICES").as_deref(), Some("GPU-b,GPU-a"));
        assert!(arguments(&both).ends_with("--n-gpu-layers 33 --tensor-split 20,13"), "{}", arguments(&both));
        let none = command(&Launch { gpu_layers: Some(0), cards: Some(Vec::new()), ..launch() });
        assert_eq!(variable(&none, "CUDA_VISIBLE_DEVICES").as_deref(), Some("-1"));
        let any = command(&launch());
        assert_eq!(variable(&any, "CUDA_VISIBLE_DEVICES"), None);
        assert!(!arguments(&any).contains("gpu-layers"), "it decides itself");
    }
}
