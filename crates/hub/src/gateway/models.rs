//! `GET /v1/models` and `/v1/models/{model}`: what is offered now, at what price, and how that is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use idlewatt_hub_core::openai::ApiError;
use idlewatt_hub_core::routing::Model;
use serde_json::{Value, json};

use super::authenticate;
use super::error::Refusal;
use crate::hub::{Hub, now};
use crate::store::Consumer;

pub(super) async fn list(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Json<Value>, Refusal> {
    let reader = authenticate(&hub, &headers)?;
    let models: Vec<Value> = entries(&hub, &reader).into_values().collect();
    Ok(Json(json!({ "object": "list", "data": models })))
}

/// OpenAI's `created`: since when this hub offers anything.
fn started(hub: &Hub) -> i64 {
    now().0 / 1000 - i64::try_from(hub.started.elapsed().as_secs()).unwrap_or(0)
}

pub(super) async fn one(
    State(hub): State<Arc<Hub>>,
    Path(wanted): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let reader = authenticate(&hub, &headers)?;
    let models = hub.routing().router.models(Some(&reader.account));
    let meant: Vec<&Model> = models.iter().filter(|model| model.artefact.answers_to(&wanted)).collect();
    if meant.is_empty() {
        return Err(ApiError::model_not_found(&wanted, &[]).into());
    }
    Ok(Json(entry(&wanted, &meant, started(&hub))))
}

/// Every name that may be asked for: each base name (any quantisation), and each with its quantisation.
fn entries(hub: &Hub, reader: &Consumer) -> BTreeMap<String, Value> {
    let started = started(hub);
    let models = hub.routing().router.models(Some(&reader.account));
    let mut by_base: BTreeMap<&str, Vec<&Model>> = BTreeMap::new();
    for model in &models {
        by_base.entry(&model.base).or_default().push(model);
    }
    let bases = by_base.into_iter().map(|(base, models)| (base.to_owned(), entry(base, &models, started)));
    let each = models.iter().map(|model| (model.name.clone(), entry(&model.name, &[model], started)));
    bases.chain(each).collect()
}

fn entry(name: &str, models: &[&Model], started: i64) -> Value {
    let prices = |pick: fn(&Model) -> i64| models.iter().map(move |model| pick(model));
    let artefacts: Vec<_> = models.iter().map(|model| &model.artefact).collect();
    json!({
        "id": name,
        "object": "model",
        "created": started,
        "owned_by": "idlewatt",
        "idlewatt": {
            "price": {
                "min": prices(|model| model.price.0.0).min(),
                "max": prices(|model| model.price.1.0).max(),
                "unit": "micro-credits a million tokens",
            },
            "nodes": models.iter().map(|model| model.nodes).sum::<usize>(),
            "scope": models.iter().map(|model| model.scope).min(),
            "available": models.iter().any(|model| model.available),
            "warm": models.iter().any(|model| model.warm),
            "context": models.iter().map(|model| model.context).max(),
            "capabilities": models.iter().map(|model| model.capabilities).collect::<Vec<_>>(),
            "artefacts": artefacts,
            "verification": "declared",
        },
    })
}
