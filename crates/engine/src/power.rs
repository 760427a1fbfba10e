//! Power as screens show it: each card with what holds it, the sensors, and where the energy of the month went.

use idlewatt_control::{Actuator, GpuPower, MachinePower, Power};
use idlewatt_protocol::Milliwatts;

use crate::clock;
use crate::node::Node;
use crate::status::with_money;

impl Node {
    /// Everything that the power page shows.
    pub(crate) async fn power_page(&self) -> Power {
        let config = self.config();
        let settings = config.settings();
        let day = self.store.day(&clock::now().day()).await.unwrap_or_default();
        let readings = self.cards.latest();
        let views = self.cards.views();
        let gpus = readings.iter().zip(views).map(|(it, gpu)| GpuPower {
            asleep: it.asleep,
            hot_spot_c: it.hot_spot_c,
            fan_percent: it.fan_percent,
            user_cap_mw: settings.cap.of(&it.id, it.default_limit),
            min_cap_mw: it.limit_range.map_or(Milliwatts(1000), |range| range.min),
            max_cap_mw: it.limit_range.map(|range| range.max).or(it.default_limit),
            default_cap_mw: it.default_limit,
            binding: None,
            actuator: Actuator::Nobody,
            actuator_text: String::new(),
            idle_mw: None,
            loaded_mw: None,
            gpu,
        });
        Power {
            sentence: String::new(),
            gpus: gpus.collect(),
            machine: MachinePower {
                gpus_mw: self.cards.power(),
                wall_mw: None,
                cap_mw: settings.machine_cap,
                daily_limit_mj: None,
            },
            sensors: Vec::new(),
            today: with_money(day.clone(), settings),
            month: with_money(day, settings),
            models: Vec::new(),
            benches: Vec::new(),
            profitable: None,
        }
    }
}
