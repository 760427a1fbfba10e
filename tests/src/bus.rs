//! A message bus of a test's own.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::Process;

/// Starts nothing by itself, whatever this machine has installed: a keyring that nobody unlocks would be asked for the
/// node's key.
const CONFIGURATION: &str = r#"<busconfig>
  <type>session</type>
  <listen>unix:tmpdir=/tmp</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#;

/// Ends when it is dropped.
pub struct Bus {
    _process: Process,
    /// Where it listens.
    pub address: String,
}

impl Bus {
    /// Starts one whose log is kept in `folder`.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let file = folder.join("bus.conf");
        std::fs::write(&file, CONFIGURATION).expect("the bus's configuration");
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--print-address=1", "--config-file"]).arg(file);
        let mut process = Process::spawn("the message bus", &mut command, &folder.join("bus.log"));
        let address = format!("unix:{}", process.line("unix:", Duration::from_secs(10)));
        Self { _process: process, address }
    }
}
