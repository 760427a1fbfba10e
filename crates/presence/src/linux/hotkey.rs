//! One key combination on Linux: grabbed from an X server, or asked of a Wayland desktop through its portal.

use std::convert::Infallible;
use std::future::pending;

use super::sockets::Socket;
use super::{Desk, Surroundings, at_desk, portal, sockets, x11};
use crate::hotkey::{Bell, Hotkey};

/// Rings when `hotkey` is pressed in whatever session is this account's.
pub(super) async fn follow(hotkey: Hotkey, surroundings: &Surroundings, bell: &Bell) -> Infallible {
    at_desk(surroundings, |_| {}, |desk, _| attend(desk, hotkey, surroundings, bell)).await
}

async fn attend(desk: Desk, hotkey: Hotkey, surroundings: &Surroundings, bell: &Bell) -> Infallible {
    match desk {
        Desk::Nobody => bell.unheard("there is no graphical session in which to press it", None),
        Desk::OutOfSight(why) => bell.unheard(why, None),
        Desk::X11 { display } => return on_x11(&display, hotkey, bell).await,
        Desk::Wayland { .. } => portal::follow(surroundings.session_bus.as_deref(), hotkey, bell).await,
    }
    pending().await
}

async fn on_x11(display: &str, hotkey: Hotkey, bell: &Bell) -> Infallible {
    let socket = sockets::of_display(display);
    // Before the first attempt, so that a server that starts during it is not missed.
    let mut socket = socket.as_deref().map(Socket::watch);
    loop {
        let lost = x11::key::follow(display, hotkey, bell).await;
        bell.unheard(format!("X display {display}: {lost}"), None);
        match &mut socket {
            Some(socket) => socket.appeared().await,
            None => pending().await,
        }
    }
}
