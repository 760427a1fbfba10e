//! The node's secrets: the Ed25519 key that signs its statements, and the key of the host's own endpoint.
//!
//! The first is kept in the desktop's keyring or, where there is none, in a file that only this user can read; the database
//! records which. Once recorded, that store is the only one asked: a locked keyring is an error to be tried again, never
//! a reason to make a new key.

use std::path::{Path, PathBuf};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use ed25519_dalek::SigningKey;
use idlewatt_control::{Code, ControlError};
use idlewatt_store::Store;

use crate::config::KeyStore;
use crate::home::write_private;
use crate::problem;

/// A keyring, as far as a node needs one.
pub trait Keyring: Send + Sync {
    /// The secret under a name; `None` when there is none.
    ///
    /// # Errors
    /// When the keyring is locked, not there, or fails.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeyringError>;

    /// Keeps a secret under a name.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn set(&self, name: &str, secret: &[u8]) -> Result<(), KeyringError>;

    /// Forgets the secret under a name, if there is one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn remove(&self, name: &str) -> Result<(), KeyringError>;
}

/// Why a keyring does not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// This session has none.
    #[error("there is no keyring here: {0}")]
    Absent(String),
    /// It is locked, or refuses.
    #[error("the keyring is locked or refuses: {0}")]
    Locked(String),
}

/// The platform's keyring: Secret Service, Keychain or Credential Manager.
#[derive(Debug, Default)]
pub struct DesktopKeyring;

const SERVICE: &str = "idlewatt";

impl Keyring for DesktopKeyring {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeyringError> {
        match entry(name)?.get_secret() {
            Ok(secret) => Ok(Some(secret)),
            Err(keyring::Error::NoEntry) => Ok(None),
            Err(error) => Err(KeyringError::Locked(error.to_string())),
        }
    }

    fn set(&self, name: &str, secret: &[u8]) -> Result<(), KeyringError> {
        entry(name)?.set_secret(secret).map_err(|error| KeyringError::Locked(error.to_string()))
    }

    fn remove(&self, name: &str) -> Result<(), KeyringError> {
        match entry(name)?.delete_credential() {
            Ok(()) | Err(keyring::Error::NoEntry) => Ok(()),
            Err(error) => Err(KeyringError::Locked(error.to_string())),
        }
    }
}

#[cfg(any(windows, target_os = "macos"))]
fn entry(name: &str) -> Result<keyring::Entry, KeyringError> {
    keyring::Entry::new(SERVICE, name).map_err(|error| KeyringError::Absent(error.to_string()))
}

/// Reaches the Secret Service anew each time, where `keyring` does so once: a service that came later, or was started
/// again, would be missed until the engine's next start.
#[cfg(not(any(windows, target_os = "macos")))]
fn entry(name: &str) -> Result<keyring::Entry, KeyringError> {
    let service = zbus_secret_service_keyring_store::Store::new();
    keyring_core::set_default_store(service.map_err(|error| KeyringError::Absent(error.to_string()))?);
    let inner = keyring_core::Entry::new(SERVICE, name);
    Ok(keyring::Entry { inner: inner.map_err(|error| KeyringError::Locked(error.to_string()))? })
}

/// Where the database notes which store holds the identity.
const RECORD: &str = "identity.store";

/// Where a secret is, as the database notes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the keyring, under a name of this home's own.
    Keyring(String),
    /// In a file.
    File,
}

impl Place {
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some(("keyring", entry)) => Some(Self::Keyring(entry.to_owned())),
            None if text == "file" => Some(Self::File),
            _ => None,
        }
    }

    pub(crate) fn record(&self) -> String {
        match self {
            Self::Keyring(entry) => format!("keyring:{entry}"),
            Self::File => "file".to_owned(),
        }
    }
}

/// The node's identity and where it is kept.
pub struct Identity {
    /// What it signs with.
    pub key: SigningKey,
    /// Whether a file holds it, rather than a keyring.
    pub in_file: bool,
}

/// Finds the node's identity, or makes it on the first start. Blocks: a keyring may ask the person to unlock it.
///
/// # Errors
/// When the store that holds it does not give it, or a new one cannot be kept. Trying again later is safe.
pub fn identity(
    store: &Store,
    data: &Path,
    wanted: KeyStore,
    keyring: &dyn Keyring,
) -> Result<Identity, ControlError> {
    let recorded = store.setting(RECORD).wait().map_err(|error| problem::of_store(&error))?;
    let place = match recorded {
        Some(text) => Place::read(&text).ok_or_else(|| lost("the record of where it is makes no sense"))?,
        None => {
            let place = first_place(data, wanted, keyring)?;
            store.set_setting(RECORD, &place.record()).wait().map_err(|error| problem::of_store(&error))?;
            place
        }
    };
    match place {
        Place::Keyring(entry) => match keyring.get(&entry) {
            Ok(Some(secret)) => key_of(&secret).ok_or_else(|| lost("the keyring's entry is damaged")),
            Ok(None) => Err(lost("the keyring holds no such entry any more")),
            Err(error) => Err(locked(&error)),
        }
        .map(|key| Identity { key, in_file: false }),
        Place::File => key_in_file(&key_file(data)).map(|key| Identity { key, in_file: true }),
    }
}

fn key_in_file(path: &Path) -> Result<SigningKey, ControlError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| lost(&format!("{} cannot be read: {error}", path.display())))?;
    let secret = HEXLOWER.decode(text.trim().as_bytes()).ok();
    secret.and_then(|secret| key_of(&secret)).ok_or_else(|| lost(&format!("{} is damaged", path.display())))
}

/// Makes a key and keeps it.
fn first_place(data: &Path, wanted: KeyStore, keyring: &dyn Keyring) -> Result<Place, ControlError> {
    let secret: [u8; 32] = rand::random();
    let entry = format!("node-{}", HEXLOWER.encode(&rand::random::<[u8; 8]>()));
    match (wanted, keyring_takes(wanted, keyring, &entry, &secret)) {
        (KeyStore::File, _) | (KeyStore::Auto, Err(KeyringError::Absent(_))) => {
            // A key file without a record is of an earlier start that did not get further: it is the identity.
            let path = key_file(data);
            if !path.exists() {
                write_private(&path, HEXLOWER.encode(&secret).as_bytes())?;
            }
            Ok(Place::File)
        }
        (_, Ok(())) => Ok(Place::Keyring(entry)),
        (_, Err(error)) => Err(locked(&error)),
    }
}

/// Keeps a secret in the keyring, and sees that it is there.
pub(crate) fn keyring_takes(
    wanted: KeyStore,
    keyring: &dyn Keyring,
    entry: &str,
    secret: &[u8],
) -> Result<(), KeyringError> {
    if wanted == KeyStore::File {
        return Err(KeyringError::Absent("the host chose a file".into()));
    }
    keyring.set(entry, secret)?;
    // A store that takes a secret and does not give it back would lose the identity at the next start.
    match keyring.get(entry)? {
        Some(back) if back == secret => Ok(()),
        _ => Err(KeyringError::Absent("it did not give back what it took".into())),
    }
}

/// The key of the host's own endpoint, made on first use: `iw-local-…`. A file: it opens a loopback door only.
///
/// # Errors
/// When it cannot be kept.
pub fn own_key(data: &Path) -> Result<String, ControlError> {
    let path = data.join("own.key");
    if let Ok(key) = std::fs::read_to_string(&path)
        && key.starts_with("iw-local-")
    {
        return Ok(key.trim().to_owned());
    }
    let key = format!("iw-local-{}", token());
    write_private(&path, key.as_bytes())?;
    Ok(key)
}

/// 256 random bits, as text for headers and links.
#[must_use]
pub fn token() -> String {
    BASE64URL_NOPAD.encode(&rand::random::<[u8; 32]>())
}

fn key_file(data: &Path) -> PathBuf {
    data.join("node.key")
}

fn key_of(secret: &[u8]) -> Option<SigningKey> {
    Some(SigningKey::from_bytes(secret.try_into().ok()?))
}

fn locked(error: &KeyringError) -> ControlError {
    ControlError::new(
        Code::KeyringLocked,
        format!("The node's key cannot be read: {error}."),
        "Without it the node can neither connect to a network nor sign. It will not make itself a new one: its \
         networks know it by this key.",
        "Unlock the keyring (logging in to the desktop does). Idlewatt tries again by itself.",
    )
}

fn lost(why: &str) -> ControlError {
    ControlError::new(
        Code::KeyringLocked,
        format!("The node's key cannot be read: {why}."),
        "Networks know this node by its key. Idlewatt will not make a new one behind your back.",
        "Put the key back from a copy. To begin anew, move the data folder away and join again.",
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    pub(crate) struct Fake {
        entries: Mutex<HashMap<String, Vec<u8>>>,
        fails: Mutex<Option<KeyringError>>,
    }

    impl Fake {
        pub(crate) fn fail(&self, error: Option<KeyringError>) {
            *self.fails.lock().unwrap() = error;
        }

        fn check(&self) -> Result<(), KeyringError> {
            self.fails.lock().unwrap().clone().map_or(Ok(()), Err)
        }
    }

    impl Keyring for Fake {
        fn get(&self, name: &str) -> Result<Option<Vec<u8>>, KeyringError> {
            self.check()?;
            Ok(self.entries.lock().unwrap().get(name).cloned())
        }
        fn set(&self, name: &str, secret: &[u8]) -> Result<(), KeyringError> {
            self.check()?;
            self.entries.lock().unwrap().insert(name.into(), secret.into());
            Ok(())
        }
        fn remove(&self, name: &str) -> Result<(), KeyringError> {
            self.check()?;
            self.entries.lock().unwrap().remove(name);
            Ok(())
        }
    }

    fn scratch() -> (tempfile::TempDir, Store, Fake) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("node.db")).unwrap();
        (folder, store, Fake::default())
    }

    fn recorded(store: &Store) -> Option<Place> {
        store.setting(RECORD).wait().unwrap().and_then(|text| Place::read(&text))
    }

    #[test]
    fn a_locked_keyring_is_never_answered_with_a_new_key() {
        let (folder, store, keyring) = scratch();
        let find = || identity(&store, folder.path(), KeyStore::Auto, &keyring).map(|it| it.key.to_bytes());
        let first = find().unwrap();
        for error in [KeyringError::Locked("x".into()), KeyringError::Absent("x".into())] {
            keyring.fail(Some(error));
            assert_eq!(find().unwrap_err().code, Code::KeyringLocked);
        }
        keyring.fail(None);
        assert_eq!(find().unwrap(), first);
        assert!(!key_file(folder.path()).exists());
    }

    #[test]
    fn a_keyring_locked_at_the_first_start_is_waited_for() {
        let (folder, store, keyring) = scratch();
        keyring.fail(Some(KeyringError::Locked("x".into())));
        let find = || identity(&store, folder.path(), KeyStore::Auto, &keyring);
        assert!(find().is_err());
        assert_eq!(recorded(&store), None);
        keyring.fail(None);
        assert!(find().is_ok());
        assert!(matches!(recorded(&store), Some(Place::Keyring(_))));
    }

    #[test]
    fn without_a_keyring_the_key_is_a_file_that_stays_the_same() {
        let (folder, store, keyring) = scratch();
        keyring.fail(Some(KeyringError::Absent("headless".into())));
        let find = || identity(&store, folder.path(), KeyStore::Auto, &keyring).unwrap().key.to_bytes();
        let first = find();
        assert_eq!(recorded(&store), Some(Place::File));
        keyring.fail(None);
        assert_eq!(find(), first, "a keyring that turns up later does not change who the node is");
    }

    #[test]
    fn a_lost_or_damaged_key_is_said_and_not_replaced() {
        let (folder, store, keyring) = scratch();
        let find = || identity(&store, folder.path(), KeyStore::File, &keyring);
        assert!(find().is_ok());
        std::fs::write(key_file(folder.path()), "zz").unwrap();
        assert!(find().is_err());
        std::fs::remove_file(key_file(folder.path())).unwrap();
        assert!(find().is_err());
        assert!(!key_file(folder.path()).exists());
    }
}
