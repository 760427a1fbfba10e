//! Linux: logind says whether anybody can sit here, the X server or Mutter tells of input.

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use idlewatt_core::presence::PresenceReading;
use tokio::sync::watch;

use self::sessions::{Kind, Session, Sessions};
use self::sockets::Sockets;
use crate::teller::Teller;
use crate::{Options, Program, Sight};

mod mutter;
mod programs;
mod sessions;
mod sockets;
mod x11;

const UNSEEN: &[&str] = &["gamepads", "input of other seats"];

/// Where the graphical session is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The X display, `:0`.
    pub display: Option<String>,
    /// Whether this is a Wayland session. Its X server sees only what X programs are sent, so it is never asked.
    pub wayland: bool,
    /// D-Bus address of the session bus, where Mutter is.
    pub session_bus: Option<String>,
    /// D-Bus address of the system bus, where logind is.
    pub system_bus: Option<String>,
    /// The folder that holds `proc`, `sys` and `dev`.
    pub root: PathBuf,
}

impl Surroundings {
    /// As the environment of this process says.
    #[must_use]
    pub fn of_this_process() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let bus_of_user = || text("XDG_RUNTIME_DIR").map(|dir| format!("unix:path={dir}/bus"));
        Self {
            display: text("DISPLAY"),
            wayland: text("WAYLAND_DISPLAY").is_some(),
            session_bus: text("DBUS_SESSION_BUS_ADDRESS").or_else(bus_of_user),
            system_bus: text("DBUS_SYSTEM_BUS_ADDRESS")
                .or_else(|| Some("unix:path=/run/dbus/system_bus_socket".to_owned())),
            root: PathBuf::from("/"),
        }
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
    Wayland,
    /// Another account's session is in front, or one that names no display.
    OutOfSight(&'static str),
}

/// Decides what to watch. `listed` is what logind knows, `None` where there is no logind.
fn desk(surroundings: &Surroundings, listed: Option<&[Session]>, own: u32) -> Desk {
    let listed = listed.unwrap_or_default();
    if listed.iter().any(|session| session.uid != own && session.active) {
        return Desk::OutOfSight("the session of another account is in front");
    }
    if surroundings.wayland {
        return Desk::Wayland;
    }
    if let Some(display) = &surroundings.display {
        return Desk::X11 { display: display.clone() };
    }
    match listed.iter().find(|session| session.uid == own).map(|session| &session.kind) {
        Some(Kind::Wayland) => Desk::Wayland,
        Some(Kind::X11 { display: Some(display) }) => Desk::X11 { display: display.clone() },
        Some(Kind::X11 { display: None }) => Desk::OutOfSight("the graphical session names no display"),
        None => Desk::Nobody,
    }
}

/// Tells what goes on beside input.
pub(crate) async fn activity(options: Options, listed: watch::Receiver<Vec<String>>, teller: Teller) {
    let Surroundings { root, .. } = options.surroundings;
    programs::follow(&root.join("proc"), listed, &teller).await;
}

pub(crate) fn programs(options: &Options) -> Vec<Program> {
    programs::own(&options.surroundings.root.join("proc"), &[])
}

pub(crate) async fn input(options: Options, teller: Teller) {
    let Options { quiet, surroundings } = options;
    let quiet = quiet.max(Duration::from_millis(100));
    let own = rustix::process::getuid().as_raw();
    let mut sessions = Sessions::connect(surroundings.system_bus.as_deref()).await;
    let mut listed = sessions.graphical().await;
    loop {
        let desk = desk(&surroundings, listed.as_deref(), own);
        let nobody = listed.as_ref().is_some_and(Vec::is_empty);
        let attend = attend(&desk, nobody, &surroundings, quiet, &teller);
        tokio::pin!(attend);
        loop {
            tokio::select! {
                never = &mut attend => match never {},
                () = sessions.changed() => {}
            }
            listed = sessions.graphical().await;
            let same = self::desk(&surroundings, listed.as_deref(), own) == desk;
            if same && listed.as_ref().is_some_and(Vec::is_empty) == nobody {
                continue;
            }
            break;
        }
    }
}

/// Watches one desk for as long as it is the right one. `nobody`: logind knows of no graphical session.
async fn attend(
    desk: &Desk,
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
                unseen: &["people who log in over the network"],
                action: None,
            });
            pending().await
        }
        Desk::OutOfSight(why) => {
            teller.source(blind(why, "Run Idlewatt in the session that people sit at."));
            pending().await
        }
        Desk::X11 { display } => loop {
            // Before the attempt, so that a server that starts during it is not missed.
            let mut sockets = Sockets::watch();
            let lost = x11::follow(display, quiet, teller).await;
            if nobody {
                teller.source(Sight {
                    reading: PresenceReading::Headless,
                    source: format!("no graphical session: X display {display} is gone"),
                    unseen: &["people who log in over the network"],
                    action: None,
                });
            } else {
                let why = format!("X display {display}: {lost}");
                teller.source(blind(&why, "Run Idlewatt in the session that people sit at."));
            }
            sockets.appeared(display).await;
        },
        Desk::Wayland => loop {
            let lost = mutter::follow(surroundings.session_bus.as_deref(), quiet, teller).await;
            teller.source(blind(
                &lost.why,
                "On this desktop Idlewatt cannot see input yet, so it shares only when told. GNOME tells; an X11 \
                 session of any desktop does too.",
            ));
            lost.back().await;
        },
    }
}

fn blind(why: &str, action: &str) -> Sight {
    Sight {
        reading: PresenceReading::Blind,
        source: why.to_owned(),
        unseen: &["whether anybody is here"],
        action: Some(action.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(uid: u32, active: bool, kind: Kind) -> Session {
        Session { uid, active, kind }
    }

    #[test]
    fn no_session_anywhere_is_headless() {
        assert_eq!(desk(&Surroundings::default(), None, 1000), Desk::Nobody);
        assert_eq!(desk(&Surroundings::default(), Some(&[]), 1000), Desk::Nobody);
    }

    #[test]
    fn a_wayland_session_is_never_watched_through_its_x_server() {
        let surroundings =
            Surroundings { display: Some(":0".to_owned()), wayland: true, ..Surroundings::default() };
        assert_eq!(desk(&surroundings, None, 1000), Desk::Wayland);
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
}
