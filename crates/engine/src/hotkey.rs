//! The panic button's key: `yield.hotkey`, heard wherever the keyboard points, does what the button in the tray does.

use std::sync::Arc;

use idlewatt_control::{Check, CheckLevel, Code, ControlError};
use idlewatt_presence::hotkey::{Hotkey, Listening, Standing, listen};

use crate::node::{Node, lock};

/// What notices about the key are filed under.
const SUBJECT: &str = "hotkey";

impl Node {
    /// Listens for the key of the settings, and for another one once that changes. Ends when the node stops.
    pub(crate) async fn keep_hotkey(self: Arc<Self>) {
        let mut config = self.config.subscribe();
        loop {
            let wanted = config.borrow_and_update().settings().hotkey;
            tokio::select! {
                () = self.stop.cancelled() => return,
                // The sender lives as long as the node.
                _ = config.wait_for(|it| it.settings().hotkey != wanted) => {}
                () = self.heed(wanted) => {}
            }
        }
    }

    /// Gives everything back at each press.
    async fn heed(self: &Arc<Self>, wanted: Option<Hotkey>) {
        self.settled(SUBJECT);
        *lock(&self.hotkey) = None;
        let Some(hotkey) = wanted else { return std::future::pending().await };
        let listening: Listening = listen(hotkey, idlewatt_presence::Options::default());
        let mut standing = listening.standing();
        loop {
            let now = standing.borrow_and_update().clone();
            match &now.action {
                Some(action) => self.wants_person(SUBJECT, &unheard(hotkey, &now, action)),
                None => self.settled(SUBJECT),
            }
            *lock(&self.hotkey) = Some(now);
            tokio::select! {
                () = listening.pressed() => if let Err(error) = self.give_everything_back().await {
                    tracing::warn!(what = %error.what, "the hotkey was pressed");
                },
                _ = standing.changed() => {}
            }
        }
    }

    /// Whether the key is heard. What wants a person is told with the other notices.
    pub(crate) fn hotkey_checks(&self) -> Option<Check> {
        let standing = lock(&self.hotkey).clone().filter(|it| it.action.is_none())?;
        let level = if standing.heard { CheckLevel::Good } else { CheckLevel::Note };
        let what = format!("The key that gives the GPU back: {}", standing.says);
        Some(Check { area: SUBJECT.to_owned(), level, what, action: None })
    }
}

fn unheard(hotkey: Hotkey, standing: &Standing, action: &str) -> ControlError {
    ControlError::new(
        Code::BadValue,
        format!("The key {hotkey} does not give your GPU back: {}.", standing.says),
        "The button in the tray and `idlewatt back` do.",
        action,
    )
}
