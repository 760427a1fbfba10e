//! A copy of the library in a folder of its own, for a test that wants cards of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

/// What a process needs in its environment to set limits.
pub const RIGHT: &str = "IDLEWATT_SIMNVML_RIGHT";

/// The simulated driver in one folder.
#[derive(Clone, Debug)]
pub struct Rig {
    folder: PathBuf,
}

impl Rig {
    /// Copies the library to `folder`, with its cards as `control` has them.
    ///
    /// # Errors
    /// When the library was not built beside this program, or the folder cannot be written.
    pub fn new(folder: &Path, control: &Value) -> io::Result<Self> {
        let rig = Self { folder: folder.to_path_buf() };
        fs::copy(built()?, rig.library())?;
        rig.steer(control)?;
        Ok(rig)
    }

    /// The library to load.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.folder.join("libnvidia-ml.so.1")
    }

    /// Steers the cards from now on.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn steer(&self, control: &Value) -> io::Result<()> {
        let (new, path) = (self.folder.join("simnvml.new"), self.folder.join("simnvml.json"));
        let before = fs::metadata(&path).and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        // What is written within one tick of the file system's clock is not news.
        loop {
            fs::write(&new, control.to_string())?;
            if fs::metadata(&new)?.modified()? > before {
                return fs::rename(&new, &path);
            }
        }
    }

    /// A card's limit, mW, as the card itself keeps it; `None` while no process has looked.
    #[must_use]
    pub fn limit_mw(&self, uuid: &str) -> Option<u64> {
        let state: Value = serde_json::from_slice(&fs::read(self.folder.join("simnvml.state")).ok()?).ok()?;
        state["cards"][uuid]["limit_mw"].as_u64()
    }
}

/// Beside this program or its folder, where cargo puts it for tests.
fn built() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folders =
        program.ancestors().skip(1).take(2).flat_map(|folder| [folder.to_path_buf(), folder.join("deps")]);
    let names = ["libidlewatt_simnvml.so", "libidlewatt_simnvml.dylib", "idlewatt_simnvml.dll"];
    let mut paths = folders.flat_map(|folder| names.map(|name| folder.join(name)));
    paths.find(|path| path.exists()).ok_or_else(|| io::Error::other("build idlewatt-simnvml first"))
}
