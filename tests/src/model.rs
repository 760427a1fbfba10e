//! The real llama.cpp server with a small real model.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::Consumer;
use crate::process::Process;

/// A model server. Its address stays the same across [`restart`](Self::restart).
pub struct ModelServer {
    /// The process.
    pub process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    arguments: Vec<String>,
    folder: TempDir,
}

impl ModelServer {
    /// Starts one; returns when it answers.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let mut process = spawn(&arguments, folder.path());
        let url = process.line("listening on ", Duration::from_secs(60));
        Self { process, url, arguments, folder }
    }

    /// One that wants this API key.
    #[must_use]
    pub fn locked(key: &str, arguments: &[&str]) -> Self {
        Self::start(&[arguments, &["--api-key", key]].concat())
    }

    /// What Ollama does about memory, without a model: see `tests/servers/ollama.py`.
    #[must_use]
    pub fn ollama(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(python());
        command.arg(crate::here().join("servers/ollama.py")).args(arguments);
        let mut process = Process::spawn("Ollama", &mut command, &folder.path().join("model.log"));
        let url = process.line("listening on ", Duration::from_secs(20));
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { process, url, arguments, folder }
    }

    /// Starts it again where it was, after it was killed.
    pub fn restart(&mut self) {
        let port = self.url.rsplit(':').next().unwrap_or_default().to_owned();
        let arguments = [self.arguments.clone(), vec!["--port".into(), port]].concat();
        self.process = spawn(&arguments, self.folder.path());
        self.process.line("listening on ", Duration::from_secs(60));
    }

    /// Straight to the server, past hub and node.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        Consumer::new(&self.url, "none")
    }

    /// Slots that generate right now.
    pub async fn busy(&self) -> usize {
        let Ok(answer) = crate::http().get(format!("{}/slots", self.url)).send().await else { return 0 };
        let slots: Value = answer.json().await.unwrap_or_default();
        slots.as_array().into_iter().flatten().filter(|slot| slot["is_processing"] == true).count()
    }
}

/// The Python that has the model server and the SDK: `IDLEWATT_PYTHON`, or the one that `script/test` made.
#[must_use]
pub fn python() -> PathBuf {
    let cache = || {
        std::env::var_os("XDG_CACHE_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"),
            PathBuf::from,
        )
    };
    let python = std::env::var_os("IDLEWATT_PYTHON")
        .map_or_else(|| cache().join("idlewatt/py/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing: script/test installs it", python.display());
    python
}

fn spawn(arguments: &[String], folder: &Path) -> Process {
    let mut command = Command::new(python());
    command.arg(crate::here().join("servers/llama_server.py")).args(arguments);
    Process::spawn("the model server", &mut command, &folder.join("model.log"))
}
