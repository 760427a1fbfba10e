//! What was found on this machine, what is missing, and what to do about it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use idlewatt_control::{Actuator, Check, CheckLevel, Doctor, NetworkState};
use idlewatt_core::device::{Scope, Sensor};
use idlewatt_core::presence::PresenceReading;
use idlewatt_core::sentence;
use idlewatt_devices::{Finding, Level, Machine, refresh};

use crate::clock;
use crate::node::{Node, lock};

/// How long it is watched how often the sensors' figures change, if nobody did before.
const WATCHED: Duration = Duration::from_secs(1);

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
            put("gpu", level(finding.level), finding.what, finding.action);
        }
        for Check { area, level, what, action } in self.sensor_checks().await {
            put(&area, level, what, action);
        }
        for (level, what) in self.holders() {
            put("power", level, what, None);
        }

        for (level, what) in self.plugs.findings() {
            put("power", level, what, None);
        }

        let sight = self.presence.sight();
        let level = if sight.action.is_some() { Warning } else { Good };
        let what = format!("{}{}", sight.source, reading(sight.reading, Instant::now()));
        put("presence", level, what, sight.action.clone());
        for unseen in sight.unseen {
            put("presence", Note, format!("Not seen: {unseen}"), None);
        }
        for source in self.presence.sources() {
            let level = if source.heard { Good } else { Note };
            put("presence", level, format!("{}: {}", source.name, source.says), None);
        }

        for (told, what) in self.others_sight() {
            put("presence", if told { Good } else { Note }, what, None);
        }

        if let Some(Check { area, level, what, action }) = self.hotkey_checks() {
            put(&area, level, what, action);
        }

        for Check { area, level, what, action } in self.machine_checks() {
            put(&area, level, what, action);
        }

        let services = self.services.views(&self.slots);
        if services.is_empty() && lock(&self.found).iter().all(|it| it.server.is_none()) {
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

        for Check { area, level, what, action } in self.own_server_checks(services.is_empty()).await {
            put(&area, level, what, action);
        }

        for Check { area, level, what, action } in self.server_checks().await {
            put(&area, level, what, action);
        }

        for (at_once, what) in self.own_use_sight() {
            let action = "`idlewatt endpoint` shows an address at which you go first everywhere.";
            put("servers", if at_once { Good } else { Note }, what, (!at_once).then(|| action.to_owned()));
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

    /// Each power sensor with what it covers and how well, and those that may not be read.
    async fn sensor_checks(self: &Arc<Self>) -> Vec<Check> {
        let node = Arc::clone(self);
        let look = move || {
            let sensors = node.cards.sensors();
            if node.cards.wants_refresh() {
                node.cards.refreshes(refresh(WATCHED, || lock(&sensors).read()));
            }
            let mut sensors = lock(&sensors);
            (sensors.list(), sensors.missing())
        };
        let (list, missing) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let periods = self.cards.periods();
        let check = |level, what, action| Check { area: "sensor".to_owned(), level, what, action };
        let seen = list.iter().map(|it| check(CheckLevel::Good, told(it, periods.get(&it.id)), None));
        let unseen =
            missing.into_iter().map(|Finding { level: it, what, action }| check(level(it), what, action));
        seen.chain(unseen).collect()
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

fn level(level: Level) -> CheckLevel {
    match level {
        Level::Good => CheckLevel::Good,
        Level::Note => CheckLevel::Note,
        Level::Warning => CheckLevel::Warning,
        Level::Problem => CheckLevel::Problem,
    }
}

fn told(sensor: &Sensor, period: Option<&Duration>) -> String {
    let scope = match sensor.scope {
        Scope::Board => "the whole card",
        Scope::Package => "the chip",
        Scope::Rail => "one supply line",
        Scope::Machine => "the whole machine",
        Scope::Wall => "at the wall",
    };
    let refresh = match period {
        Some(period) => format!("changes every {} ms", period.as_millis().max(1)),
        None => "did not change often enough to say how often".to_owned(),
    };
    let leaves_out = sensor.leaves_out.as_ref().map(|it| format!("; leaves out {it}"));
    let Sensor { name, id, method, .. } = sensor;
    format!("{name} ({id}): {scope}; {method}; {refresh}{}", leaves_out.unwrap_or_default())
}

/// What a source of input says now, to follow its name; nothing where the name says it all.
fn reading(reading: PresenceReading, now: Instant) -> String {
    match reading {
        PresenceReading::Active { .. } => ": somebody is here".to_owned(),
        PresenceReading::Idle { last_input } => {
            match now.saturating_duration_since(last_input).as_secs() / 60 {
                0 => ": last input within a minute".to_owned(),
                minutes => format!(": last input {minutes} min ago"),
            }
        }
        PresenceReading::Headless | PresenceReading::Blind => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_told_with_scope_method_refresh_and_what_it_leaves_out() {
        let mut sensor = Sensor {
            id: "powercap:intel-rapl:0".into(),
            name: "Processor 0".into(),
            scope: Scope::Package,
            method: "powercap: energy counter".into(),
            leaves_out: Some("memory".into()),
        };
        assert_eq!(
            told(&sensor, Some(&Duration::from_millis(20))),
            "Processor 0 (powercap:intel-rapl:0): the chip; powercap: energy counter; changes every 20 ms; leaves out memory"
        );
        sensor.leaves_out = None;
        assert!(told(&sensor, None).ends_with("did not change often enough to say how often"));
    }

    #[test]
    fn the_source_of_input_comes_with_its_reading() {
        let input = Instant::now();
        let idle =
            |secs| reading(PresenceReading::Idle { last_input: input }, input + Duration::from_secs(secs));
        assert_eq!(idle(20), ": last input within a minute");
        assert_eq!(idle(12 * 60), ": last input 12 min ago");
        assert_eq!(reading(PresenceReading::Active { since: input }, input), ": somebody is here");
        assert_eq!(reading(PresenceReading::Headless, input), "");
    }
}
