//! What a request's headers say of who may answer it: `x-idlewatt-scope`, `-region` and `-max-price`.

use std::hash::RandomState;
use std::str::FromStr;

use axum::http::HeaderMap;
use idlewatt_hub_core::openai::{ApiError, Validated};
use idlewatt_hub_core::routing::Wanted;
use idlewatt_protocol::{Price, Region, Scope};

use crate::store::Consumer;

/// What this request wants of whoever answers it. It never reaches further than its key, and as far without a word.
pub(super) fn wanted(
    headers: &HeaderMap,
    asked: &Validated,
    consumer: &Consumer,
    key: &RandomState,
) -> Result<Wanted, ApiError> {
    Ok(Wanted {
        model: asked.model.clone(),
        needs: asked.needs,
        max_price: max_price(headers)?,
        scope: consumer.limits().scope_of(header::<Scope>(
            headers,
            "x-idlewatt-scope",
            "it must be own, circle or public",
        )?),
        region: header::<Region>(
            headers,
            "x-idlewatt-region",
            "it must be lower-case letters, digits and hyphens, from wide to narrow, such as eu or eu-de",
        )?,
        prefix: asked.prefix(key, consumer.account.as_str()),
    })
}

fn max_price(headers: &HeaderMap) -> Result<Option<Price>, ApiError> {
    const NAME: &str = "x-idlewatt-max-price";
    let must = "it must be whole micro-credits a million tokens";
    let price = header::<i64>(headers, NAME, must)?.map(Price);
    match price.filter(|price| !(Price::ZERO..=Price::MAX).contains(price)) {
        Some(_) => Err(ApiError::invalid(NAME, must)),
        None => Ok(price),
    }
}

fn header<T: FromStr>(headers: &HeaderMap, name: &'static str, must: &str) -> Result<Option<T>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let read = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    read.map(Some).ok_or_else(|| ApiError::invalid(name, must))
}
