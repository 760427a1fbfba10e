//! Graphical sessions, as logind knows them.

use std::future::pending;

use futures_util::StreamExt as _;
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, MatchRule, MessageStream, Proxy};

const LOGIND: &str = "org.freedesktop.login1";

/// A graphical session of a person; login screens are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) uid: u32,
    /// In front on its seat.
    pub(super) active: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    X11 { display: Option<String> },
    Wayland,
}

/// The connection to logind; without one nothing is known and nothing changes.
pub(super) struct Sessions(Option<(Connection, MessageStream)>);

type Listed = Vec<(String, u32, String, String, OwnedObjectPath)>;

impl Sessions {
    pub(super) async fn connect(address: Option<&str>) -> Self {
        let Some(address) = address else { return Self(None) };
        match subscribe(address).await {
            Ok(open) => Self(Some(open)),
            Err(error) => {
                tracing::debug!(%error, "no system bus, so no logind");
                Self(None)
            }
        }
    }

    /// All graphical sessions; `None` where there is no logind to ask.
    pub(super) async fn graphical(&self) -> Option<Vec<Session>> {
        let (bus, _) = self.0.as_ref()?;
        match list(bus).await {
            Ok(sessions) => Some(sessions),
            Err(error) => {
                tracing::debug!(%error, "logind does not answer");
                None
            }
        }
    }

    /// Waits until logind tells of a change.
    pub(super) async fn changed(&mut self) {
        let Some((_, signals)) = &mut self.0 else { return pending().await };
        if signals.next().await.is_none() {
            self.0 = None;
        }
    }
}

async fn subscribe(address: &str) -> zbus::Result<(Connection, MessageStream)> {
    let bus = zbus::connection::Builder::address(address)?.build().await?;
    let rule = MatchRule::builder().msg_type(zbus::message::Type::Signal).sender(LOGIND)?.build();
    let signals = MessageStream::for_match_rule(rule, &bus, Some(64)).await?;
    Ok((bus, signals))
}

async fn list(bus: &Connection) -> zbus::Result<Vec<Session>> {
    let manager =
        Proxy::new(bus, LOGIND, "/org/freedesktop/login1", "org.freedesktop.login1.Manager").await?;
    let listed: Listed = manager.call("ListSessions", &()).await?;
    let mut sessions = Vec::new();
    for (_, uid, _, _, path) in listed {
        // A session may end between the two questions.
        if let Ok(Some(session)) = describe(bus, uid, path).await {
            sessions.push(session);
        }
    }
    Ok(sessions)
}

async fn describe(bus: &Connection, uid: u32, path: OwnedObjectPath) -> zbus::Result<Option<Session>> {
    let proxy: Proxy<'_> = zbus::proxy::Builder::new(bus)
        .destination(LOGIND)?
        .path(path)?
        .interface("org.freedesktop.login1.Session")?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    let class: String = proxy.get_property("Class").await?;
    let state: String = proxy.get_property("State").await?;
    if class != "user" || state == "closing" {
        return Ok(None);
    }
    let kind = match proxy.get_property::<String>("Type").await?.as_str() {
        "x11" => {
            let display: String = proxy.get_property("Display").await?;
            Kind::X11 { display: Some(display).filter(|display| !display.is_empty()) }
        }
        "wayland" | "mir" => Kind::Wayland,
        _ => return Ok(None),
    };
    Ok(Some(Session { uid, active: state == "active", kind }))
}
