//! The power limits of a sweep: which, and that each card gets its own one back.

use std::time::Duration;

use idlewatt_devices::cap::{CapError, Caps, CardCap};
use idlewatt_engine::config::Settings;
use idlewatt_engine::home::Home;
use idlewatt_protocol::Milliwatts;
use tokio::time::{Instant, sleep};

use crate::exit::{Exit, Failure};

/// Parts of the limit that a card was made for, percent.
const USUAL: [i64; 5] = [100, 85, 70, 60, 50];

/// A paused engine lets its cards go within a moment.
const LET_GO: Duration = Duration::from_secs(5);

/// Cards whose limits are changed; dropping it gives back what [`end`](Self::end) did not.
pub(super) struct Sweep {
    caps: Caps,
    cards: Vec<String>,
    /// Each limit in turn, the highest first.
    pub(super) limits: Vec<Milliwatts>,
}

impl Sweep {
    /// Checks that every limit can be set on every card, and sets none.
    ///
    /// # Errors
    /// When there is no card, a card takes no limit from here, or a limit is outside a card's range.
    pub(super) async fn plan(
        home: &Home,
        settings: &Settings,
        cards: &[String],
        wanted: &[Milliwatts],
    ) -> Result<Self, Failure> {
        if cards.is_empty() {
            return Err(cannot(
                "The model runs on no card whose limit could be set.",
                "Measure without `--cap-sweep`.",
            ));
        }
        home.prepare()?;
        let mut caps = Caps::new(&settings.cap_places(home.data.clone()));
        let begun = Instant::now();
        let found = loop {
            let found: Vec<CardCap> =
                caps.cards().into_iter().filter(|it| cards.contains(&it.card.id)).collect();
            let taken = found.iter().any(|it| matches!(it.way, Err(CapError::Taken { .. })));
            if !taken || begun.elapsed() > LET_GO {
                break found;
            }
            sleep(Duration::from_millis(100)).await;
        };
        if found.len() < cards.len() {
            return Err(cannot(
                "A card that the model runs on has no limit to set.",
                "Measure without `--cap-sweep`.",
            ));
        }
        for card in &found {
            if let Err(error) = &card.way {
                return Err(refused(&card.card.name, error));
            }
        }
        let limits = if wanted.is_empty() { usual(&found) } else { highest_first(wanted.to_vec()) };
        for limit in &limits {
            for card in &found {
                let range = card.card.range();
                if let Some(range) = range.filter(|it| *limit < it.min || *limit > it.max) {
                    let (asked_mw, min_mw, max_mw) = (*limit, range.min, range.max);
                    return Err(refused(&card.card.name, &CapError::OutOfRange { asked_mw, min_mw, max_mw }));
                }
            }
        }
        Ok(Self { caps, cards: cards.to_vec(), limits })
    }

    /// Sets every card's limit.
    ///
    /// # Errors
    /// When a card refuses.
    pub(super) fn set(&mut self, limit: Milliwatts) -> Result<(), Failure> {
        for card in &self.cards {
            self.caps.set(card, limit).map_err(|error| refused(card, &error))?;
        }
        Ok(())
    }

    /// Gives every card its own limit back.
    ///
    /// # Errors
    /// When a card does not take it now.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.caps.restore_all().map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("A card did not take its own limit back: {error}."),
                "It keeps to the last limit of the sweep for now.",
                "It is tried again at the next start of the engine or the helper; `idlewatt doctor` shows the limit.",
            )
        })
    }
}

/// Parts of what the cards were made for, within what all of them take.
fn usual(cards: &[CardCap]) -> Vec<Milliwatts> {
    let ranges = || cards.iter().filter_map(|it| it.card.range());
    let least = ranges().map(|it| it.min).max().unwrap_or_default();
    let most = ranges().map(|it| it.max).min().unwrap_or_default();
    let made_for = cards.iter().filter_map(|it| it.card.default_mw).min().unwrap_or(most).min(most);
    // Whole watts: what a person would set.
    let part = |percent: i64| Milliwatts((made_for.0 * percent / 100_000) * 1000).max(least);
    highest_first(USUAL.map(part).to_vec())
}

fn highest_first(mut limits: Vec<Milliwatts>) -> Vec<Milliwatts> {
    limits.sort_unstable_by(|a, b| b.cmp(a));
    limits.dedup();
    limits
}

fn cannot(what: &str, action: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        what,
        "A sweep sets limits and measures at each. Nothing was measured.",
        action,
    )
}

fn refused(card: &str, error: &CapError) -> Failure {
    let action = error.remedy().unwrap_or("Measure without `--cap-sweep`.");
    cannot(&format!("The limit of {card} cannot be set: {error}."), action)
}

#[cfg(test)]
mod tests {
    use super::*;
    use idlewatt_devices::cap::{CardLimit, Way};

    fn card(min: i64, default: i64, max: i64) -> CardCap {
        let watts = |watts: i64| Some(Milliwatts(watts * 1000));
        CardCap {
            card: CardLimit {
                id: "a".into(),
                name: "a".into(),
                limit_mw: watts(default),
                default_mw: watts(default),
                min_mw: watts(min),
                max_mw: watts(max),
                asleep: false,
            },
            way: Ok(Way::Direct),
        }
    }

    #[test]
    fn usual_limits_are_parts_of_what_every_card_takes() {
        let watts = |cards: &[CardCap]| usual(cards).iter().map(|it| it.0 / 1000).collect::<Vec<_>>();
        assert_eq!(watts(&[card(100, 450, 600)]), [450, 382, 315, 270, 225]);
        assert_eq!(watts(&[card(250, 450, 450)]), [450, 382, 315, 270, 250]);
        assert_eq!(watts(&[card(100, 450, 600), card(100, 200, 220)]), [200, 170, 140, 120, 100]);
    }
}
