//! The resident: the process that shares all day, of which a home has one.
//!
//! On Linux it is `idlewatt run --tray`, [beside](beside) this program: a toolkit weighs much there, and the window is a
//! guest. On Windows and macOS it is this process, with the engine [within](within). Either way, one that already runs
//! is taken as it is.

use std::time::Duration;

use idlewatt_engine::home::{ControlFile, Home};

#[cfg(target_os = "linux")]
pub(crate) mod beside;
#[cfg(not(target_os = "linux"))]
pub(crate) mod within;

/// Opening a database and looking for model servers takes a second or two on a slow disk; past this something is wrong.
const START: Duration = Duration::from_secs(20);
/// Between two looks for the resident's address, while it starts.
const LOOK: Duration = Duration::from_millis(40);

/// Waits until the process that takes this home says where it listens.
async fn announced(home: &Home) -> ControlFile {
    loop {
        if let Some(resident) = home.resident() {
            return resident;
        }
        tokio::time::sleep(LOOK).await;
    }
}
