//! What an X server's window manager says covers the screen, whether the displays are off, and who has windows. The window
//! in front is asked for its state and its program's class, never for its title or its contents.

use std::convert::Infallible;
use std::sync::Arc;

use idlewatt_core::presence::{Activity, App};
use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::protocol::Event;
use x11rb::protocol::dpms::{self, ConnectionExt as _, DPMSMode};
use x11rb::protocol::xproto::{
    Atom, AtomEnum, ChangeWindowAttributesAux, ConnectionExt as _, EventMask, Window,
};
use x11rb::rust_connection::RustConnection;

use super::super::FULL_SCREEN;
use super::{Lost, ask, event, wire};
use crate::teller::Teller;

x11rb::atom_manager! {
    /// What the Extended Window Manager Hints call things.
    Names: NamesCookie {
        _NET_ACTIVE_WINDOW,
        _NET_CLIENT_LIST,
        _NET_SUPPORTING_WM_CHECK,
        _NET_WM_PID,
        _NET_WM_STATE,
        _NET_WM_STATE_FULLSCREEN,
    }
}

/// Tells what covers the screen of `display` for as long as it is there. That it is gone, its idle counter says.
pub(in super::super) async fn follow(display: &str, teller: &Teller) -> Infallible {
    let _part = teller.listening(FULL_SCREEN);
    let named = display.to_owned();
    let lost = match ask(move || Screen::open(&named)).await {
        Ok(screen) => match Arc::new(screen).tell(teller).await {
            Ok(never) => match never {},
            Err(lost) => lost,
        },
        Err(lost) => lost,
    };
    teller.unheard(FULL_SCREEN, lost.to_string());
    std::future::pending().await
}

/// Processes that have a window on `display`; none where that cannot be told. Blocks for some round trips.
pub(in super::super) fn who_has_windows(display: &str) -> Vec<u32> {
    let asked = || -> Result<Vec<u32>, Lost> {
        let screen = Screen::open(display)?;
        let windows = screen.values(screen.root, screen.names._NET_CLIENT_LIST, AtomEnum::WINDOW.into())?;
        let mut pids = Vec::new();
        for window in windows {
            // A window may close between the two questions.
            let pid = screen.values(window, screen.names._NET_WM_PID, AtomEnum::CARDINAL.into());
            pids.extend(pid.unwrap_or_default());
        }
        Ok(pids)
    };
    asked().unwrap_or_default()
}

struct Screen {
    server: RustConnection,
    root: Window,
    names: Names,
    /// Whether the server tells of displays that go off (DPMS 1.2).
    tells_of_displays: bool,
}

impl Screen {
    fn open(display: &str) -> Result<Self, Lost> {
        let (server, screen) = RustConnection::connect(Some(display))?;
        let root = server.setup().roots.get(screen).map_or(x11rb::NONE, |screen| screen.root);
        let names = Names::new(&server)?.reply()?;
        let changes = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE);
        server.change_window_attributes(root, &changes)?.check()?;
        let tells_of_displays = tells_of_displays(&server)?;
        Ok(Self { server, root, names, tells_of_displays })
    }

    async fn tell(self: Arc<Self>, teller: &Teller) -> Result<Infallible, Lost> {
        let wire = wire(&self.server)?;
        let mut front = x11rb::NONE;
        loop {
            let screen = Arc::clone(&self);
            let (now_front, says, activity) = ask(move || screen.look(front)).await?;
            front = now_front;
            teller.says(FULL_SCREEN, says, activity);
            loop {
                match event(&self.server, &wire).await? {
                    Event::PropertyNotify(change)
                        if change.atom == self.names._NET_ACTIVE_WINDOW
                            || change.atom == self.names._NET_WM_STATE
                            || change.atom == self.names._NET_SUPPORTING_WM_CHECK =>
                    {
                        break;
                    }
                    Event::DpmsInfoNotify(_) => break,
                    _ => {}
                }
            }
        }
    }

    /// What is in front, and what it does. `before` was in front at the last look.
    fn look(&self, before: Window) -> Result<(Window, &'static str, Activity), Lost> {
        let windows = self.values(self.root, self.names._NET_ACTIVE_WINDOW, AtomEnum::WINDOW.into())?;
        let front = windows.first().copied().unwrap_or(x11rb::NONE);
        if front != before {
            // Either may be closed by now; then the root tells of the next one.
            for (window, wanted) in [(before, EventMask::NO_EVENT), (front, EventMask::PROPERTY_CHANGE)] {
                if window != x11rb::NONE && window != self.root {
                    let wanted = ChangeWindowAttributesAux::new().event_mask(wanted);
                    self.server.change_window_attributes(window, &wanted)?.ignore_error();
                }
            }
        }
        let full_screen = if front == x11rb::NONE { None } else { self.full_screen(front)? };
        let displays_off = self.displays_off()?;
        let says = match (&full_screen, displays_off) {
            (_, Some(true)) => "the displays are off",
            (Some(_), _) => "a window covers the screen",
            (None, _) if self.has_window_manager()? => "no window covers the screen",
            (None, _) => "no window manager says what covers the screen",
        };
        Ok((front, says, Activity { full_screen, displays_off, ..Activity::default() }))
    }

    fn full_screen(&self, window: Window) -> Result<Option<App>, Lost> {
        let state = self.values(window, self.names._NET_WM_STATE, AtomEnum::ATOM.into());
        if !gone_is_none(state)?.unwrap_or_default().contains(&self.names._NET_WM_STATE_FULLSCREEN) {
            return Ok(None);
        }
        let class =
            self.server.get_property(false, window, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, 256)?.reply();
        let class = gone_is_none(class.map_err(Lost::from))?.map(|class| class.value).unwrap_or_default();
        Ok(Some(App { name: name_of_class(&class) }))
    }

    fn displays_off(&self) -> Result<Option<bool>, Lost> {
        if !self.tells_of_displays {
            return Ok(None);
        }
        let info = self.server.dpms_info()?.reply()?;
        Ok(Some(info.state && info.power_level != DPMSMode::ON))
    }

    fn has_window_manager(&self) -> Result<bool, Lost> {
        let check = self.names._NET_SUPPORTING_WM_CHECK;
        Ok(!self.values(self.root, check, AtomEnum::WINDOW.into())?.is_empty())
    }

    /// A property that is a list of 32-bit values; empty where there is none.
    fn values(&self, window: Window, property: Atom, kind: Atom) -> Result<Vec<u32>, Lost> {
        let reply = self.server.get_property(false, window, property, kind, 0, 4096)?.reply()?;
        Ok(reply.value32().map(Iterator::collect).unwrap_or_default())
    }
}

/// Asks to be told of displays that go off and on. Servers older than DPMS 1.2 (X.Org 21.1) do not tell, and then it is not
/// known: asking again and again would be the alternative.
fn tells_of_displays(server: &RustConnection) -> Result<bool, Lost> {
    if server.extension_information(dpms::X11_EXTENSION_NAME)?.is_none() {
        return Ok(false);
    }
    let version = server.dpms_get_version(1, 2)?.reply()?;
    let tells = (version.server_major_version, version.server_minor_version) >= (1, 2)
        && server.dpms_capable()?.reply()?.capable;
    if tells {
        server.dpms_select_input(dpms::EventMask::INFO_NOTIFY)?.check()?;
    }
    Ok(tells)
}

/// A window that closed while it was asked about is no failure of the connection.
fn gone_is_none<T>(answer: Result<T, Lost>) -> Result<Option<T>, Lost> {
    use x11rb::errors::ReplyOrIdError;
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Lost::Refused(ReplyOrIdError::X11Error(_))) => Ok(None),
        Err(lost) => Err(lost),
    }
}

/// `WM_CLASS` is the instance's name and the program's class, each closed by a zero (ICCCM 4.1.2.5). The class is what
/// people call the program.
fn name_of_class(class: &[u8]) -> String {
    let mut parts = class.split(|byte| *byte == 0).filter(|part| !part.is_empty());
    let instance = parts.next();
    let name = parts.next().or(instance).unwrap_or(b"a program");
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_its_class() {
        assert_eq!(name_of_class(b"steam_app_1091500\0steam_app_1091500\0"), "steam_app_1091500");
        assert_eq!(name_of_class(b"Navigator\0firefox\0"), "firefox");
        assert_eq!(name_of_class(b"mpv\0"), "mpv");
        assert_eq!(name_of_class(b""), "a program");
    }
}
