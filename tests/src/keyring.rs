//! A desktop session's keyring: a message bus of its own with the real gnome-keyring on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::bus::Bus;

const DAEMON: &str = "/usr/bin/gnome-keyring-daemon";
const PASSWORD: &[u8] = b"the password of the test";

/// A keyring that can be locked and unlocked. Ends when it is dropped.
pub struct Keyring {
    bus: Bus,
    daemon: Option<Child>,
    folder: TempDir,
}

impl Keyring {
    /// Starts one that is unlocked; `None` where gnome-keyring is not installed.
    #[must_use]
    pub fn start() -> Option<Self> {
        if !Path::new(DAEMON).exists() {
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let bus = Bus::start(folder.path());
        let mut keyring = Self { bus, daemon: None, folder };
        keyring.run(true);
        Some(keyring)
    }

    /// Variables by which a program finds it.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let folder = |name: &str| self.path(name).display().to_string();
        vec![
            ("DBUS_SESSION_BUS_ADDRESS", self.bus.address.clone()),
            ("XDG_RUNTIME_DIR", folder("run")),
            ("XDG_DATA_HOME", folder("data")),
        ]
    }

    /// As after a login without a password: what is kept is there, and locked.
    pub fn lock(&mut self) {
        self.run(false);
    }

    /// As after a login.
    pub fn unlock(&mut self) {
        self.run(true);
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    fn run(&mut self, unlock: bool) {
        self.end();
        let mut command = Command::new(DAEMON);
        command.args(["--foreground", "--components=secrets"]);
        if unlock {
            command.arg("--unlock");
        }
        command.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY").envs(self.variables());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = command.spawn().expect("gnome-keyring starts");
        if unlock {
            let mut input = daemon.stdin.take().expect("a pipe");
            input.write_all(PASSWORD).expect("the password is read");
        }
        self.daemon = Some(daemon);
        self.until_named();
    }

    /// Waits until it answers on the bus.
    fn until_named(&self) {
        let begun = std::time::Instant::now();
        let named = || {
            // Asked of the bus, which would start one of its own for whoever asks the keyring.
            let mut ask = Command::new("dbus-send");
            ask.args(["--session", "--print-reply", "--dest=org.freedesktop.DBus", "/org/freedesktop/DBus"])
                .args(["org.freedesktop.DBus.NameHasOwner", "string:org.freedesktop.secrets"])
                .envs(self.variables());
            ask.output().is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains("boolean true"))
        };
        while !named() {
            assert!(begun.elapsed() < Duration::from_secs(10), "gnome-keyring does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }
}

impl Drop for Keyring {
    fn drop(&mut self) {
        self.end();
    }
}
