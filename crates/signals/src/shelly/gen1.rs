//! First generation: Plug, Plug S, 1PM, EM, 3EM (<https://shelly-api-docs.shelly.cloud/gen1/>).

use serde_json::Value;

use super::{number, unmetered};
use crate::{PlugError, Told};

pub(super) const STATUS: &str = "/status";

/// `meters` of plugs count in watt-minutes, `emeters` of EM and 3EM in watt-hours.
pub(super) fn read(status: &Value, channel: u8) -> Result<Told, PlugError> {
    let kinds = [("emeters", 1.0), ("meters", 1.0 / 60.0)];
    let found =
        kinds.into_iter().find_map(|(key, scale)| Some((status.get(key)?.get(usize::from(channel))?, scale)));
    let (meter, scale) = found.ok_or_else(|| unmetered(channel))?;
    // A Shelly 1 measures nothing: the power that it shows is what its owner typed in, and it counts no energy.
    let total = number(meter, "total").ok_or_else(|| unmetered(channel))?;
    if meter.get("is_valid").and_then(Value::as_bool) == Some(false) {
        return Err(PlugError::Nothing("itself that its reading is not valid".to_owned()));
    }
    Ok(Told { watts: number(meter, "power"), watt_hours: Some(total * scale) })
}
