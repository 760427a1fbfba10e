//! API keys of model servers that want one.
//!
//! A key is kept in the desktop's keyring or, where there is none, in a file that only this user can read; the database
//! notes for which address and where. While the engine runs the keys are in memory, for the one client that asks model
//! servers. None is ever shown again, logged, or sent anywhere but to the address it was set for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use idlewatt_control::{Code, ControlError, Secret};
use idlewatt_protocol::Digest;
use idlewatt_servers::{Found, ServerError, ServerKeys, is_loopback};
use idlewatt_store::Store;
use tokio::sync::oneshot;
use url::Url;

use crate::config::KeyStore;
use crate::home::write_private;
use crate::identity::{DesktopKeyring, Keyring, KeyringError, Place, keyring_takes};
use crate::node::{Node, lock};
use crate::problem::{of_store, sentence};

/// Where the database notes which servers have a key, and where it is.
const RECORD: &str = "servers.keys";

/// The keys in memory, and those of the node's own server.
pub(crate) struct ServerKeyring {
    own: Arc<dyn ServerKeys>,
    known: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for ServerKeyring {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerKeyring").finish_non_exhaustive()
    }
}

impl ServerKeys for ServerKeyring {
    fn key(&self, root: &Url) -> Option<String> {
        self.own.key(root).or_else(|| lock(&self.known).get(&address(root)).cloned())
    }
}

impl ServerKeyring {
    pub(crate) fn new(own: Arc<dyn ServerKeys>) -> Arc<Self> {
        Arc::new(Self { own, known: Mutex::default() })
    }

    /// Puts a key into memory, or takes it out. Gives the one before.
    fn put(&self, root: &Url, key: Option<String>) -> Option<String> {
        let mut known = lock(&self.known);
        match key {
            Some(key) => known.insert(address(root), key),
            None => known.remove(&address(root)),
        }
    }
}

/// One server, whatever path or name of loopback it was named by.
fn address(root: &Url) -> String {
    let host = if is_loopback(root) { "loopback" } else { root.host_str().unwrap_or_default() };
    format!("{}://{host}:{}", root.scheme(), root.port_or_known_default().unwrap_or_default())
}

/// Which servers have a key, and where each is.
type Record = BTreeMap<String, String>;

fn record(store: &Store) -> Result<Record, ControlError> {
    let text = store.setting(RECORD).wait().map_err(|error| of_store(&error))?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

/// A name that tells nobody which server it is of.
fn entry_of(address: &str) -> String {
    let digest = Digest::of(address.as_bytes()).to_string();
    format!("server-{}", digest.get(7..23).unwrap_or_default())
}

fn file_of(data: &Path, address: &str) -> PathBuf {
    data.join(format!("{}.key", entry_of(address)))
}

/// Keeps a key, or forgets it. Blocks: a keyring may ask the person to unlock it.
fn keep(
    store: &Store,
    data: &Path,
    wanted: KeyStore,
    keyring: &dyn Keyring,
    address: &str,
    key: Option<&str>,
) -> Result<(), ControlError> {
    let mut record = record(store)?;
    let before = record.remove(address);
    let file = file_of(data, address);
    if let Some(key) = key {
        let entry = entry_of(address);
        let place = match keyring_takes(wanted, keyring, &entry, key.as_bytes()) {
            Ok(()) => Place::Keyring(entry),
            Err(KeyringError::Absent(_)) if wanted != KeyStore::Keyring => {
                write_private(&file, key.as_bytes())?;
                Place::File
            }
            Err(error) => return Err(not_kept(&error)),
        };
        record.insert(address.to_owned(), place.record());
    } else {
        if let Some(Place::Keyring(entry)) = before.as_deref().and_then(Place::read) {
            keyring.remove(&entry).map_err(|error| not_kept(&error))?;
        }
        // A key that is not there is forgotten already.
        drop(std::fs::remove_file(&file));
    }
    let text = serde_json::to_string(&record).unwrap_or_default();
    store.set_setting(RECORD, &text).wait().map_err(|error| of_store(&error))
}

/// The keys kept, by address. Blocks, as [`keep`] does.
fn kept(store: &Store, data: &Path, keyring: &dyn Keyring) -> Result<Record, ControlError> {
    let mut keys = Record::new();
    for (address, place) in record(store)? {
        let key = match Place::read(&place) {
            Some(Place::Keyring(entry)) => keyring.get(&entry).map_err(|error| not_read(&error))?,
            Some(Place::File) => std::fs::read(file_of(data, &address)).ok(),
            None => None,
        };
        if let Some(key) = key.and_then(|key| String::from_utf8(key).ok()) {
            keys.insert(address, key);
        }
    }
    Ok(keys)
}

impl Node {
    /// Takes the keys that are kept into memory. Gives whether a keyring has to be asked again later.
    pub(crate) async fn read_server_keys(self: &Arc<Self>) -> bool {
        let node = Arc::clone(self);
        match on_a_thread(move || kept(&node.store, &node.home.data, &DesktopKeyring)).await {
            Ok(keys) => {
                let any = !keys.is_empty();
                lock(&self.server_keys.known).extend(keys);
                if any {
                    self.look.notify_one();
                }
                self.settled("server keys");
                false
            }
            Err(error) => {
                self.wants_person("server keys", &error);
                true
            }
        }
    }

    /// Sets a server's key, or forgets it. A key that the server does not take is not kept.
    pub(crate) async fn set_server_key(
        self: &Arc<Self>,
        server: &str,
        key: Option<Secret>,
    ) -> Result<(), ControlError> {
        let root = self.server_meant(server)?;
        let key = key.map(|key| key.0.trim().to_owned());
        if key.as_ref().is_some_and(|key| {
            key.is_empty() || key.len() > 4096 || !key.bytes().all(|byte| byte.is_ascii_graphic())
        }) {
            return Err(ControlError::new(
                Code::BadValue,
                "That is no API key.",
                "A key is 1 to 4096 letters, digits and signs, without spaces. Nothing was changed.",
                "Copy the key again, as the server shows it.",
            ));
        }
        let before = self.server_keys.put(&root, key.clone());
        self.look_now().await;
        let refused = lock(&self.found)
            .iter()
            .any(|it| address(&it.url) == address(&root) && it.models == Err(ServerError::KeyWrong));
        if key.is_some() && refused {
            self.server_keys.put(&root, before);
            return Err(ControlError::new(
                Code::ServerFailed,
                format!("The server at {} does not take this key.", shown(&root)),
                "It was not kept; what was set before is in force.",
                "Copy the key again from the server's own settings.",
            ));
        }
        let (node, wanted) = (Arc::clone(self), self.config().settings().key_store);
        on_a_thread(move || {
            keep(&node.store, &node.home.data, wanted, &DesktopKeyring, &address(&root), key.as_deref())
        })
        .await
    }

    /// The server that a person means: an address, or a part of a found one's name.
    fn server_meant(&self, text: &str) -> Result<Url, ControlError> {
        let wanted = text.trim().to_lowercase();
        let found = lock(&self.found).clone();
        let named = |it: &&Found| it.server.as_ref().is_some_and(|it| it.label().contains(&wanted));
        let mut fitting: Vec<Url> = found.iter().filter(named).map(|it| it.url.clone()).collect();
        fitting.dedup();
        if let ([one], false) = (fitting.as_slice(), wanted.is_empty()) {
            return Ok(one.clone());
        }
        let url = if wanted.contains("://") { text.trim().to_owned() } else { format!("http://{wanted}") };
        let url = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        // Without a port or a dot it is no address but a name.
        let url = url.filter(|it| {
            it.port().is_some() || wanted.contains("://") || it.host_str().is_some_and(|it| it.contains('.'))
        });
        url.ok_or_else(|| {
            let labels: Vec<String> =
                found.iter().filter_map(|it| it.server.as_ref()).map(|it| it.label()).collect();
            ControlError::new(
                Code::NotFound,
                format!("No model server here is called {text:?}."),
                "A key belongs to one server. Nothing was changed.",
                match labels.is_empty() {
                    true => "Name it by its address, such as 127.0.0.1:1234.".to_owned(),
                    false => format!("Name it by its address, or one of these: {}.", labels.join("; ")),
                },
            )
        })
    }
}

/// What is said of a server: its address, which is for the host's eyes only.
pub(crate) fn shown(root: &Url) -> String {
    root.as_str().trim_end_matches('/').to_owned()
}

/// A thread of its own: a keyring may wait for a person for as long as it likes, and nothing else waits for it.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ControlError> + Send + 'static,
) -> Result<T, ControlError> {
    let (answer, done) = oneshot::channel();
    std::thread::spawn(move || drop(answer.send(work())));
    done.await.unwrap_or_else(|_| {
        Err(ControlError::new(
            Code::KeyringLocked,
            "The keyring gave up.",
            "Nothing was changed.",
            "Try again.",
        ))
    })
}

fn not_kept(error: &KeyringError) -> ControlError {
    ControlError::new(
        Code::KeyringLocked,
        format!("The key cannot be kept: {error}."),
        "It is in use until the engine ends.",
        "Unlock the keyring (logging in to the desktop does), then set the key again.",
    )
}

fn not_read(error: &KeyringError) -> ControlError {
    ControlError::new(
        Code::KeyringLocked,
        "The keys of your model servers cannot be read.",
        sentence(&error.to_string()),
        "Unlock the keyring (logging in to the desktop does). Idlewatt tries again by itself.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::Fake;

    const AT: &str = "http://loopback:1234";

    fn scratch() -> (tempfile::TempDir, Store, Fake) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("node.db")).unwrap();
        (folder, store, Fake::default())
    }

    #[test]
    fn a_servers_key_is_in_the_keyring_and_nowhere_on_disk() {
        let (folder, store, keyring) = scratch();
        let keep = |key| keep(&store, folder.path(), KeyStore::Auto, &keyring, AT, key);
        keep(Some("sk-sesame")).unwrap();
        assert_eq!(kept(&store, folder.path(), &keyring).unwrap()[AT], "sk-sesame");
        assert!(!file_of(folder.path(), AT).exists());
        assert!(!store.setting(RECORD).wait().unwrap().unwrap().contains("sesame"));
        keep(None).unwrap();
        assert!(kept(&store, folder.path(), &keyring).unwrap().is_empty());
        assert_eq!(keyring.get(&entry_of(AT)).unwrap(), None);
    }

    #[test]
    fn without_a_keyring_it_is_a_file_of_this_user_alone() {
        let (folder, store, keyring) = scratch();
        keyring.fail(Some(KeyringError::Absent("headless".into())));
        keep(&store, folder.path(), KeyStore::Auto, &keyring, AT, Some("sk-sesame")).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(file_of(folder.path(), AT)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(kept(&store, folder.path(), &keyring).unwrap()[AT], "sk-sesame");
        keep(&store, folder.path(), KeyStore::Auto, &keyring, AT, None).unwrap();
        assert!(!file_of(folder.path(), AT).exists());
    }

    #[test]
    fn a_locked_keyring_is_said_and_loses_nothing() {
        let (folder, store, keyring) = scratch();
        keep(&store, folder.path(), KeyStore::Auto, &keyring, AT, Some("sk-sesame")).unwrap();
        keyring.fail(Some(KeyringError::Locked("x".into())));
        assert_eq!(kept(&store, folder.path(), &keyring).unwrap_err().code, Code::KeyringLocked);
        keyring.fail(None);
        assert_eq!(kept(&store, folder.path(), &keyring).unwrap().len(), 1);
    }

    #[test]
    fn a_key_goes_to_its_own_address_only() {
        let keys = ServerKeyring::new(Arc::new(idlewatt_servers::NoKeys));
        let url = |text: &str| Url::parse(text).unwrap();
        keys.put(&url("http://localhost:1234/v1"), Some("sk".into()));
        assert_eq!(keys.key(&url("http://127.0.0.1:1234")).as_deref(), Some("sk"));
        for other in ["http://127.0.0.1:1235", "http://10.0.0.2:1234", "https://127.0.0.1:1234"] {
            assert_eq!(keys.key(&url(other)), None, "{other}");
        }
    }
}
