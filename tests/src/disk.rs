//! A disk that is small enough to be filled.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk of a few MiB, mounted on a folder until it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `None` where this user may not mount.
    #[must_use]
    pub fn on(folder: &Path, mebibytes: u32) -> Option<Self> {
        let size = format!("size={mebibytes}m,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|it| it.status.success()).then(|| Self(folder.to_owned()))
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("a file");
        for size in [64 * 1024, 512, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the file is removed");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a program that is being killed may still hold a file.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).output());
    }
}
