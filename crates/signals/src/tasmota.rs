//! Plugs with Tasmota (<https://tasmota.github.io/docs/Commands/>: `Status 8`).

use async_trait::async_trait;
use serde_json::Value;
use url::Url;

use crate::http::Http;
use crate::{Meter, PlugError, Told};

pub(crate) struct Tasmota {
    status: Url,
    channel: u8,
}

impl Tasmota {
    pub(crate) fn new(mut root: Url, channel: u8) -> Self {
        root.set_path("/cm");
        root.set_query(Some("cmnd=Status%208"));
        Self { status: root, channel }
    }
}

#[async_trait]
impl Meter for Tasmota {
    async fn ask(&mut self, http: &Http) -> Result<Told, PlugError> {
        read(&http.get(self.status.clone(), None).await?, self.channel)
    }
}

/// Power in watts and energy in kilowatt-hours: numbers, or lists of them where a plug has several channels.
fn read(status: &Value, channel: u8) -> Result<Told, PlugError> {
    if status.get("WARNING").is_some() {
        return Err(PlugError::Password);
    }
    let energy = status.get("StatusSNS").and_then(|it| it.get("ENERGY"));
    let energy = energy.ok_or_else(|| PlugError::Nothing("no ENERGY: it measures nothing".to_owned()))?;
    let (power, total) = (energy.get("Power"), energy.get("Total"));
    let (power, total) = match power {
        // One total beside several powers is that of all channels together.
        Some(Value::Array(powers)) => {
            let channel = usize::from(channel);
            (powers.get(channel), total.and_then(Value::as_array).and_then(|totals| totals.get(channel)))
        }
        _ => (power.filter(|_| channel == 0), total),
    };
    let watts = power.and_then(Value::as_f64);
    let watts = watts.ok_or_else(|| PlugError::Nothing(format!("no power on channel {channel}")))?;
    Ok(Told { watts: Some(watts), watt_hours: total.and_then(Value::as_f64).map(|it| it * 1e3) })
}
