//! The cards' own limits, on disk while others are set: whatever happens to the process, who comes next can give them back.
//!
//! The file names its cards and nothing else; it is gone when every card has its own limit.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use idlewatt_protocol::Milliwatts;
use serde::{Deserialize, Serialize};

use super::CapError;

const VERSION: u32 = 1;

/// Cards' own limits; zero is none at all.
pub(super) struct Originals {
    folder: PathBuf,
    /// `None` until the folder is ours and was read.
    open: Option<Open>,
}

struct Open {
    cards: BTreeMap<String, Milliwatts>,
    /// Two processes that set limits would take each other's for the card's own.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Which start of the system this was saved under, where it tells: no limit outlives it.
    boot: Option<String>,
    cards: BTreeMap<String, Milliwatts>,
}

impl Originals {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), open: None }
    }

    pub(super) fn of(&self, card: &str) -> Option<Milliwatts> {
        self.open.as_ref()?.cards.get(card).copied()
    }

    pub(super) fn cards(&self) -> Vec<String> {
        self.open.iter().flat_map(|open| open.cards.keys().cloned()).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.cards.is_empty())
    }

    /// Reads what an earlier process left, if it left anything.
    pub(super) fn look(&mut self) -> Result<(), CapError> {
        if self.open.is_none() && self.file().exists() { self.open().map(drop) } else { Ok(()) }
    }

    /// Saves a card's own limit, unless one is saved already. Durable when this returns.
    pub(super) fn save(&mut self, card: &str, limit: Milliwatts) -> Result<(), CapError> {
        let cards = &self.open()?.cards;
        if cards.contains_key(card) {
            return Ok(());
        }
        let mut cards = cards.clone();
        cards.insert(card.to_owned(), limit);
        self.replace(cards)
    }

    /// Forgets a card that has its own limit again.
    pub(super) fn forget(&mut self, card: &str) -> Result<(), CapError> {
        let mut cards = self.open()?.cards.clone();
        if cards.remove(card).is_none() {
            return Ok(());
        }
        self.replace(cards)
    }

    fn open(&mut self) -> Result<&mut Open, CapError> {
        if self.open.is_none() {
            let lock = self.lock()?;
            let cards = self.read()?;
            self.open = Some(Open { cards, _lock: lock });
        }
        self.open.as_mut().ok_or(CapError::NotSupported)
    }

    fn lock(&self) -> Result<File, CapError> {
        private_folder(&self.folder).map_err(|error| not_saved(&self.folder, &error))?;
        let path = self.folder.join("limits.lock");
        let file =
            private(&path, OpenOptions::new().truncate(false)).map_err(|error| not_saved(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(CapError::Taken {
                by: format!("another process that keeps limits in {}", self.folder.display()),
            }),
            Err(TryLockError::Error(error)) => Err(not_saved(&path, &error)),
        }
    }

    fn read(&self) -> Result<BTreeMap<String, Milliwatts>, CapError> {
        let path = self.file();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(not_saved(&path, &error)),
        };
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        if serde_json::from_slice::<Version>(&bytes).is_ok_and(|it| it.version > VERSION) {
            let problem =
                format!("{} was written by a newer Idlewatt; install that one again", path.display());
            return Err(CapError::NotSaved { problem });
        }
        let record: Record = match serde_json::from_slice(&bytes) {
            Ok(record) => record,
            Err(error) => return self.set_aside(&error),
        };
        if record.boot.is_some() && record.boot != boot() {
            tracing::info!(
                cards = record.cards.len(),
                "limits from before the system was started are forgotten"
            );
            return Ok(BTreeMap::new());
        }
        Ok(record.cards)
    }

    /// Nothing is known of the cards' own limits, and a guess could raise one above what its host chose: they stay.
    fn set_aside(&self, error: &serde_json::Error) -> Result<BTreeMap<String, Milliwatts>, CapError> {
        let (path, aside) = (self.file(), self.folder.join("limits.unreadable.json"));
        fs::rename(&path, &aside).map_err(|error| not_saved(&path, &error))?;
        tracing::error!(
            %error,
            file = %aside.display(),
            "the cards' own limits cannot be read, so no card is given one back; if a card keeps a low limit, set it with \
             its vendor's tool or restart the machine"
        );
        Ok(BTreeMap::new())
    }

    fn replace(&mut self, cards: BTreeMap<String, Milliwatts>) -> Result<(), CapError> {
        let path = self.file();
        let record = Record { version: VERSION, boot: boot(), cards };
        write(&path, &record).map_err(|error| not_saved(&path, &error))?;
        self.open()?.cards = record.cards;
        if self.cards().is_empty() {
            // Nothing is left to guard: another process may set limits now.
            self.open = None;
        }
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join("limits.json")
    }
}

/// After a crash there is the old file or the new one, never half of one.
fn write(path: &Path, record: &Record) -> io::Result<()> {
    if record.cards.is_empty() {
        fs::remove_file(path).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
    } else {
        let new = path.with_extension("new");
        let mut file = private(&new, OpenOptions::new().truncate(true))?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
    }
    match path.parent().filter(|_| cfg!(unix)) {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.create(true).write(true).open(path)
}

fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn not_saved(path: &Path, error: &io::Error) -> CapError {
    CapError::NotSaved { problem: format!("{}: {error}", path.display()) }
}

/// Which start of the system this is. Drivers forget limits when the system ends.
fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}
