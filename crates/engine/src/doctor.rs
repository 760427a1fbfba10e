//! What was found on this machine, what is missing, and what to do about it.

use idlewatt_control::{Actuator, Check, CheckLevel, Doctor, NetworkState};
use idlewatt_core::sentence;
use idlewatt_devices::{Level, Machine};

use crate::clock;
use crate::node::Node;

impl Node {
    /// Looks at everything once.
    pub(crate) async fn doctor(self: &std::sync::Arc<Self>) -> Doctor {
        self.look_now().await;
        let mut checks = Vec::new();
        let mut put = |area: &str, level: CheckLevel, what: String, action: Option<String>| {
            checks.push(Check { area: area.to_owned(), level, what, action });
        };
        use CheckLevel::{Good, Note, Problem, Warning};

        if let Some(machine) = Machine::look() {
            put("machine", Good, machine.to_string(), None);
        }
        for finding in self.cards.findings().await {
            let level = match finding.level {
                Level::Good => Good,
                Level::Note => Note,
                Level::Warning => Warning,
                Level::Problem => Problem,
            };
            put("gpu", level, finding.what, finding.action);
        }
        for (level, what) in self.holders() {
            put("power", level, what, None);
        }

        let sight = self.presence.sight();
        let level = if sight.action.is_some() { Warning } else { Good };
        put("presence", level, sight.source.clone(), sight.action.clone());
        for unseen in sight.unseen {
            put("presence", Note, format!("Not seen: {unseen}"), None);
        }

        let services = self.services.views(&self.slots);
        if services.is_empty() {
            let action =
                "Start Ollama or llama.cpp, or name a server: `idlewatt config set servers.urls URL`.";
            put("servers", Note, "No model server was found.".to_owned(), Some(action.to_owned()));
        }
        for it in &services {
            let shared = if it.shared { "shared" } else { "not shared" };
            let what = format!("{} on {}: {shared}", it.model, it.server);
            match &it.problem {
                Some(problem) => put("servers", Warning, format!("{what}; {problem}"), None),
                None if it.shared => put("servers", Good, what, None),
                None => {
                    put(
                        "servers",
                        Note,
                        what,
                        Some(format!("To share it: `idlewatt share {} on`.", it.model)),
                    );
                }
            }
        }

        let networks = self.network_views().await;
        if networks.is_empty() {
            let action = "`idlewatt hub start` makes one of your own; `idlewatt join INVITE` enters another.";
            put("networks", Note, "No network is joined.".to_owned(), Some(action.to_owned()));
        }
        for it in networks {
            let (level, state) = match it.state {
                NetworkState::Connected => (Good, "connected"),
                NetworkState::Connecting => (Note, "connecting"),
                NetworkState::Waiting => (Warning, "not reached, trying again"),
                NetworkState::Refused => (Problem, "refused"),
            };
            let why = it.reason.map_or_else(String::new, |why| format!(": {why}"));
            put("networks", level, format!("{} ({}) {state}{why}", it.name, it.url), None);
        }

        let known = self.identity.borrow().clone();
        match known {
            Some(known) if known.in_file => put(
                "keys",
                Note,
                "The node's key is in a file that only this user can read, not in a keyring.".to_owned(),
                None,
            ),
            Some(_) => put("keys", Good, "The node's key is in the keyring.".to_owned(), None),
            None => put("keys", Problem, "The node's key was not given by the keyring yet.".to_owned(), None),
        }
        let config = self.config();
        put("config", Good, format!("{}", config.path().display()), None);
        for key in config.unknown() {
            put("config", Warning, format!("Unknown setting {key}, ignored."), None);
        }
        for notice in self.notices() {
            put("attention", Problem, format!("{} {}", notice.what, notice.why), Some(notice.action));
        }
        Doctor { version: env!("CARGO_PKG_VERSION").to_owned(), checks }
    }

    /// Who holds each card's cap, and how somebody better could.
    fn holders(&self) -> Vec<(CheckLevel, String)> {
        let config = self.config();
        self.gpu_powers(config.settings(), &clock::now())
            .into_iter()
            .filter(|it| !it.actuator_text.is_empty())
            .map(|it| {
                let level = match it.actuator {
                    Actuator::Hardware => CheckLevel::Good,
                    Actuator::DutyCycle | Actuator::Admission => CheckLevel::Note,
                    Actuator::Nobody if it.asleep => CheckLevel::Note,
                    Actuator::Nobody => CheckLevel::Warning,
                };
                let cap = it.binding.map_or_else(String::new, |limit| {
                    format!(" at most {} W.", sentence::whole_watts(limit.cap_mw))
                });
                (level, format!("{}:{cap} {}", it.gpu.name, it.actuator_text))
            })
            .collect()
    }
}
