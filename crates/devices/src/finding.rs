//! What `doctor` says of a card.

use idlewatt_core::device::{GpuReading, Power};

use crate::{CardError, Finding, Level};

pub(crate) fn of_card(reading: &Result<GpuReading, CardError>) -> Finding {
    let card = match reading {
        Ok(card) => card,
        Err(error) => {
            return Finding::new(Level::Problem, error.to_string())
                .act("Check the card's power, seat and driver; it is looked for again by itself.");
        }
    };
    let gibibytes = card.vram_total.map(|bytes| format!(", {} GiB VRAM", (bytes + (1 << 29)) >> 30));
    let watts = |milliwatts: i64| milliwatts / 1000;
    let limit = card.limit.map(|limit| format!(", limit {} W", watts(limit.0)));
    let range = card.limit_range.map(|it| format!(" (takes {} to {} W)", watts(it.min.0), watts(it.max.0)));
    let what = [gibibytes, limit, range].into_iter().flatten().collect::<String>();
    let what = format!("{} ({}){what}", card.name, card.id);
    if card.asleep {
        return Finding::new(Level::Note, format!("{what}; it sleeps, and is not woken to be looked at"));
    }
    match (card.power, card.energy) {
        (Some(Power { averaged: false, .. }), _) | (_, Some(_)) => Finding::new(Level::Good, what),
        (Some(Power { averaged: true, .. }), None) => {
            Finding::new(Level::Note, format!("{what}; its power is an average over about a second"))
        }
        (None, None) => {
            Finding::new(Level::Note, format!("{what}; it does not tell its power, energy is unknown"))
        }
    }
}
