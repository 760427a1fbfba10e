//! Shelly plugs and meters of every generation.
//!
//! `/shelly` answers without a password and tells the generation: those from the second on give a number as `gen`
//! (<https://shelly-api-docs.shelly.cloud/gen2/General/Introduction>), the first one gives none
//! (<https://shelly-api-docs.shelly.cloud/gen1/#shelly>).

mod gen1;
mod gen2;

use async_trait::async_trait;
use serde_json::Value;
use url::Url;

use crate::http::Http;
use crate::{Meter, PlugError, Told};

pub(crate) struct Shelly {
    root: Url,
    channel: u8,
    /// Where it tells everything, and how to read that; `None` until it was asked who it is.
    speaks: Option<Speaks>,
}

#[derive(Clone, Copy)]
struct Speaks {
    status: &'static str,
    read: fn(&Value, u8) -> Result<Told, PlugError>,
}

impl Shelly {
    pub(crate) fn new(root: Url, channel: u8) -> Self {
        Self { root, channel, speaks: None }
    }

    async fn page(&self, http: &Http, path: &str) -> Result<Value, PlugError> {
        let mut url = self.root.clone();
        url.set_path(path);
        http.get(url, None).await
    }

    async fn who(&self, http: &Http) -> Result<Speaks, PlugError> {
        let who = self.page(http, "/shelly").await?;
        if who.get("gen").and_then(Value::as_u64) >= Some(2) {
            Ok(Speaks { status: gen2::STATUS, read: gen2::read })
        } else if who.get("type").is_some_and(Value::is_string) {
            Ok(Speaks { status: gen1::STATUS, read: gen1::read })
        } else {
            Err(PlugError::Nothing("nothing that a Shelly tells of itself".to_owned()))
        }
    }
}

#[async_trait]
impl Meter for Shelly {
    async fn ask(&mut self, http: &Http) -> Result<Told, PlugError> {
        let speaks = match self.speaks {
            Some(speaks) => speaks,
            None => self.who(http).await?,
        };
        let status = self.page(http, speaks.status).await;
        // At this address there may be another one after a failure.
        self.speaks = status.is_ok().then_some(speaks);
        (speaks.read)(&status?, self.channel)
    }
}

fn number(value: &Value, key: &str) -> Option<f64> {
    value.get(key).and_then(Value::as_f64)
}

fn unmetered(channel: u8) -> PlugError {
    PlugError::Nothing(format!(
        "no power on channel {channel}: it has no such channel, or measures nothing there"
    ))
}
