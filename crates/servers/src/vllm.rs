//! vLLM.
//!
//! Facts this file rests on (vLLM 0.32, `vllm/entrypoints/serve/instrumentator/basic.py`, `…/serve/dev/sleep/api_router.py`,
//! `vllm/v1/metrics/loggers.py`, docs `features/sleep_mode`):
//! - `/version` and `/load` answer without a key, which guards `/v1` alone. `/load` counts only with
//!   `--enable-server-load-tracking`, and says 0 otherwise; `/metrics` always counts `vllm:num_requests_running`.
//! - `/v1/models` tells `max_model_len`; how many requests of that length fit at once follows from the blocks in
//!   `vllm:cache_config_info`, as vLLM itself reports it at its start.
//! - With `VLLM_SERVER_DEV_MODE=1` there are `POST /sleep?level=1`, `POST /wake_up` and `GET /is_sleeping`. Level 1 moves
//!   the weights to the machine's memory. `mode=abort`, the default, ends running requests. Without
//!   `--enable-sleep-mode` it says 200, stops serving, and frees nothing.
//! - Asleep it answers no request until it is woken, and nobody's request wakes it.
//! - `continue_final_message` with `add_generation_prompt: false` continues a trailing message of the assistant's.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::http::{FREEING, LOADING, Site};
use crate::openai::{Listed, artefact};
use crate::request::Allowed;
use crate::{Call, Kind, Model, ModelServer, ServerAnswer, ServerError, UnloadError};

/// More at once is of no use to one host's cap.
const MOST_SLOTS: u64 = 64;

#[derive(Debug)]
pub(crate) struct Vllm {
    site: Site,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Load {
    #[expect(dead_code, reason = "that it is there is the fact")]
    server_load: u32,
}

#[derive(Deserialize)]
struct Sleeping {
    is_sleeping: bool,
}

impl Vllm {
    pub(crate) async fn recognise(site: &Site) -> Result<Option<Self>, ServerError> {
        let version: Option<Version> = site.facts_if_any("/version").await?;
        let load: Option<Load> = site.facts_if_any("/load").await?;
        Ok(version.zip(load).map(|_| Self { site: site.clone() }))
    }

    /// Whether it sleeps; `None` where it has no such thing.
    async fn sleeps(&self) -> Result<Option<bool>, ServerError> {
        let sleeping: Option<Sleeping> = self.site.facts_if_any("/is_sleeping").await?;
        Ok(sleeping.map(|it| it.is_sleeping))
    }
}

/// The sum of a metric over its series, in Prometheus' text.
fn metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// A label of a metric's first series.
fn label<'a>(text: &'a str, name: &str, label: &str) -> Option<&'a str> {
    let series = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{'))?;
    let before = format!("{label}=\"");
    let at = series.find(&before)? + before.len();
    series.get(at..)?.split('"').next()
}

/// How many requests of the whole context fit at once.
fn fits(metrics: &str, context: u32) -> Option<u32> {
    let number = |name| label(metrics, "vllm:cache_config_info", name)?.parse::<u64>().ok();
    let tokens = number("num_gpu_blocks")?.checked_mul(number("block_size")?)?;
    u32::try_from((tokens / u64::from(context.max(1))).clamp(1, MOST_SLOTS)).ok()
}

#[async_trait]
impl ModelServer for Vllm {
    fn kind(&self) -> Kind {
        Kind::Vllm
    }

    fn url(&self) -> &Url {
        self.site.root()
    }

    async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let version: Version = self.site.facts("/version").await?;
        let list: Listed = self.site.facts("/v1/models").await?;
        let metrics = self.site.text("/metrics").await.unwrap_or_default();
        let warm = self.sleeps().await? != Some(true);
        let models = list.cards().into_iter().filter(|card| card.parent.is_none()).map(|card| {
            // An alias is the host's own choice of a name.
            let context = card.context();
            Model {
                artefact: artefact(&card.id, Kind::Vllm, Some(&version.version)),
                slots: context.and_then(|context| fits(&metrics, context)).unwrap_or(1),
                context,
                warm,
                id: card.id,
            }
        });
        Ok(models.collect())
    }

    async fn busy(&self) -> Option<u32> {
        let metrics = self.site.text("/metrics").await.ok()?;
        let waiting = metric(&metrics, "vllm:num_requests_waiting").unwrap_or(0.0);
        let busy = metric(&metrics, "vllm:num_requests_running")? + waiting;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Some(busy as u32)
    }

    async fn holds(&self, _model: &Model) -> Option<bool> {
        self.sleeps().await.ok()?.map(|sleeps| !sleeps)
    }

    fn loads_on_request(&self) -> bool {
        false
    }

    async fn unload(&self, _model: &Model) -> Result<(), UnloadError> {
        match self.sleeps().await? {
            None => Err(UnloadError::Unsupported),
            Some(true) => Ok(()),
            Some(false) => self.site.tell("/sleep?level=1", &Value::Null, FREEING).await?.agreed(),
        }
    }

    async fn call(&self, model: &Model, call: Call<'_>) -> Result<ServerAnswer, ServerError> {
        let allowed = Allowed::continuing(call)?;
        // Asked each time: a request to a sleeping vLLM never ends.
        if self.sleeps().await? == Some(true) {
            self.site.tell("/wake_up", &Value::Null, LOADING).await?;
        }
        self.site.infer(call.endpoint, allowed.write(&model.id, call.max_tokens, allowed.flags())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_at_once_follows_from_its_blocks() {
        let metrics = "# TYPE vllm:cache_config_info gauge\n\
            vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"27848\"} 1.0\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 1.0\n\
            vllm:num_requests_running_total 9.0\n";
        assert_eq!(fits(metrics, 40_960), Some(10));
        assert_eq!((fits(metrics, 128), fits(metrics, 0)), (Some(64), Some(64)));
        assert_eq!(fits("", 4096), None);
        assert_eq!(metric(metrics, "vllm:num_requests_running"), Some(4.0));
        assert_eq!(metric(metrics, "vllm:num_requests_waiting"), None);
    }
}
