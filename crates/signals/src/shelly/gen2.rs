//! Second generation and later: Plus, Pro, Gen3, Gen4
//! (<https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/Switch>, `PM1`, `EM1`, `EM`).
//!
//! The whole status is one page, and names its components: so a plug, a bare meter and an energy meter are told apart
//! without knowing products.

use serde_json::Value;

use super::{number, unmetered};
use crate::{PlugError, Told};

pub(super) const STATUS: &str = "/rpc/Shelly.GetStatus";

/// Everything counts in watt-hours. The channels of a three-phase meter are its phases.
pub(super) fn read(status: &Value, channel: u8) -> Result<Told, PlugError> {
    let component = |kind: &str, number: u8| status.get(format!("{kind}:{number}"));
    let plug = ["switch", "pm1"].iter().find_map(|kind| component(kind, channel)).map(|it| Told {
        watts: number(it, "apower"),
        watt_hours: it.get("aenergy").and_then(|it| number(it, "total")),
    });
    let clamp = || {
        let counted = component("em1data", channel).and_then(|it| number(it, "total_act_energy"));
        component("em1", channel).map(|it| Told { watts: number(it, "act_power"), watt_hours: counted })
    };
    let phase = || {
        let phase = ["a", "b", "c"].get(usize::from(channel))?;
        let counted = component("emdata", 0).and_then(|it| number(it, &format!("{phase}_total_act_energy")));
        let watts = number(component("em", 0)?, &format!("{phase}_act_power"));
        Some(Told { watts, watt_hours: counted })
    };
    let told = plug.or_else(clamp).or_else(phase).filter(|told| told.watts.is_some());
    told.ok_or_else(|| unmetered(channel))
}
