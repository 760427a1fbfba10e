//! llama-server programs on this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A program says its version within this time; one that has to wake a card takes a second or two.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of what it says, bytes.
const SAID: u64 = 16 * 1024;
const NAME: &str = if cfg!(windows) { "llama-server.exe" } else { "llama-server" };

/// Every llama-server in `PATH`, then in the places where package managers and people put it. Only looks; runs nothing.
pub fn programs(home: &Path, variable: impl Fn(&str) -> Option<OsString>, own: &Path) -> Vec<PathBuf> {
    let in_path = variable("PATH").unwrap_or_default();
    let local = variable("LOCALAPPDATA").map(PathBuf::from);
    let program_files = variable("ProgramFiles").map(PathBuf::from);
    let windows = [
        // winget links what it installs here.
        local.as_ref().map(|it| it.join("Microsoft").join("WinGet").join("Links")),
        local.as_ref().map(|it| it.join("Programs").join("llama.cpp")),
        program_files.map(|it| it.join("llama.cpp")),
    ];
    let unix = [
        home.join(".local").join("bin"),
        home.join("bin"),
        // Homebrew on Apple silicon, on older Macs, on Linux; MacPorts; Nix.
        "/opt/homebrew/bin".into(),
        "/usr/local/bin".into(),
        "/home/linuxbrew/.linuxbrew/bin".into(),
        "/opt/local/bin".into(),
        home.join(".nix-profile").join("bin"),
        "/usr/bin".into(),
    ];
    let usual: Vec<PathBuf> =
        if cfg!(windows) { windows.into_iter().flatten().collect() } else { unix.into_iter().collect() };
    // Where it is built by those who build it.
    let built = home.join("llama.cpp").join("build").join("bin");
    let mut found = Vec::new();
    for folder in
        [own.to_owned()].into_iter().chain(std::env::split_paths(&in_path)).chain(usual).chain([built])
    {
        let path = folder.join(NAME);
        if folder.is_absolute() && is_program(&path) && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// What the program calls its version: `version: 6123 (5a0c7e3)` is `6123 (5a0c7e3)`. Runs it, for seconds at most.
pub async fn version(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    // It looks for cards before it says anything, and a card that is looked at wakes.
    command.env("CUDA_VISIBLE_DEVICES", "-1").env("HIP_VISIBLE_DEVICES", "-1");
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let (mut out, mut err) = (String::new(), String::new());
    let (stdout, stderr) = (child.stdout.take()?, child.stderr.take()?);
    let (mut stdout, mut stderr) = (stdout.take(SAID), stderr.take(SAID));
    // Builds differ in where they say it.
    let said = async { tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    drop(tokio::time::timeout(PATIENCE, said).await.ok()?);
    out.lines().chain(err.lines()).find_map(|line| {
        let version = line.strip_prefix("version:")?.trim();
        let is_plain = version.len() <= 64 && !version.is_empty() && !version.contains(char::is_control);
        is_plain.then(|| version.to_owned())
    })
}
