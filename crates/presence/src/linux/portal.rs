//! One key combination on Wayland, where no program can take a key for itself: the desktop is asked for it through its
//! portal (`org.freedesktop.portal.GlobalShortcuts`), asks the person, and tells of each press. Which key it becomes is
//! theirs to say; the one that is asked for is a wish.
//!
//! What portals do that is easily missed: the session's handle comes as text, not as a path; an answer may come before the
//! call that asked returns, so it is listened for first; since version 1.21 a program must be known by a desktop file, which
//! it names once on each connection and before anything else; where a desktop has no global shortcuts, the portal lacks the
//! whole interface; and a desktop may tell of presses but never of the key (Hyprland's portal names it with an empty text).

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;

use futures_util::StreamExt as _;
use zbus::fdo::{DBusProxy, NameOwnerChangedStream};
use zbus::zvariant::{DeserializeDict, ObjectPath, OwnedObjectPath, OwnedValue, Type, Value};
use zbus::{Connection, Proxy};

use crate::hotkey::{Bell, Held, Hotkey, Key};

const PORTAL: &str = "org.freedesktop.portal.Desktop";
const PLACE: &str = "/org/freedesktop/portal/desktop";
/// The name of this program's desktop file, by which desktops remember what was chosen.
const PROGRAM: &str = "org.idlewatt.desktop";
const SHORTCUT: &str = "give-back";
const MEANS: &str = "Give my GPU back";
const BIND: &str = "Bind the command `idlewatt back` to a key in the desktop's own keyboard settings.";
const GIVE_IT_ONE: &str = "Give that shortcut a key in the desktop's own keyboard settings, or bind the command `idlewatt back` \
                           to one there. If it has a key already, press it.";

/// Why the desktop does not tell of the key.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the desktop's portal does not answer ({0})")]
    Portal(#[from] zbus::Error),
    #[error("there is no desktop portal on the session bus, which programs ask for keys on Wayland")]
    NoPortal,
    #[error("the portal of this desktop offers programs no keys (no GlobalShortcuts)")]
    NoShortcuts,
    #[error("the desktop gives keys only to programs that it knows, and {PROGRAM}.desktop is not installed")]
    NotKnown,
    #[error("it was declined in the desktop's dialog")]
    Declined,
    #[error("the desktop refused it without a reason")]
    Failed,
    #[error("the desktop took it back")]
    TakenBack,
}

/// Shortcuts by name, each with its facts.
type Bound = Vec<(String, HashMap<String, OwnedValue>)>;

/// What is answered to each question.
#[derive(Debug, Default, DeserializeDict, Type)]
#[zvariant(signature = "dict")]
struct Results {
    session_handle: Option<String>,
    shortcuts: Option<Bound>,
}

/// Rings when the desktop says that its shortcut was used. A portal that refuses is asked again when another one takes its
/// place.
pub(super) async fn follow(bus: Option<&str>, hotkey: Hotkey, bell: &Bell) {
    let Some(address) = bus else {
        return bell.unheard("there is no session bus, over which a Wayland desktop is asked", Some(BIND));
    };
    loop {
        let (bus, mut owners) = match connect(address).await {
            Ok(both) => both,
            Err(error) => {
                return bell.unheard(format!("the session bus does not answer ({error})"), Some(BIND));
            }
        };
        let refused = tokio::select! {
            refused = listen(&bus, hotkey, bell) => match refused {
                Ok(never) => match never {},
                Err(refused) => refused,
            },
            () = replaced(&mut owners) => continue,
        };
        bell.unheard(refused.to_string(), Some(BIND));
        replaced(&mut owners).await;
    }
}

/// A connection of its own, since a program introduces itself once on each, with the portal started where it was not.
async fn connect(address: &str) -> zbus::Result<(Connection, NameOwnerChangedStream)> {
    let bus = zbus::connection::Builder::address(address)?.build().await?;
    let dbus = DBusProxy::new(&bus).await?;
    // Where there is none, the first call says so.
    drop(dbus.start_service_by_name(PORTAL.try_into()?, 0).await);
    let owners = dbus.receive_name_owner_changed_with_args(&[(0, PORTAL)]).await?;
    Ok((bus, owners))
}

/// Waits until another portal answers; for ever without a bus.
async fn replaced(owners: &mut NameOwnerChangedStream) {
    while let Some(owner) = owners.next().await {
        if owner.args().is_ok_and(|args| args.new_owner.is_some()) {
            return;
        }
    }
    pending().await
}

async fn listen(bus: &Connection, hotkey: Hotkey, bell: &Bell) -> Result<Infallible, Refused> {
    // Portals before 1.19 know no introductions, and later ones none without a desktop file: the next call tells.
    let registry = proxy(bus, PLACE, "org.freedesktop.host.portal.Registry").await?;
    drop(registry.call_method("Register", &(PROGRAM, HashMap::<&str, Value<'_>>::new())).await);

    let shortcuts = proxy(bus, PLACE, "org.freedesktop.portal.GlobalShortcuts").await?;
    let options = (HashMap::from(
        [("handle_token", "session"), ("session_handle_token", "idlewatt")]
            .map(|(key, value)| (key, Value::from(value))),
    ),);
    let made = answer(bus, "session", shortcuts.call("CreateSession", &options)).await?;
    let session =
        made.session_handle.and_then(|it| OwnedObjectPath::try_from(it).ok()).ok_or(Refused::Failed)?;

    let mut used = shortcuts.receive_signal("Activated").await?;
    let mut changed = shortcuts.receive_signal("ShortcutsChanged").await?;
    let ends = proxy(bus, session.as_str(), "org.freedesktop.portal.Session").await?;
    let mut closed = ends.receive_signal("Closed").await?;

    bell.unheard("the desktop was asked and waits for you to agree", None);
    let wish: HashMap<&str, Value<'_>> =
        [("description", MEANS.into()), ("preferred_trigger", trigger(hotkey).into())].into();
    let options: HashMap<&str, Value<'_>> = [("handle_token", "bind".into())].into();
    let asked = (&session, vec![(SHORTCUT, wish)], "", options);
    let bound = answer(bus, "bind", shortcuts.call("BindShortcuts", &asked)).await?.shortcuts;
    let mut heard = tell(bell, &bound.unwrap_or_default());
    loop {
        tokio::select! {
            Some(press) = used.next() => {
                type Press<'a> = (ObjectPath<'a>, &'a str, u64, HashMap<&'a str, Value<'a>>);
                let body = press.body();
                let (whose, which, _, _): Press<'_> = body.deserialize()?;
                if whose == *session && which == SHORTCUT {
                    if !heard {
                        bell.heard(format!("the desktop tells of its shortcut “{MEANS}”, and not of its key"));
                        heard = true;
                    }
                    bell.ring();
                }
            }
            Some(change) = changed.next() => {
                let (whose, bound): (OwnedObjectPath, Bound) = change.body().deserialize()?;
                if whose == session {
                    heard = tell(bell, &bound);
                }
            }
            _ = closed.next() => return Err(Refused::TakenBack),
        }
    }
}

/// Asks, and waits for the answer, for as long as a person takes over the dialog.
async fn answer(
    bus: &Connection,
    token: &str,
    asked: impl Future<Output = zbus::Result<OwnedObjectPath>>,
) -> Result<Results, Refused> {
    let own = bus.unique_name().map_or("", |name| name.as_str()).trim_start_matches(':').replace('.', "_");
    let place = format!("{PLACE}/request/{own}/{token}");
    let request = proxy(bus, &place, "org.freedesktop.portal.Request").await?;
    let mut answers = request.receive_signal("Response").await?;
    asked.await.map_err(why)?;
    let Some(answer) = answers.next().await else { return Err(Refused::Failed) };
    match answer.body().deserialize()? {
        (0_u32, results) => Ok(results),
        (1, _) => Err(Refused::Declined),
        (_, Results { .. }) => Err(Refused::Failed),
    }
}

fn why(error: zbus::Error) -> Refused {
    let name = match &error {
        zbus::Error::MethodError(name, _, _) => name.as_str(),
        _ => "",
    };
    match name {
        "org.freedesktop.DBus.Error.UnknownMethod" | "org.freedesktop.DBus.Error.UnknownInterface" => {
            Refused::NoShortcuts
        }
        "org.freedesktop.DBus.Error.ServiceUnknown" => Refused::NoPortal,
        "org.freedesktop.portal.Error.NotAllowed" => Refused::NotKnown,
        _ => Refused::Portal(error),
    }
}

/// Says which key it became, and whether one is known: a desktop may have given it none yet, or tell of none.
fn tell(bell: &Bell, bound: &Bound) -> bool {
    let facts = bound.iter().find(|(name, _)| name == SHORTCUT).map(|(_, facts)| facts);
    let key = facts.and_then(|it| <&str>::try_from(it.get("trigger_description")?).ok());
    match key.filter(|it| !it.is_empty()) {
        Some(key) => {
            bell.heard(format!("the desktop tells of its shortcut “{MEANS}”: {key}"));
            true
        }
        None => {
            let says =
                format!("the desktop has its shortcut “{MEANS}” without a key, or does not tell of it");
            bell.unheard(says, Some(GIVE_IT_ONE));
            false
        }
    }
}

/// As the shortcuts specification of freedesktop.org writes it: `CTRL+ALT+g`, with the names of keysyms.
fn trigger(hotkey: Hotkey) -> String {
    let Held { ctrl, alt, shift, logo } = hotkey.held;
    let held = [(ctrl, "CTRL+"), (alt, "ALT+"), (shift, "SHIFT+"), (logo, "LOGO+")];
    let held: String = held.into_iter().filter(|(held, _)| *held).map(|(_, name)| name).collect();
    match hotkey.key {
        Key::Sign(sign) => format!("{held}{}", char::from(sign.to_ascii_lowercase())),
        Key::PageUp => format!("{held}Page_Up"),
        Key::PageDown => format!("{held}Page_Down"),
        key => format!("{held}{key}"),
    }
}

async fn proxy<'a>(bus: &Connection, place: &'a str, interface: &'static str) -> zbus::Result<Proxy<'a>> {
    zbus::proxy::Builder::new(bus)
        .destination(PORTAL)?
        .path(place)?
        .interface(interface)?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_named_as_the_shortcuts_specification_says() {
        let named = |text: &str| trigger(text.parse().unwrap());
        assert_eq!(named("Ctrl+Alt+G"), "CTRL+ALT+g");
        assert_eq!(named("Shift+Super+PageUp"), "SHIFT+LOGO+Page_Up");
        assert_eq!(named("Pause"), "Pause");
        assert_eq!(named("F13"), "F13");
    }
}
