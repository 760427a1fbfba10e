//! Model files that are on this machine already, wherever other programs keep theirs.
//!
//! Only read, never moved or changed. A walk is bounded in depth, entries and time, and follows no symbolic link to a
//! folder, so it ends whatever the disk holds; a file that has not changed is not read twice. Everything here blocks: it
//! is for a thread that may.

mod ollama;
mod places;
mod programs;

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use crate::gguf::{GgufError, Header, Purpose, read_header};
use crate::name::{PublicName, tidy};

pub use places::Places;
pub use programs::{programs, version};

/// Folders below a place that are looked into: a Hugging Face snapshot is four deep.
const DEPTH: u32 = 8;
/// Entries of folders that are looked at in one walk.
const ENTRIES: usize = 50_000;
/// Models in one list.
const MODELS: usize = 500;
/// One walk ends after this time, and gives what it has.
const PATIENCE: Duration = Duration::from_secs(10);
/// Files smaller than this hold no model, bytes: the smallest headers alone are longer.
const LEAST: u64 = 1024;

/// Where a file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A folder that the host named, or the file in use.
    Host,
    /// LM Studio.
    LmStudio,
    /// The cache of Hugging Face's own tools.
    HuggingFace,
    /// Ollama.
    Ollama,
    /// llama.cpp's own downloads.
    LlamaCpp,
}

impl Source {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "your folder",
            Self::LmStudio => "LM Studio",
            Self::HuggingFace => "Hugging Face cache",
            Self::Ollama => "Ollama",
            Self::LlamaCpp => "llama.cpp cache",
        }
    }
}

/// A model on this machine's disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOnDisk {
    /// Stable as long as it stays where it is; tells no path.
    pub id: String,
    /// The first of its files.
    pub path: PathBuf,
    /// Whose it is.
    pub source: Source,
    /// Public name without quantisation, as an offer names it: `smollm2-135m-instruct`.
    pub model: String,
    /// Lower case: `q4_1`.
    pub quantisation: Option<String>,
    /// All its files, bytes; only the first where it cannot be read.
    pub size: u64,
    /// What it says of itself, or why it cannot be used.
    pub header: Result<Header, GgufError>,
}

/// Model files, and what was read of them.
#[derive(Debug, Default)]
pub struct ModelFiles {
    read: Mutex<HashMap<PathBuf, Read>>,
}

/// One state of one file: what has neither another length nor another time of change was not changed.
type State = (u64, Option<SystemTime>);
type Read = (State, Result<Header, GgufError>);

impl ModelFiles {
    /// Every model that writes text, and every file that should be one and cannot be read; by name, one file once.
    #[must_use]
    pub fn find(&self, places: &Places) -> Vec<ModelOnDisk> {
        let mut walk = Walk::new();
        for (source, folder) in places.folders() {
            // The place itself may be a link to a larger disk.
            if let Ok(folder) = folder.canonicalize() {
                walk.down(&folder, DEPTH, *source);
            }
        }
        for root in places.ollama() {
            ollama::list(root, &mut walk);
        }
        let mut models: Vec<_> = walk.found.into_iter().filter_map(|it| self.model(it)).collect();
        models.sort_by(|a, b| {
            (&a.model, &a.quantisation, a.source, &a.path).cmp(&(
                &b.model,
                &b.quantisation,
                b.source,
                &b.path,
            ))
        });
        self.forget(&models);
        models
    }

    /// One file that the host named; also where no walk would find it, and whatever is in it.
    #[must_use]
    pub fn one(&self, path: &Path) -> ModelOnDisk {
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let of_ollama = ollama::name(&real);
        let source = if of_ollama.is_some() { Source::Ollama } else { Source::Host };
        let name = of_ollama.unwrap_or_else(|| path.to_string_lossy().into_owned());
        self.described(Candidate { path: path.to_owned(), source, name, real })
    }

    fn model(&self, candidate: Candidate) -> Option<ModelOnDisk> {
        let model = self.described(candidate);
        let is_ours = match &model.header {
            Ok(header) => header.purpose == Purpose::Text,
            // Ollama keeps other formats too; elsewhere the name says that it should be one.
            Err(GgufError::NotGguf) => model.source != Source::Ollama,
            Err(_) => true,
        };
        is_ours.then_some(model)
    }

    fn described(&self, candidate: Candidate) -> ModelOnDisk {
        let Candidate { path, source, name, real } = candidate;
        let header = self.header(&path);
        let name = PublicName::of(&name);
        let of_file = header.as_ref().ok().and_then(|it| it.quantisation).map(tidy);
        let size = match &header {
            Ok(header) => header.size,
            Err(_) => std::fs::metadata(&path).map_or(0, |it| it.len()),
        };
        let quantisation = of_file.or(name.quantisation);
        ModelOnDisk { id: id(&real), path, source, model: name.model, quantisation, size, header }
    }

    fn header(&self, path: &Path) -> Result<Header, GgufError> {
        let state = std::fs::metadata(path).map(|it: Metadata| (it.len(), it.modified().ok()));
        let state = state.map_err(|error| GgufError::Unreadable(error.to_string()))?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, header)) = read.get(path)
            && *then == state
            // A part that was missing may have come since.
            && !matches!(header, Err(GgufError::PartMissing { .. } | GgufError::Slow))
        {
            return header.clone();
        }
        let header = read_header(path);
        read.insert(path.to_owned(), (state, header.clone()));
        header
    }

    fn forget(&self, but: &[ModelOnDisk]) {
        let kept: HashSet<&Path> = but.iter().map(|it| it.path.as_path()).collect();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() > MODELS {
            read.retain(|path, _| kept.contains(path.as_path()));
        }
    }
}

/// The end of a hash of the path: short enough to type, and it tells nothing.
fn id(path: &Path) -> String {
    let name = PublicName::of(&path.to_string_lossy()).model;
    let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let hash = HEXLOWER.encode(hash.get(..4).unwrap_or_default());
    let is_blob = name.starts_with("sha256");
    if is_blob { format!("ollama-{hash}") } else { format!("{name}-{hash}") }
}

/// A file that may be a model.
struct Candidate {
    path: PathBuf,
    source: Source,
    /// What it is called: a file name, or what Ollama calls it.
    name: String,
    /// Itself, behind all links.
    real: PathBuf,
}

/// One look around the disks.
struct Walk {
    found: Vec<Candidate>,
    seen: HashSet<PathBuf>,
    entries: usize,
    until: Instant,
}

impl Walk {
    fn new() -> Self {
        let until = Instant::now() + PATIENCE;
        Self { found: Vec::new(), seen: HashSet::new(), entries: 0, until }
    }

    /// Whether it has looked at as much as it may.
    fn is_over(&self) -> bool {
        self.entries >= ENTRIES || self.found.len() >= MODELS || Instant::now() >= self.until
    }

    fn down(&mut self, folder: &Path, depth: u32, source: Source) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            if self.is_over() {
                return;
            }
            self.entries += 1;
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            if kind.is_dir() {
                if depth > 0 {
                    self.down(&path, depth - 1, source);
                }
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_model_file(&name) {
                self.add(path, source, name);
            }
        }
    }

    /// A file, or a link to one, unless it was seen under another name.
    fn add(&mut self, path: PathBuf, source: Source, name: String) {
        let Ok(real) = path.canonicalize() else { return };
        let is_file = std::fs::metadata(&real).is_ok_and(|it| it.is_file() && it.len() >= LEAST);
        if is_file && self.seen.insert(real.clone()) {
            self.found.push(Candidate { path, source, name, real });
        }
    }
}

/// A GGUF by its name, the first part of one that has several.
fn is_model_file(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let Some(stem) = lower.strip_suffix(".gguf") else { return false };
    let part = stem.rsplit_once("-of-").and_then(|(before, _)| before.rsplit_once('-'));
    let is_later_part = part.is_some_and(|(_, number)| number.len() == 5 && number != "00001");
    // Eyes and ears of other models, by how they are always called; what is called otherwise says so itself.
    !is_later_part && !lower.starts_with("mmproj") && !lower.contains("-mmproj")
}

#[cfg(test)]
mod tests;
