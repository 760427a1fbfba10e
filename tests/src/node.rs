//! A real engine with its own home.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, Ran, binary};
use crate::{Hub, ModelServer, claimed, until};

/// What tells a program of a person at this machine; a node of a test has nobody, and no keyring.
const SESSION: [&str; 7] = [
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XDG_SESSION_ID",
    "XDG_SESSION_TYPE",
    "XDG_CURRENT_DESKTOP",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// An engine. Its home stays the same across [`restart`](Self::restart).
pub struct Node {
    /// The process.
    pub process: Process,
    /// The control panel's printed address, with its one-time code.
    pub panel: String,
    home: TempDir,
    session: Vec<(&'static str, String)>,
}

impl Node {
    /// Starts one with nothing shared; returns when its door is open. It looks at no model server that it is not told of.
    #[must_use]
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), Vec::new())
    }

    /// The same in a home that is there, with variables of a desktop session.
    #[must_use]
    pub fn start_in(home: TempDir, session: Vec<(&'static str, String)>) -> Self {
        let toml = "[servers]\nscan = false\n\n[share]\nidle_after = \"0s\"\nresume_hysteresis = \"0s\"\nbattery = \"1\"\nmemory_short = true\n\n[control]\nlisten = \"127.0.0.1:0\"\n";
        std::fs::write(home.path().join("idlewatt.toml"), toml).expect("a settings file");
        let (process, panel) = run(home.path(), &session);
        Self { process, panel, home, session }
    }

    /// Starts it again in its home, after it was killed or ended.
    pub fn restart(&mut self) {
        (self.process, self.panel) = run(self.home.path(), &self.session);
    }

    /// Its home folder; the log is `engine.log`.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// `idlewatt COMMAND …` in this home.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(command(self.home.path()).args(arguments))
    }

    /// The same with a text at its standard input, as a person types or pastes it.
    pub fn told(&self, arguments: &[&str], input: &str) -> Ran {
        Ran::told(command(self.home.path()).args(arguments), input)
    }

    /// `status --json`
    #[must_use]
    pub fn status(&self) -> Value {
        self.run(&["status", "--json"]).json()
    }

    /// Everything of `requests --json`.
    #[must_use]
    pub fn requests(&self) -> Vec<Value> {
        let rows = self.run(&["requests", "--limit", "1000", "--json"]).json();
        rows.as_array().cloned().unwrap_or_else(|| panic!("requests --json is no list: {rows}"))
    }

    /// Shares a model server's model at a price, and waits until it is ready.
    pub async fn share(&self, model: &ModelServer, price: &str) {
        self.set("servers.urls", &model.url);
        let bound = claimed(Duration::from_secs(10));
        let (id, _) = until(bound, "the engine sees the model server", async || {
            let status = self.status();
            status["services"].as_array()?.iter().find(|it| it["reachable"] == true)?["id"]
                .as_str()
                .map(str::to_owned)
        })
        .await;
        let shared = self.run(&["share", &id, "on", "--price", price, "--json"]);
        assert_eq!(shared.code, Some(0), "{shared:?}");
        until(bound, "the service is ready", async || {
            self.status()["services"].as_array()?.iter().find(|it| it["ready"] == true).map(drop)
        })
        .await;
    }

    /// Joins a hub for an account, and waits until it is connected.
    pub async fn join(&self, hub: &Hub, account: &str) {
        let joined = self.run(&["join", &hub.invite(account), "--json"]);
        assert_eq!(joined.code, Some(0), "{joined:?}");
        self.until_connected(&hub.url).await;
    }

    /// Waits until it is connected to a hub.
    pub async fn until_connected(&self, hub: &str) -> Duration {
        let (_, took) = until(claimed(Duration::from_secs(5)), "the node is connected", async || {
            let status = self.status();
            let networks = status["networks"].as_array()?;
            networks
                .iter()
                .find(|it| {
                    it["url"].as_str().is_some_and(|url| url.trim_end_matches('/') == hub)
                        && it["state"] == "connected"
                })
                .map(drop)
        })
        .await;
        took
    }

    /// Waits for a state of `status`: `sharing`, `paused`, ….
    pub async fn until_state(&self, state: &str) {
        let what = format!("the node is {state}");
        until(claimed(Duration::from_secs(3)), &what, async || {
            (self.status()["state"] == state).then_some(())
        })
        .await;
    }

    /// `config set`, which must succeed.
    pub fn set(&self, key: &str, value: &str) {
        let set = self.run(&["config", "set", key, value]);
        assert_eq!(set.code, Some(0), "{set:?}");
    }
}

/// The `idlewatt` program in a home.
#[must_use]
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(binary("idlewatt"));
    for variable in SESSION {
        command.env_remove(variable);
    }
    command.env("IDLEWATT_HOME", home).env("HOME", home);
    // Nor is it to follow this machine's own lid and sleep.
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", home.join("no-bus").display()));
    command
}

fn run(home: &Path, session: &[(&str, String)]) -> (Process, String) {
    let mut run = command(home);
    run.arg("run").env("RUST_LOG", "debug").envs(session.iter().cloned());
    let mut process = Process::spawn("the engine", &mut run, &home.join("engine.log"));
    let panel = process.line("control panel: ", Duration::from_secs(20));
    (process, panel)
}
