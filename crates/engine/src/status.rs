//! The whole state as screens show it.

use idlewatt_control::{CONTROL_VERSION, Presence, State, Status};
use idlewatt_core::presence::PresenceReading;
use idlewatt_core::sentence::{self, Scene};

use crate::clock;
use crate::deciding::reason;
use crate::money::with_money;
use crate::node::Node;

impl Node {
    /// The state now.
    pub(crate) async fn status(&self) -> Status {
        let now = clock::now();
        let networks = self.network_views().await;
        let today = self.store.day(&now.day()).await.unwrap_or_default();
        let services = self.services.views(&self.slots);
        let config = self.config();
        let standing = self.standing.borrow().clone();
        let running = *self.slots.shared().borrow();
        let ready = services.iter().filter(|it| it.shared && it.ready);
        let scene = Scene {
            running,
            models: ready.map(|it| it.artefact.model.clone()).collect(),
            networks: self.networks.names(),
            last_request: networks.iter().filter_map(|it| it.last_request).max(),
            power: self.cards.power(),
        };
        let state = standing.state();
        let sentence = match state {
            State::Yielding => self.giving_back.sentence(),
            _ => sentence::state(&standing.decision, &scene, &now),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control: CONTROL_VERSION,
            state,
            sentence,
            since: standing.decision.since,
            reasons: standing.decision.reasons.iter().map(|it| reason(it, &now)).collect(),
            share_now_until: standing.decision.share_now_until,
            presence: match *self.presence.readings().borrow() {
                PresenceReading::Headless => Presence::Headless,
                PresenceReading::Active { .. } => Presence::Here,
                PresenceReading::Idle { last_input } => {
                    let idle = now.monotonic.saturating_duration_since(last_input);
                    let long = idle >= config.settings().policy.idle_after;
                    if long { Presence::Away } else { Presence::Here }
                }
                PresenceReading::Blind => Presence::Blind,
            },
            gpus: self.gpu_views(),
            services,
            networks,
            today: with_money(today, config.settings()),
            awake: self.awake(),
            running,
            last_yield: standing.last_yield,
            attention: self.notices(),
        }
    }
}
