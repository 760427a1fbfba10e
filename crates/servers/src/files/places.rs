//! Where programs keep model files, by platform: facts from their documentation.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Source;

/// Folders that are looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    folders: Vec<(Source, PathBuf)>,
    ollama: Vec<PathBuf>,
}

impl Places {
    /// The usual places of the user whose home is `home`, moved by the same variables that move them for the programs
    /// that fill them, and the folders that the host named.
    pub fn of(home: &Path, variable: impl Fn(&str) -> Option<OsString>, host: &[PathBuf]) -> Self {
        let path = |name: &str| variable(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let cache = path("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache"));
        let hub = path("HF_HUB_CACHE")
            .or_else(|| Some(path("HF_HOME")?.join("hub")))
            .unwrap_or_else(|| cache.join("huggingface").join("hub"));
        let llama_cpp = path("LLAMA_CACHE").unwrap_or_else(|| match std::env::consts::OS {
            "macos" => home.join("Library").join("Caches").join("llama.cpp"),
            "windows" => path("LOCALAPPDATA").unwrap_or_else(|| cache.clone()).join("llama.cpp"),
            _ => cache.join("llama.cpp"),
        });
        let mut folders: Vec<_> = host.iter().map(|it| (Source::Host, it.clone())).collect();
        folders.extend([
            (Source::LmStudio, home.join(".lmstudio").join("models")),
            (Source::LmStudio, home.join(".cache").join("lm-studio").join("models")),
            (Source::HuggingFace, hub),
            (Source::LlamaCpp, llama_cpp),
        ]);
        let ollama = match path("OLLAMA_MODELS") {
            Some(chosen) => vec![chosen],
            // As a service of the system, Ollama has a user and a home of its own.
            None => {
                let mut usual = vec![home.join(".ollama").join("models")];
                if cfg!(target_os = "linux") {
                    usual.push("/usr/share/ollama/.ollama/models".into());
                }
                usual
            }
        };
        Self { folders, ollama }
    }

    pub(super) fn folders(&self) -> &[(Source, PathBuf)] {
        &self.folders
    }

    pub(super) fn ollama(&self) -> &[PathBuf] {
        &self.ollama
    }
}
