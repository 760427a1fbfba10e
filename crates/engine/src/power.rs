//! Power as screens show it: each card with what holds it, the sensors, and where the energy of the month went.

use std::sync::Arc;
use std::time::Duration;

use idlewatt_control::{Actuator, Gpu, GpuPower, Limit, LimitKind, MachinePower, Power, Sensor, SensorScope};
use idlewatt_core::device::{self, GpuReading};
use idlewatt_core::governor::{self, Held, NotHardware};
use idlewatt_core::meter::Baselines;
use idlewatt_core::{Now, sentence};
use idlewatt_devices::cap::{CapError, Way};
use idlewatt_devices::refresh;
use idlewatt_protocol::Milliwatts;

use crate::clock;
use crate::config::Settings;
use crate::governing::Ways;
use crate::money::{model_with_money, with_money};
use crate::node::{Node, lock};

/// Bench reports shown.
const BENCHES: u32 = 20;

/// The lowest cap that the governor takes where a card has none of its own.
const LOWEST: Milliwatts = Milliwatts(1000);

/// How long it is watched how often the sensors' figures change.
const WATCHED: Duration = Duration::from_secs(2);

impl Node {
    /// Everything that the power page shows.
    pub(crate) async fn power_page(self: &Arc<Self>) -> Power {
        let config = self.config();
        let settings = config.settings();
        let now = clock::now();
        let day = now.day();
        let month = day.get(..7).unwrap_or_default();
        let models = self.store.models(month).await.unwrap_or_default();
        let profitable = self.profitable(&models);
        let gpus = self.gpu_powers(settings, &now);
        Power {
            sentence: leading(&gpus, self.governs()),
            machine: MachinePower {
                gpus_mw: self.cards.power(),
                wall_mw: self.plugs.wall(),
                cap_mw: settings.machine_cap,
                daily_limit_mj: settings.daily_energy,
            },
            sensors: self.sensors().await,
            gpus,
            today: with_money(self.store.day(&day).await.unwrap_or_default(), settings),
            month: with_money(self.store.month(month).await.unwrap_or_default(), settings),
            models: models.into_iter().map(|it| model_with_money(it, settings)).collect(),
            benches: self.store.benches(BENCHES).await.unwrap_or_default(),
            profitable,
        }
    }

    pub(crate) fn gpu_powers(&self, settings: &Settings, now: &Now) -> Vec<GpuPower> {
        let decided = self.governing.decided().clone();
        let (ways, baselines) = (self.governing.ways(), self.cards.baselines());
        let readings = self.cards.latest();
        let (views, governs) = (self.gpu_views(), self.governs());
        readings
            .iter()
            .zip(views)
            .map(|(it, gpu)| {
                let held = decided.cards.iter().find(|held| held.card == it.id);
                let learned = baselines.get(&it.id).copied().unwrap_or_default();
                let held = held.map(|it| (it, governs));
                gpu_power(it, gpu, held, &ways, settings, learned, now)
            })
            .collect()
    }

    /// The cards as screens show them, each with the lowest limit in force.
    pub(crate) fn gpu_views(&self) -> Vec<Gpu> {
        let decided = self.governing.decided();
        let mut views = self.cards.views();
        // The host's own work is held to nothing but the card's own limit.
        if !self.governs() {
            return views;
        }
        for view in &mut views {
            let held = decided.cards.iter().find(|held| held.card == view.id);
            let cap = held.filter(|it| it.actuator != governor::Actuator::Nobody).and_then(|it| it.cap);
            view.cap_mw = [cap, view.cap_mw].into_iter().flatten().min();
        }
        views
    }

    /// Whether caps hold now: the node shares, or shared requests are still ending.
    fn governs(&self) -> bool {
        self.standing.borrow().accepts() || *self.slots.shared().borrow() > 0
    }

    /// Every power sensor, with its figure now.
    async fn sensors(self: &Arc<Self>) -> Vec<Sensor> {
        let sensors = self.cards.sensors();
        if self.cards.wants_refresh() {
            let (node, sensors) = (Arc::clone(self), Arc::clone(&sensors));
            tokio::task::spawn_blocking(move || {
                node.cards.refreshes(refresh(WATCHED, || lock(&sensors).read()));
            });
        }
        let cards: Vec<_> = self.cards.latest().iter().map(idlewatt_devices::of_card).collect();
        let look = move || {
            let mut sensors = lock(&sensors);
            (sensors.list(), sensors.read_machine())
        };
        let (list, machine) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let periods = self.cards.periods();
        let power = |id: &str| {
            let reading = cards.iter().chain(&machine).find(|it| it.sensor == id)?;
            Some(reading.power?.value)
        };
        list.into_iter()
            .map(|it| Sensor {
                scope: scope(it.scope),
                refresh_ms: periods.get(&it.id).and_then(|it| u32::try_from(it.as_millis()).ok()),
                power_mw: power(&it.id),
                id: it.id,
                name: it.name,
                method: it.method,
                leaves_out: it.leaves_out,
            })
            .chain(self.plugs.sensors())
            .collect()
    }
}

fn gpu_power(
    reading: &GpuReading,
    gpu: Gpu,
    held: Option<(&Held, bool)>,
    ways: &Ways,
    settings: &Settings,
    learned: Baselines,
    now: &Now,
) -> GpuPower {
    let way = ways.get(&reading.id);
    let settable = way.is_some_and(Result::is_ok);
    let (actuator, actuator_text) = held.map_or((Actuator::Nobody, String::new()), |(held, governs)| {
        if governs { holder(reading, held, way) } else { holder_while_sharing(reading, held, way) }
    });
    GpuPower {
        asleep: reading.asleep,
        hot_spot_c: reading.hot_spot_c,
        fan_percent: reading.fan_percent,
        user_cap_mw: settings.cap.of(&reading.id, reading.default_limit),
        // Below the card's own range the governor holds it by other means.
        min_cap_mw: reading.limit_range.filter(|_| settable).map_or(LOWEST, |range| range.min),
        max_cap_mw: reading.limit_range.map(|range| range.max).or(reading.default_limit),
        default_cap_mw: reading.default_limit,
        binding: held.and_then(|(held, _)| limit(held, now)),
        actuator,
        actuator_text,
        idle_mw: learned.idle,
        loaded_mw: learned.loaded,
        gpu,
    }
}

fn limit(held: &Held, now: &Now) -> Option<Limit> {
    use governor::Limit as By;
    let (by, cap_mw) = (held.binding?, held.cap?);
    let kind = match by {
        By::UserCap => LimitKind::UserCap,
        By::MachineCap { .. } => LimitKind::MachineCap,
        By::Temperature { .. } => LimitKind::Temperature,
        By::HotSpot { .. } => LimitKind::HotSpot,
        By::Fan { .. } => LimitKind::Fan,
        By::DailyEnergy { .. } => LimitKind::DailyEnergy,
        By::Card => LimitKind::Card,
    };
    Some(Limit { kind, cap_mw, text: sentence::limit(by, cap_mw, now) })
}

/// Who will hold the cap once something is shared. Until then the card has its own limit.
fn holder_while_sharing(
    reading: &GpuReading,
    held: &Held,
    way: Option<&Result<Way, CapError>>,
) -> (Actuator, String) {
    let nothing = "Nothing is shared now, so the card keeps its own limit.";
    let below = matches!(held.not_hardware, Some(NotHardware::BelowRange { .. }));
    match way {
        Some(Ok(_)) if held.cap.is_some() && !below => {
            (Actuator::Hardware, format!("{nothing} While you share, it holds the cap itself."))
        }
        _ => {
            let (actuator, text) = holder(reading, held, way);
            (actuator, format!("{nothing} While you share: {text}"))
        }
    }
}

/// Who holds the cap, why nobody better does, and what a person can do about that.
fn holder(reading: &GpuReading, held: &Held, way: Option<&Result<Way, CapError>>) -> (Actuator, String) {
    let actuator = actuator(held.actuator);
    let who = match (held.actuator, way) {
        (governor::Actuator::Hardware, Some(Ok(Way::Helper))) => {
            "The card itself holds it, set by idlewatt-helper."
        }
        (governor::Actuator::Hardware, _) => "The card itself holds it.",
        (governor::Actuator::DutyCycle, _) => "Your own model server is stopped and continued to hold it.",
        (governor::Actuator::Admission, _) => "Fewer and later requests hold it.",
        (governor::Actuator::Nobody, _) if reading.asleep => {
            "The card sleeps: nothing is drawn that could be held."
        }
        (governor::Actuator::Nobody, _) if held.cap.is_none() => {
            "There is no cap: this card does not tell what it was made for. Set one to have it held."
        }
        (governor::Actuator::Nobody, _) => "Nobody can hold it.",
    };
    let why = match (held.not_hardware, way) {
        (None, _) => return (actuator, who.to_owned()),
        (Some(NotHardware::NotSettable), Some(Err(error))) => {
            let remedy = error.remedy().map(|it| format!(" {it}")).unwrap_or_default();
            format!("The card does not hold it itself: {error}.{remedy}")
        }
        (Some(NotHardware::NotSettable), _) => {
            "Whether the card could hold it itself is not known yet.".to_owned()
        }
        (Some(NotHardware::BelowRange { min }), _) => {
            format!("The card itself takes no limit below {} W.", sentence::whole_watts(min))
        }
        (Some(NotHardware::NotInForce), _) => "The card was told, and does not show it yet.".to_owned(),
    };
    (actuator, format!("{who} {why}"))
}

/// What the page leads with.
fn leading(gpus: &[GpuPower], governs: bool) -> String {
    let watts = |power: Milliwatts| sentence::whole_watts(power);
    let drawn: Option<Milliwatts> =
        gpus.iter().filter_map(|it| it.gpu.power_mw).reduce(|sum, more| sum + more);
    match (gpus, drawn) {
        ([], _) => "No GPU was found, so there is no power to show and none to hold.".to_owned(),
        ([only], None) if only.asleep => "The GPU sleeps. It is not woken to be looked at.".to_owned(),
        (_, None) => "No GPU here tells its power, so energy is unknown.".to_owned(),
        ([only], Some(drawn)) => match &only.binding {
            Some(limit) if !governs => format!(
                "Drawing {} W. Nothing is shared now; sharing may draw at most {} W.",
                watts(drawn),
                watts(limit.cap_mw)
            ),
            Some(limit) => {
                format!("Drawing {} W of at most {} W. {}", watts(drawn), watts(limit.cap_mw), limit.text)
            }
            None => format!("Drawing {} W. No cap is set.", watts(drawn)),
        },
        (several, Some(drawn)) => {
            let caps: Option<Milliwatts> = several.iter().map(|it| Some(it.binding.as_ref()?.cap_mw)).sum();
            match caps {
                Some(caps) => {
                    format!("{} GPUs draw {} W of at most {} W.", several.len(), watts(drawn), watts(caps))
                }
                None => format!("{} GPUs draw {} W.", several.len(), watts(drawn)),
            }
        }
    }
}

const fn actuator(it: governor::Actuator) -> Actuator {
    match it {
        governor::Actuator::Hardware => Actuator::Hardware,
        governor::Actuator::DutyCycle => Actuator::DutyCycle,
        governor::Actuator::Admission => Actuator::Admission,
        governor::Actuator::Nobody => Actuator::Nobody,
    }
}

const fn scope(it: device::Scope) -> SensorScope {
    match it {
        device::Scope::Board => SensorScope::Board,
        device::Scope::Package => SensorScope::Package,
        device::Scope::Rail => SensorScope::Rail,
        device::Scope::Machine => SensorScope::Machine,
        device::Scope::Wall => SensorScope::Wall,
    }
}
