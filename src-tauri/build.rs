//! Checks that there is a user interface to embed, then lets Tauri generate its context and permissions.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=../ui/dist");
    if !Path::new("../ui/dist/index.html").exists() {
        println!(
            "cargo::error=ui/dist is missing: the window embeds it; run `npm ci && npm run build` in ui/ first"
        );
        return ExitCode::FAILURE;
    }
    let commands = tauri_build::AppManifest::new().commands(&["control"]);
    if let Err(error) = tauri_build::try_build(tauri_build::Attributes::new().app_manifest(commands)) {
        println!("cargo::error={error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
