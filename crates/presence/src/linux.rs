//! Linux: logind says whether anybody can sit here; a Wayland compositor, Mutter or the X server tells of input, and gamepads
//! of themselves. Beside it GameMode, Steam, the sound server and the window manager tell what goes on.

use std::convert::Infallible;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use idlewatt_core::presence::PresenceReading;
use tokio::sync::watch;

use self::sessions::{Kind, Session, Sessions};
use self::sockets::Socket;
use crate::hotkey::{Bell, Hotkey};
use crate::teller::Teller;
use crate::{Options, Program, Sight};

mod gamemode;
mod gamepads;
mod hotkey;
mod microphone;
mod mutter;
mod portal;
mod programs;
mod sessions;
mod sockets;
mod steam;
mod wayland;
mod wire;
mod x11;

/// What tells of windows that cover the screen.
const FULL_SCREEN: &str = "full screen";

const SIT_THERE: &str = "Run Idlewatt in the session that people sit at.";

/// Where the graphical session is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The X display, `:0`.
    pub display: Option<String>,
    /// The socket of a Wayland compositor. Its X server sees only what X programs are sent, so it is never asked.
    pub wayland: Option<PathBuf>,
    /// D-Bus address of the session bus, where Mutter and GameMode are.
    pub session_bus: Option<String>,
    /// D-Bus address of the system bus, where logind is.
    pub system_bus: Option<String>,
    /// The folder that holds `proc`, `sys` and `dev`.
    pub root: PathBuf,
    /// The account's home folder, where Steam is.
    pub home: Option<PathBuf>,
    /// The account's folder of sockets, where the sound server is.
    pub runtime: Option<PathBuf>,
}

impl Surroundings {
    /// As the environment of this process says.
    #[must_use]
    pub fn of_this_process() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let runtime = text("XDG_RUNTIME_DIR").map(PathBuf::from);
        let bus_of_user = || runtime.as_ref().map(|dir| format!("unix:path={}/bus", dir.display()));
        Self {
            display: text("DISPLAY"),
            // Either a whole path or a name in the runtime folder.
            wayland: text("WAYLAND_DISPLAY").map(|name| runtime.clone().unwrap_or_default().join(name)),
            session_bus: text("DBUS_SESSION_BUS_ADDRESS").or_else(bus_of_user),
            system_bus: text("DBUS_SYSTEM_BUS_ADDRESS")
                .or_else(|| Some("unix:path=/run/dbus/system_bus_socket".to_owned())),
            root: PathBuf::from("/"),
            home: text("HOME").map(PathBuf::from),
            runtime,
        }
    }

    fn proc(&self) -> PathBuf {
        self.root.join("proc")
    }

    /// Where a compositor listens that the environment does not name: a service starts before it, and is told nothing.
    fn compositor(&self) -> Option<PathBuf> {
        let runtime = self.runtime.as_ref()?;
        let mut places = (0..4).map(|number| runtime.join(format!("wayland-{number}")));
        places.find(|place| place.exists()).or_else(|| Some(runtime.join("wayland-0")))
    }
}

/// What there is to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Desk {
    /// No graphical session.
    Nobody,
    /// An X server.
    X11 { display: String },
    /// A Wayland session of this account.
    Wayland { socket: Option<PathBuf> },
    /// Another account's session is in front, or one that names no display.
    OutOfSight(&'static str),
}

/// Decides what to watch. `listed` is what logind knows, `None` where there is no logind.
fn desk(surroundings: &Surroundings, listed: Option<&[Session]>, own: u32) -> Desk {
    let graphical = || listed.unwrap_or_default().iter().filter(|session| session.is_graphical());
    if graphical().any(|session| session.uid != own && session.active) {
        return Desk::OutOfSight("the session of another account is in front");
    }
    if let Some(socket) = &surroundings.wayland {
        return Desk::Wayland { socket: Some(socket.clone()) };
    }
    if let Some(display) = &surroundings.display {
        return Desk::X11 { display: display.clone() };
    }
    match graphical().find(|session| session.uid == own).map(|session| &session.kind) {
        Some(Kind::Wayland) => Desk::Wayland { socket: surroundings.compositor() },
        Some(Kind::X11 { display: Some(display) }) => Desk::X11 { display: display.clone() },
        Some(Kind::X11 { display: None }) => Desk::OutOfSight("the graphical session names no display"),
        Some(Kind::Text) | None => Desk::Nobody,
    }
}

/// Tells of input, and of what goes on in the session that is watched for it.
pub(crate) async fn input(options: Options, teller: Teller) {
    let Options { quiet, surroundings } = options;
    let quiet = quiet.max(Duration::from_millis(100));
    tokio::join!(follow(&surroundings, quiet, &teller), gamepads::follow(&surroundings.root, quiet, &teller));
}

/// Tells of programs on the host's list; what else goes on is told with the session's input.
pub(crate) async fn activity(options: Options, listed: watch::Receiver<Vec<String>>, teller: Teller) {
    programs::follow(&options.surroundings.proc(), listed, &teller).await;
}

pub(crate) fn programs(options: &Options) -> Vec<Program> {
    let surroundings = &options.surroundings;
    let display = surroundings.display.as_deref().filter(|_| surroundings.wayland.is_none());
    let windows = display.map(x11::screen::who_has_windows).unwrap_or_default();
    programs::own(&surroundings.proc(), &windows)
}

/// Rings when a key combination is pressed.
pub(crate) async fn hotkey(hotkey: Hotkey, options: Options, bell: Bell) {
    match hotkey::follow(hotkey, &options.surroundings, &bell).await {}
}

async fn follow(surroundings: &Surroundings, quiet: Duration, teller: &Teller) -> Infallible {
    let own = rustix::process::getuid().as_raw();
    let listed = |listed: Option<&[Session]>| sessions::tell(listed, own, teller);
    at_desk(surroundings, listed, |desk, nobody| attend(desk, nobody, surroundings, quiet, teller)).await
}

/// Attends to the desk that is the right one, until another is. `listed` hears what logind knows, each time that changes;
/// what is attended to is told also whether logind knows of no graphical session.
async fn at_desk<A: Future<Output = Infallible>>(
    surroundings: &Surroundings,
    listed: impl Fn(Option<&[Session]>),
    attend: impl Fn(Desk, bool) -> A,
) -> Infallible {
    let own = rustix::process::getuid().as_raw();
    let mut sessions = Sessions::connect(surroundings.system_bus.as_deref()).await;
    let look = async |sessions: &Sessions| {
        let known = sessions.list().await;
        listed(known.as_deref());
        let nobody = known.as_ref().is_some_and(|known| !known.iter().any(Session::is_graphical));
        (desk(surroundings, known.as_deref(), own), nobody)
    };
    let mut next = look(&sessions).await;
    loop {
        let now = next.clone();
        let attend = attend(now.0.clone(), now.1);
        tokio::pin!(attend);
        while next == now {
            tokio::select! {
                never = &mut attend => match never {},
                () = sessions.changed() => {}
            }
            next = look(&sessions).await;
        }
    }
}

/// Watches one desk. `nobody`: logind knows of no graphical session.
async fn attend(
    desk: Desk,
    nobody: bool,
    surroundings: &Surroundings,
    quiet: Duration,
    teller: &Teller,
) -> Infallible {
    match desk {
        Desk::Nobody => {
            teller.source(Sight {
                reading: PresenceReading::Headless,
                source: "no graphical session: nobody can be disturbed".to_owned(),
                unseen: &[],
                action: None,
            });
            pending().await
        }
        Desk::OutOfSight(why) => {
            teller.source(blind(why.to_owned(), SIT_THERE));
            pending().await
        }
        Desk::X11 { display } => {
            let both =
                async { tokio::join!(x11(&display, nobody, quiet, teller), beside(surroundings, teller)) };
            both.await.0
        }
        Desk::Wayland { socket } => {
            let watch = wayland(socket.as_deref(), surroundings.session_bus.as_deref(), quiet, teller);
            tokio::join!(watch, beside(surroundings, teller)).0
        }
    }
}

/// What goes on in a graphical session, whatever shows it.
async fn beside(surroundings: &Surroundings, teller: &Teller) {
    let proc = surroundings.proc();
    tokio::join!(
        gamemode::follow(surroundings.session_bus.as_deref(), &proc, teller),
        steam::follow(surroundings.home.as_deref(), &proc, teller),
        microphone::follow(surroundings.runtime.as_deref(), surroundings.home.as_deref(), teller),
    );
}

async fn x11(display: &str, nobody: bool, quiet: Duration, teller: &Teller) -> Infallible {
    let socket = sockets::of_display(display);
    // Before the first attempt, so that a server that starts during it is not missed.
    let mut socket = socket.as_deref().map(Socket::watch);
    loop {
        let lost = tokio::select! {
            lost = x11::idle::follow(display, quiet, teller) => lost,
            never = x11::screen::follow(display, teller) => match never {},
        };
        if nobody {
            teller.source(Sight {
                reading: PresenceReading::Headless,
                source: format!("no graphical session: X display {display} is gone"),
                unseen: &[],
                action: None,
            });
        } else {
            teller.source(blind(format!("X display {display}: {lost}"), SIT_THERE));
        }
        match &mut socket {
            Some(socket) => socket.appeared().await,
            None => pending().await,
        }
    }
}

/// A compositor that tells of idleness is heard itself; else GNOME's shell over the session's bus.
async fn wayland(socket: Option<&Path>, bus: Option<&str>, quiet: Duration, teller: &Teller) -> Infallible {
    let _part = teller.listening(FULL_SCREEN);
    teller.unheard(FULL_SCREEN, "Wayland shows no program what others do with the screen");
    let Some(socket) = socket else {
        return mutter(bus, "a Wayland session that names no compositor", quiet, teller).await;
    };
    let mut socket = Socket::watch(socket);
    loop {
        let lost = match wayland::Compositor::connect(socket.path()).await {
            Ok(compositor) if compositor.tells() => compositor.follow(quiet, teller).await,
            Ok(compositor) => {
                let tells_nothing = "this Wayland desktop offers no source that tells of input";
                tokio::select! {
                    lost = compositor.gone() => lost,
                    never = mutter(bus, tells_nothing, quiet, teller) => match never {},
                }
            }
            Err(lost) => lost,
        };
        let why = format!("Wayland: {lost}");
        tokio::select! {
            () = socket.appeared() => {}
            never = mutter(bus, &why, quiet, teller) => match never {},
        }
    }
}

/// Listens to GNOME's shell whenever it runs. `why` nobody else tells.
async fn mutter(bus: Option<&str>, why: &str, quiet: Duration, teller: &Teller) -> Infallible {
    loop {
        let lost = mutter::follow(bus, quiet, teller).await;
        let why = match &lost.why {
            Some(lost) => format!("{why}; {lost}"),
            None => why.to_owned(),
        };
        teller.source(blind(
            why,
            "On this desktop Idlewatt cannot see input, so it shares only when told. GNOME, KDE and most others tell; an \
             X11 session of any desktop does too.",
        ));
        lost.back().await;
    }
}

fn blind(why: String, action: &str) -> Sight {
    Sight {
        reading: PresenceReading::Blind,
        source: why,
        unseen: &["whether anybody is here"],
        action: Some(action.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(uid: u32, active: bool, kind: Kind) -> Session {
        Session { uid, active, locked: false, remote: false, kind }
    }

    #[test]
    fn no_session_anywhere_is_headless() {
        assert_eq!(desk(&Surroundings::default(), None, 1000), Desk::Nobody);
        assert_eq!(desk(&Surroundings::default(), Some(&[]), 1000), Desk::Nobody);
        let over_ssh = Session { remote: true, ..session(1001, true, Kind::Text) };
        assert_eq!(desk(&Surroundings::default(), Some(&[over_ssh]), 1000), Desk::Nobody);
    }

    #[test]
    fn a_wayland_session_is_never_watched_through_its_x_server() {
        let socket = Some(PathBuf::from("/run/user/1000/wayland-0"));
        let surroundings = Surroundings {
            display: Some(":0".to_owned()),
            wayland: socket.clone(),
            ..Surroundings::default()
        };
        assert_eq!(desk(&surroundings, None, 1000), Desk::Wayland { socket });
    }

    #[test]
    fn another_account_in_front_cannot_be_seen() {
        let surroundings = Surroundings { display: Some(":0".to_owned()), ..Surroundings::default() };
        let mine = session(1000, false, Kind::X11 { display: Some(":0".to_owned()) });
        let theirs = session(1001, true, Kind::Wayland);
        let found = desk(&surroundings, Some(&[mine.clone(), theirs]), 1000);
        assert!(matches!(found, Desk::OutOfSight(_)));
        let away = session(1001, false, Kind::Wayland);
        assert!(matches!(desk(&surroundings, Some(&[mine, away]), 1000), Desk::X11 { .. }));
    }

    #[test]
    fn a_service_outside_the_session_finds_the_display_through_logind() {
        let mine = session(1000, true, Kind::X11 { display: Some(":1".to_owned()) });
        let found = desk(&Surroundings::default(), Some(&[mine]), 1000);
        assert_eq!(found, Desk::X11 { display: ":1".to_owned() });
    }

    #[test]
    fn a_service_that_started_before_the_compositor_finds_its_socket() {
        let runtime = tempfile::tempdir().unwrap();
        let surroundings =
            Surroundings { runtime: Some(runtime.path().to_owned()), ..Surroundings::default() };
        let mine = [session(1000, true, Kind::Wayland)];
        let at = |name: &str| Desk::Wayland { socket: Some(runtime.path().join(name)) };
        assert_eq!(desk(&surroundings, Some(&mine), 1000), at("wayland-0"));
        std::fs::write(runtime.path().join("wayland-1"), []).unwrap();
        assert_eq!(desk(&surroundings, Some(&mine), 1000), at("wayland-1"));
    }
}
