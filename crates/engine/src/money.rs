//! What energy costs by the host's tariff, and what credits are worth by the host's word.
//!
//! A cost is reckoned when the energy was used and kept with it; what credits are worth is reckoned when it is shown.

use idlewatt_control::{ModelEnergy, Money, RequestRow, Today};
use idlewatt_core::tariff::{self, CreditValue, Currency};
use idlewatt_protocol::{MicroCredits, Millijoules, UnixMillis};
use idlewatt_store::Cost;
use jiff::Timestamp;

use crate::clock;
use crate::config::Settings;
use crate::node::Node;

impl Node {
    /// What energy cost that was used evenly from one moment to another; `None` where it has no price.
    pub(crate) fn cost_of(&self, energy: Millijoules, from: UnixMillis, until: UnixMillis) -> Option<Cost> {
        let config = self.config();
        let [from, until] = [from, until].map(|at| Timestamp::from_millisecond(at.0));
        let cost = config.settings().prices()?.cost(energy, from.ok()?, until.ok()?, &clock::now().zone)?;
        Some(Cost { nanos: cost.nanos, currency: cost.currency.as_str().to_owned() })
    }

    /// Whether tokens earn now what their energy costs, by what the models of this month earned and used. `None` without
    /// a value of a credit, a price and measured tokens.
    pub(crate) fn profitable(&self, models: &[ModelEnergy]) -> Option<bool> {
        let config = self.config();
        let now = clock::now();
        let rate = config.settings().prices()?.rate(now.wall, &now.zone)?;
        let value = config.settings().credit_value.as_ref()?;
        // The tokens of requests that nothing measured take as much as those that something did.
        let of = |it: &ModelEnergy| {
            let tokens = i64::try_from(it.tokens_out).unwrap_or(i64::MAX);
            Some((it.earned_ucr, Millijoules(it.uj_per_token?.saturating_mul(tokens) / 1000)))
        };
        let (earned, energy) = models
            .iter()
            .filter_map(of)
            .reduce(|(earned, energy), more| (earned.saturating_add(more.0), energy.saturating_add(more.1)))
            .filter(|(_, energy)| energy.0 > 0)?;
        tariff::profitable(earned, energy, &rate, value)
    }
}

/// Totals with what they come to in the host's currency.
pub(crate) fn with_money(mut today: Today, settings: &Settings) -> Today {
    let whole = today.cost.as_ref().filter(|_| today.unpriced_mj.is_none());
    (today.gross, today.net) = worth(Some(today.earned_ucr), whole, settings);
    today
}

/// A model's totals with what they come to in the host's currency.
pub(crate) fn model_with_money(mut model: ModelEnergy, settings: &Settings) -> ModelEnergy {
    let whole = model.cost.as_ref().filter(|_| model.unpriced_mj.is_none());
    (model.gross, model.net) = worth(Some(model.earned_ucr), whole, settings);
    model
}

/// A request with what it comes to in the host's currency.
pub(crate) fn row_with_money(mut row: RequestRow, settings: &Settings) -> RequestRow {
    (row.gross, row.net) = worth(row.earned_ucr, row.cost.as_ref(), settings);
    row
}

/// Gross, and net where the cost of all the energy is known in the same currency.
fn worth(
    earned: Option<MicroCredits>,
    cost: Option<&Money>,
    settings: &Settings,
) -> (Option<Money>, Option<Money>) {
    let gross = settings
        .credit_value
        .as_ref()
        .zip(earned)
        .map(|(value, earned): (&CreditValue, _)| value.worth(earned));
    let cost = cost
        .and_then(|it| Some(tariff::Money { micros: it.micros, currency: Currency::read(&it.currency)? }));
    let net = gross.zip(cost).and_then(|(gross, cost)| gross.less(&cost));
    (gross.map(shown), net.map(shown))
}

fn shown(money: tariff::Money) -> Money {
    Money { micros: money.micros, currency: money.currency.as_str().to_owned() }
}
