//! A real hub with its own data folder.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, Ran, binary};
use crate::{Consumer, claimed, until};

/// A hub. Its address and books stay the same across [`restart`](Self::restart).
pub struct Hub {
    /// The process.
    pub process: Process,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    options: Vec<String>,
    folder: TempDir,
}

impl Hub {
    /// Starts one; returns when it listens.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further options of `serve`.
    #[must_use]
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().expect("a folder"), options)
    }

    /// The same in a folder that is there.
    #[must_use]
    pub fn start_in(folder: TempDir, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let (process, url) = serve(folder.path(), "127.0.0.1:0", &options);
        Self { process, url, options, folder }
    }

    /// Starts it again where it was, after it was killed or ended.
    pub fn restart(&mut self) {
        let address = self.url.trim_start_matches("http://").to_owned();
        self.process = serve(self.folder.path(), &address, &self.options).0;
    }

    /// Its folder: data in `data`, log in `hub.log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `idlewatt-hub COMMAND … --data DIR`
    pub fn run(&self, arguments: &[&str]) -> Ran {
        command(arguments, &self.folder.path().join("data"))
    }

    /// A consumer with a fresh key of an account, to which credits are granted.
    #[must_use]
    pub fn consumer(&self, account: &str, credits: u32) -> Consumer {
        let credits = credits.to_string();
        let created =
            self.run(&["key", "create", "--account", account, "--credits", &credits, "--json"]).json();
        Consumer::new(&self.url, created["key"].as_str().expect("a key"))
    }

    /// A fresh invite for an account's node.
    #[must_use]
    pub fn invite(&self, account: &str) -> String {
        let created = self.run(&["invite", "create", "--account", account, "--json"]).json();
        created["invite"].as_str().expect("an invite").to_owned()
    }

    /// `ledger check`, which must pass.
    pub fn check_ledger(&self) -> Value {
        self.run(&["ledger", "check", "--json"]).json()
    }

    /// An account as `account show` tells it.
    #[must_use]
    pub fn account(&self, name: &str) -> Value {
        self.run(&["account", "show", name, "--json"]).json()
    }

    /// Waits until some model is available, or none is.
    pub async fn until_available(&self, consumer: &Consumer, some: bool) -> Duration {
        let what = if some { "a model is available" } else { "no model is available" };
        let (_, took) = until(claimed(Duration::from_secs(5)), what, async || {
            let models = consumer.listed().await?;
            (models.iter().any(|model| model["idlewatt"]["available"] == true) == some).then_some(())
        })
        .await;
        took
    }
}

/// `idlewatt-hub COMMAND … --data DIR`, with or without a hub that serves.
pub fn command(arguments: &[&str], data: &Path) -> Ran {
    Ran::of(Command::new(binary("idlewatt-hub")).args(arguments).arg("--data").arg(data))
}

fn serve(folder: &Path, listen: &str, options: &[String]) -> (Process, String) {
    let mut command = Command::new(binary("idlewatt-hub"));
    command
        .args(["serve", "--listen", listen, "--data"])
        .arg(folder.join("data"))
        .args(options)
        .env("RUST_LOG", "debug");
    let mut process = Process::spawn("the hub", &mut command, &folder.join("hub.log"));
    let url = process.line("listening on ", Duration::from_secs(20));
    (process, url)
}
