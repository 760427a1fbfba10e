//! Sessions, as logind knows them: who sits at a screen, whether it is locked, who has logged in over the network.

use std::collections::HashMap;
use std::future::pending;

use futures_util::StreamExt as _;
use idlewatt_core::presence::Activity;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};
use zbus::{Connection, MatchRule, MessageStream, Proxy};

use crate::teller::Teller;

const NAME: &str = "logind";
const LOGIND: &str = "org.freedesktop.login1";
const SESSION: &str = "org.freedesktop.login1.Session";

/// A session of a person; login screens are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) uid: u32,
    /// In front on its seat.
    pub(super) active: bool,
    /// As its screen locker says, if it says so at all (GNOME's and KDE's do).
    pub(super) locked: bool,
    /// Came over the network.
    pub(super) remote: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    X11 { display: Option<String> },
    Wayland,
    Text,
}

impl Session {
    pub(super) fn is_graphical(&self) -> bool {
        self.kind != Kind::Text
    }
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

    /// All sessions; `None` where there is no logind to ask.
    pub(super) async fn list(&self) -> Option<Vec<Session>> {
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

/// Tells what follows from `listed` for the sessions of `own`.
pub(super) fn tell(listed: Option<&[Session]>, own: u32, teller: &Teller) {
    let Some(listed) = listed else { return teller.unheard(NAME, "there is none to ask") };
    let remote_logins = u32::try_from(listed.iter().filter(|it| it.remote).count()).unwrap_or(u32::MAX);
    let mut in_front = listed.iter().filter(|it| it.uid == own && it.active && it.is_graphical()).peekable();
    let locked = in_front.peek().is_some().then(|| in_front.all(|it| it.locked));
    let screen = match locked {
        Some(true) => "the screen is locked",
        Some(false) => "the screen is not locked",
        None => "no screen of this account is in front",
    };
    let people = match remote_logins {
        0 => "nobody is logged in over the network".to_owned(),
        1 => "1 login over the network".to_owned(),
        n => format!("{n} logins over the network"),
    };
    let activity = Activity { locked, remote_logins, ..Activity::default() };
    teller.says(NAME, format!("{screen}, {people}"), activity);
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
    let about = Proxy::new(bus, LOGIND, path, "org.freedesktop.DBus.Properties").await?;
    let about: HashMap<String, OwnedValue> = about.call("GetAll", &(SESSION,)).await?;
    let text = |name: &str| -> String {
        about.get(name).and_then(|value| value.downcast_ref().ok()).unwrap_or_default()
    };
    let flag = |name: &str| about.get(name).and_then(|value| value.downcast_ref().ok()).unwrap_or_default();
    let (class, state) = (text("Class"), text("State"));
    if class != "user" || state == "closing" {
        return Ok(None);
    }
    let kind = match text("Type").as_str() {
        "x11" => Kind::X11 { display: Some(text("Display")).filter(|display| !display.is_empty()) },
        "wayland" | "mir" => Kind::Wayland,
        _ => Kind::Text,
    };
    let session =
        Session { uid, active: state == "active", locked: flag("LockedHint"), remote: flag("Remote"), kind };
    Ok(Some(session))
}
