//! A key of the host's choosing, on a real X server and over a desktop's portal.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use idlewatt_presence::Surroundings;
use idlewatt_presence::hotkey::{Listening, Standing, listen};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{ConnectionExt as _, GrabMode, ModMask};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Value};

use crate::rig::{Bus, PATIENCE, Xvfb, options};

fn listening(key: &str, surroundings: Surroundings) -> Listening {
    listen(key.parse().unwrap(), options(surroundings))
}

async fn until(listening: &Listening, wanted: impl Fn(&Standing) -> bool) -> Standing {
    let mut standing = listening.standing();
    timeout(PATIENCE, standing.wait_for(|it| wanted(it)))
        .await
        .unwrap_or_else(|_| panic!("not seen; instead {:?}", *listening.standing().borrow()))
        .unwrap()
        .clone()
}

async fn pressed(listening: &Listening) {
    timeout(PATIENCE, listening.pressed()).await.expect("a press is heard");
}

/// Nothing more was rung: what the server was sent before, it has told of by the time that it answers another question.
async fn rings_no_more(listening: &Listening) {
    assert!(timeout(Duration::from_millis(300), listening.pressed()).await.is_err(), "it rings again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_rings_once_a_press_whatever_is_locked_and_no_other_key_does() {
    let server = Xvfb::start(None);
    let listening = listening("Ctrl+Alt+G", server.surroundings());
    let standing = until(&listening, |it| it.heard).await;
    assert_eq!(standing.says, format!("X display {} tells of Ctrl+Alt+G", server.display));
    for lock in ["Caps_Lock", "Num_Lock", "Caps_Lock", "Num_Lock"] {
        server.xdotool(&["key", "ctrl+alt+g"]);
        pressed(&listening).await;
        server.xdotool(&["key", lock]);
    }
    server.xdotool(&["key", "g", "key", "ctrl+g", "key", "ctrl+alt+h", "key", "ctrl+alt+shift+g"]);
    rings_no_more(&listening).await;
    server.xdotool(&["keydown", "ctrl", "keydown", "alt", "keydown", "g"]);
    pressed(&listening).await;
    // Held down it repeats itself after 660 ms, 25 times a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    rings_no_more(&listening).await;
    server.xdotool(&["keyup", "g", "keyup", "alt", "keyup", "ctrl"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_program_has_is_said_and_one_that_is_dropped_is_free() {
    let server = Xvfb::start(None);
    let (client, _) = x11rb::connect(Some(&server.display)).unwrap();
    let root = client.setup().roots[0].root;
    let first = client.setup().min_keycode;
    let keys = client.get_keyboard_mapping(first, 200).unwrap().reply().unwrap();
    let pause = keys.keysyms.chunks(keys.keysyms_per_keycode.into()).position(|it| it[0] == 0xff13).unwrap();
    let code = first + u8::try_from(pause).unwrap();
    // One of the states that locks make is enough.
    let taken = ModMask::CONTROL | ModMask::LOCK;
    let grab =
        || client.grab_key(false, root, taken, code, GrabMode::ASYNC, GrabMode::ASYNC).unwrap().check();
    grab().unwrap();
    let refused = listening("Ctrl+Pause", server.surroundings());
    let standing = until(&refused, |it| it.says.contains("another program")).await;
    assert!(!standing.heard && standing.action.is_some(), "{standing:?}");
    drop(refused);

    client.ungrab_key(code, root, ModMask::ANY).unwrap().check().unwrap();
    let listening = listening("Ctrl+Pause", server.surroundings());
    until(&listening, |it| it.heard).await;
    grab().unwrap_err();
    drop(listening);
    timeout(PATIENCE, async {
        while grab().is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_found_again_on_another_layout_and_on_a_server_that_came_back() {
    let server = Xvfb::start(None);
    let display = server.display.clone();
    let listening = listening("Alt+Q", server.surroundings());
    until(&listening, |it| it.heard).await;
    // Q goes where A was, as on a French keyboard.
    let (client, _) = x11rb::connect(Some(&display)).unwrap();
    let first = client.setup().min_keycode;
    let keys = client.get_keyboard_mapping(first, 200).unwrap().reply().unwrap();
    let per = keys.keysyms_per_keycode;
    let code = |sign: u32| {
        let index = keys.keysyms.chunks(per.into()).position(|it| it[0] == sign).unwrap();
        first + u8::try_from(index).unwrap()
    };
    let (q, a) = (code(0x71), code(0x61));
    let both = |lower: u32| vec![lower, lower - 0x20];
    client.change_keyboard_mapping(1, q, 2, &both(0x61)).unwrap().check().unwrap();
    client.change_keyboard_mapping(1, a, 2, &both(0x71)).unwrap().check().unwrap();
    let (alt_q, alt_a) = (["key", "alt+q"], ["key", "alt+a"]);
    timeout(PATIENCE, async {
        loop {
            server.xdotool(&alt_q);
            if timeout(Duration::from_millis(100), listening.pressed()).await.is_ok() {
                break;
            }
        }
    })
    .await
    .expect("it follows the layout");
    server.xdotool(&alt_a);
    rings_no_more(&listening).await;

    drop((client, server));
    until(&listening, |it| !it.heard && it.says.contains("gone")).await;
    let server = Xvfb::start(Some(&display));
    until(&listening, |it| it.heard).await;
    server.xdotool(&alt_q);
    pressed(&listening).await;
}

#[tokio::test]
async fn where_nobody_sits_there_is_no_key() {
    let listening = listening("Pause", Surroundings::default());
    let standing = until(&listening, |it| it.says.contains("no graphical session")).await;
    assert!(!standing.heard && standing.action.is_none());
}

/// A desktop's portal as xdg-desktop-portal 1.22 is: known programs only, the session's handle as text, the answer to a
/// question sent before the call that asked it returns, one bind a session.
#[derive(Clone)]
struct Portal {
    /// Whether a desktop file of that name is installed.
    installed: bool,
    /// What the person answers in the dialog: 0 agrees, 1 declines.
    says: u32,
    /// The key that they choose; empty is none, or one that the desktop does not tell of.
    key: &'static str,
    asked: Arc<Mutex<Asked>>,
    bound: watch::Sender<Option<(OwnedObjectPath, HashMap<String, String>)>>,
}

#[derive(Default)]
struct Asked {
    program: Option<String>,
    calls: u32,
}

struct Registry(Portal);

#[zbus::interface(name = "org.freedesktop.host.portal.Registry")]
impl Registry {
    async fn register(
        &self,
        program: String,
        _options: HashMap<String, OwnedValue>,
    ) -> zbus::fdo::Result<()> {
        let mut asked = self.0.asked.lock().await;
        if asked.calls > 0 || asked.program.is_some() {
            return Err(zbus::fdo::Error::Failed(
                "Connection already associated with an application ID".into(),
            ));
        }
        if !self.0.installed {
            return Err(zbus::fdo::Error::Failed(format!("App info not found for '{program}'")));
        }
        asked.program = Some(program);
        Ok(())
    }
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.freedesktop.portal.Error")]
enum PortalError {
    NotAllowed(String),
}

struct Shortcuts(Portal);

#[zbus::interface(name = "org.freedesktop.portal.GlobalShortcuts")]
impl Shortcuts {
    async fn create_session(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &zbus::Connection,
        options: HashMap<String, OwnedValue>,
    ) -> Result<OwnedObjectPath, PortalError> {
        let mut asked = self.0.asked.lock().await;
        asked.calls += 1;
        if asked.program.is_none() {
            return Err(PortalError::NotAllowed("An app id is required".into()));
        }
        let sender = sender(&header);
        let session = format!(
            "/org/freedesktop/portal/desktop/session/{sender}/{}",
            text(&options, "session_handle_token")
        );
        let results = HashMap::from([("session_handle", Value::from(session))]);
        Ok(respond(bus, &header, &options, 0, results).await)
    }

    async fn bind_shortcuts(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &zbus::Connection,
        session: OwnedObjectPath,
        shortcuts: Vec<(String, HashMap<String, OwnedValue>)>,
        _parent: String,
        options: HashMap<String, OwnedValue>,
    ) -> OwnedObjectPath {
        let mut results = HashMap::new();
        if self.0.says == 0 {
            let [(name, wish)] = shortcuts.as_slice() else { panic!("{shortcuts:?}") };
            let facts = HashMap::from([
                ("trigger_description", Value::from(self.0.key)),
                ("description", text(wish, "description").into()),
            ]);
            results.insert("shortcuts", Value::from(vec![(name.as_str(), facts)]));
            let wish = wish
                .keys()
                .map(|key| (key.clone(), text(wish, key)))
                .chain([("id".to_owned(), name.clone())]);
            self.0.bound.send_replace(Some((session, wish.collect())));
        }
        respond(bus, &header, &options, self.0.says, results).await
    }

    #[zbus(signal)]
    async fn activated(
        emitter: &SignalEmitter<'_>,
        session: &ObjectPath<'_>,
        shortcut: &str,
        at: u64,
        options: HashMap<&str, Value<'_>>,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn shortcuts_changed(
        emitter: &SignalEmitter<'_>,
        session: &ObjectPath<'_>,
        shortcuts: Vec<(&str, HashMap<&str, Value<'_>>)>,
    ) -> zbus::Result<()>;
}

fn sender(header: &Header<'_>) -> String {
    header.sender().unwrap().trim_start_matches(':').replace('.', "_")
}

fn text(options: &HashMap<String, OwnedValue>, key: &str) -> String {
    <&str>::try_from(&options[key]).unwrap().to_owned()
}

async fn respond(
    bus: &zbus::Connection,
    header: &Header<'_>,
    options: &HashMap<String, OwnedValue>,
    code: u32,
    results: HashMap<&str, Value<'_>>,
) -> OwnedObjectPath {
    let token = text(options, "handle_token");
    let place = format!("/org/freedesktop/portal/desktop/request/{}/{token}", sender(header));
    let to = header.sender().unwrap().to_owned();
    bus.emit_signal(Some(to), place.as_str(), "org.freedesktop.portal.Request", "Response", &(code, results))
        .await
        .unwrap();
    place.try_into().unwrap()
}

impl Portal {
    fn new(installed: bool, says: u32, key: &'static str) -> Self {
        Self { installed, says, key, asked: Arc::default(), bound: watch::Sender::new(None) }
    }

    async fn serve(&self, bus: &Bus) -> zbus::Connection {
        let place = "/org/freedesktop/portal/desktop";
        let bus = bus.connection();
        let bus = bus.serve_at(place, Registry(self.clone())).unwrap();
        let bus = bus.serve_at(place, Shortcuts(self.clone())).unwrap();
        bus.name("org.freedesktop.portal.Desktop").unwrap().build().await.unwrap()
    }

    async fn press(&self, bus: &zbus::Connection, session: &OwnedObjectPath, shortcut: &str) {
        let emitter = SignalEmitter::new(bus, "/org/freedesktop/portal/desktop").unwrap();
        Shortcuts::activated(&emitter, session, shortcut, 7, HashMap::new()).await.unwrap();
    }

    /// The person gives the shortcut another key; `None` tells of none at all.
    async fn assign(
        &self,
        bus: &zbus::Connection,
        session: &OwnedObjectPath,
        shortcut: &str,
        key: Option<&str>,
    ) {
        let emitter = SignalEmitter::new(bus, "/org/freedesktop/portal/desktop").unwrap();
        let facts = key.map(|key| ("trigger_description", key.into())).into_iter().collect();
        Shortcuts::shortcuts_changed(&emitter, session, vec![(shortcut, facts)]).await.unwrap();
    }
}

fn on_wayland(bus: &Bus) -> Surroundings {
    Surroundings {
        wayland: Some("/nonexistent/wayland-0".into()),
        session_bus: Some(bus.address.clone()),
        ..Surroundings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wayland_desktop_is_asked_for_the_key_and_tells_of_it_also_after_it_was_restarted() {
    let bus = Bus::start();
    let portal = Portal::new(true, 0, "Meta+F9");
    let desktop = portal.serve(&bus).await;
    let listening = listening("Ctrl+Alt+G", on_wayland(&bus));
    let standing = until(&listening, |it| it.heard).await;
    assert!(standing.says.ends_with(": Meta+F9"), "what the person chose counts: {standing:?}");
    assert_eq!(portal.asked.lock().await.program.as_deref(), Some("org.idlewatt.desktop"));
    let (session, wish) = portal.bound.borrow().clone().unwrap();
    assert_eq!(
        (wish["preferred_trigger"].as_str(), wish["description"].as_str()),
        ("CTRL+ALT+g", "Give my GPU back")
    );

    for _ in 0..3 {
        portal.press(&desktop, &session, &wish["id"]).await;
        pressed(&listening).await;
    }
    portal.press(&desktop, &session, "another").await;
    portal
        .press(&desktop, &"/org/freedesktop/portal/desktop/session/1_0/x".try_into().unwrap(), &wish["id"])
        .await;
    rings_no_more(&listening).await;

    desktop.close().await.unwrap();
    let portal = Portal::new(true, 0, "Ctrl+Alt+G");
    let desktop = portal.serve(&bus).await;
    until(&listening, |it| it.heard && it.says.ends_with(": Ctrl+Alt+G")).await;
    let (session, wish) = portal.bound.borrow().clone().unwrap();
    portal.press(&desktop, &session, &wish["id"]).await;
    pressed(&listening).await;

    desktop
        .emit_signal(
            None::<&str>,
            &*session,
            "org.freedesktop.portal.Session",
            "Closed",
            &(HashMap::<&str, Value<'_>>::new(),),
        )
        .await
        .unwrap();
    until(&listening, |it| !it.heard && it.says.contains("took it back")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortcut_whose_key_nobody_tells_rings_all_the_same_and_a_key_given_later_is_said() {
    let bus = Bus::start();
    let portal = Portal::new(true, 0, "");
    let desktop = portal.serve(&bus).await;
    let listening = listening("Ctrl+Alt+G", on_wayland(&bus));
    let standing = until(&listening, |it| it.says.contains("without a key")).await;
    assert!(!standing.heard && standing.action.unwrap().contains("idlewatt back"));
    let (session, wish) = portal.bound.borrow().clone().unwrap();
    let id = wish["id"].as_str();

    portal.press(&desktop, &session, id).await;
    pressed(&listening).await;
    until(&listening, |it| it.heard && it.says.ends_with("not of its key")).await;

    portal.assign(&desktop, &session, id, Some("Meta+F9")).await;
    until(&listening, |it| it.heard && it.says.ends_with(": Meta+F9")).await;
    portal.assign(&desktop, &session, id, None).await;
    until(&listening, |it| !it.heard && it.says.contains("without a key")).await;
    portal.press(&desktop, &session, id).await;
    pressed(&listening).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desktop_that_gives_no_key_is_said_with_what_to_do() {
    for (portal, why) in [
        (Some(Portal::new(false, 0, "G")), "is not installed"),
        (Some(Portal::new(true, 1, "G")), "declined"),
        (Some(Portal::new(true, 2, "G")), "refused"),
        (None, "no desktop portal"),
    ] {
        let bus = Bus::start();
        let _desktop = match &portal {
            Some(portal) => Some(portal.serve(&bus).await),
            None => None,
        };
        let listening = listening("Ctrl+Alt+G", on_wayland(&bus));
        let standing = until(&listening, |it| it.says.contains(why)).await;
        assert!(!standing.heard && standing.action.unwrap().contains("idlewatt back"));
    }
    // A portal without the interface, as of a desktop without global shortcuts.
    let bus = Bus::start();
    let known = Registry(Portal::new(true, 0, "G"));
    let desktop = bus.connection().serve_at("/org/freedesktop/portal/desktop", known).unwrap();
    let _desktop = desktop.name("org.freedesktop.portal.Desktop").unwrap().build().await.unwrap();
    let listening = listening("Ctrl+Alt+G", on_wayland(&bus));
    until(&listening, |it| it.says.contains("offers programs no keys")).await;
}
