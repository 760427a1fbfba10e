//! What the host chose that is no line of the configuration: networks joined, services shared, and small notes.

use idlewatt_protocol::{Price, PublicKey, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};

use crate::column::{Json, Text};
use crate::{Reply, Store};

/// A network that was joined. Its postings are kept under `id` also after it was left: derive the id from the
/// network's key, so that joining again goes on with the same numbering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRow {
    /// Stable on this node.
    pub id: String,
    /// `hub`.
    pub kind: String,
    /// What it calls itself.
    pub name: String,
    /// Its addresses, best first.
    pub urls: Vec<String>,
    /// Its key, pinned by the invite.
    pub key: PublicKey,
    /// The account that this node earns for, once known.
    pub account: Option<String>,
    /// When it was joined.
    pub joined: UnixMillis,
}

/// What is kept of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRow {
    /// Stable on this node.
    pub id: String,
    /// Whether the host shares it.
    pub shared: bool,
    /// What the host asks.
    pub price: Price,
    /// What its last probe found, as the engine wrote it (JSON).
    pub probe: Option<String>,
}

impl Store {
    /// Networks joined, in the order they were.
    pub fn networks(&self) -> Reply<Vec<NetworkRow>> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT * FROM networks ORDER BY joined, id")?;
            let rows = query.query_map([], |row| {
                Ok(NetworkRow {
                    id: row.get("id")?,
                    kind: row.get("kind")?,
                    name: row.get("name")?,
                    urls: row.get("urls").map(|Json(urls)| urls)?,
                    key: row.get("key").map(|Text(key)| key)?,
                    account: row.get("account")?,
                    joined: UnixMillis(row.get("joined")?),
                })
            })?;
            rows.collect()
        })
    }

    /// Keeps a network, new or changed.
    pub fn put_network(&self, network: NetworkRow) -> Reply<()> {
        self.keep(move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO networks VALUES (?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    network.id,
                    network.kind,
                    network.name,
                    Json(network.urls),
                    Text(network.key),
                    network.account,
                    network.joined.0,
                ])
                .map(|_| ())
        })
    }

    /// Forgets that a network was joined. What was served and earned there stays.
    pub fn remove_network(&self, id: &str) -> Reply<()> {
        let id = id.to_owned();
        self.keep(move |connection| connection.execute("DELETE FROM networks WHERE id = ?", [id]).map(|_| ()))
    }

    /// What is kept of services.
    pub fn services(&self) -> Reply<Vec<ServiceRow>> {
        self.read(|connection| {
            let mut query = connection.prepare_cached("SELECT * FROM services ORDER BY id")?;
            let rows = query.query_map([], |row| {
                Ok(ServiceRow {
                    id: row.get("id")?,
                    shared: row.get("shared")?,
                    price: Price(row.get("price")?),
                    probe: row.get("probe")?,
                })
            })?;
            rows.collect()
        })
    }

    /// Keeps a service's switch, price and probe.
    pub fn put_service(&self, service: ServiceRow) -> Reply<()> {
        self.keep(move |connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO services VALUES (?, ?, ?, ?)")?
                .execute(params![service.id, service.shared, service.price.0, service.probe])
                .map(|_| ())
        })
    }

    /// A small note, by a dotted key.
    pub fn setting(&self, key: &str) -> Reply<Option<String>> {
        let key = key.to_owned();
        self.read(move |connection| get(connection, &key))
    }

    /// Keeps a small note. Never a key, a token or content.
    pub fn set_setting(&self, key: &str, value: &str) -> Reply<()> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.keep(move |connection| set(connection, &key, &value))
    }
}

pub(crate) fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT value FROM settings WHERE key = ?")?
        .query_row([key], |row| row.get(0))
        .optional()
}

pub(crate) fn set(connection: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO settings VALUES (?, ?)")?
        .execute([key, value])
        .map(|_| ())
}
