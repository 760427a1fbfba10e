//! Puts the built window (`ui/dist`) into the program. Without one, the program has no pages and says so.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../ui/dist");
    // An empty folder is something that cargo can watch; a missing one would compile this crate anew every time. A
    // source tree that cannot be written has no window to wait for.
    drop(fs::create_dir_all(&root));
    // Relative, so that of several checkouts that share a build folder each has its own window embedded.
    println!("cargo::rerun-if-changed=../../ui/dist");
    let mut files = Vec::new();
    collect(&root, &root, &mut files)?;
    files.sort();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut code = String::from("static FILES: &[(&str, &[u8])] = &[\n");
    for (number, (name, path)) in files.into_iter().enumerate() {
        let copy = out.join(format!("window-{number}"));
        fs::write(&copy, fs::read(path)?)?;
        writeln!(code, "    ({name:?}, include_bytes!({copy:?})),")?;
    }
    code.push_str("];\n");
    fs::write(out.join("window.rs"), code)?;
    Ok(())
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) -> Result<(), Box<dyn Error>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else {
            // Paths in an address are written with slashes, whatever the system of the build.
            let name = path.strip_prefix(root)?.to_string_lossy().replace('\\', "/");
            files.push((name, path.canonicalize()?));
        }
    }
    Ok(())
}
