//! Joules, watts and money for people, each with its unit and how it is known.

use idlewatt_control::{Money, Today};
use idlewatt_protocol::{Label, Millijoules, Milliwatts};

/// `12.5 W`, `280 W`.
pub(super) fn watts(power: Milliwatts) -> String {
    let watts = power.to_main_unit();
    if watts.abs() < 100.0 { format!("{watts:.1} W") } else { format!("{watts:.0} W") }
}

/// `0.42 J`, `980 J`, `1.25 Wh`, `3.4 kWh`.
pub(super) fn joules(energy: Millijoules) -> String {
    let joules = energy.to_main_unit();
    match joules.abs() {
        small if small < 10.0 => format!("{joules:.2} J"),
        few if few < 3600.0 => format!("{joules:.0} J"),
        many if many < 3.6e6 => format!("{:.2} Wh", joules / 3600.0),
        _ => format!("{:.2} kWh", joules / 3.6e6),
    }
}

pub(super) fn label(label: Label) -> &'static str {
    match label {
        Label::Measured => "measured",
        Label::Estimated => "estimated",
        Label::Unknown => "unknown",
    }
}

/// `0.0312 EUR`: four decimals, because a night of sharing is cents.
pub(super) fn money(money: &Money) -> String {
    let sign = if money.micros < 0 { "-" } else { "" };
    let tenths = money.micros.unsigned_abs().div_ceil(100);
    format!("{sign}{}.{:04} {}", tenths / 10_000, tenths % 10_000, money.currency)
}

/// The day's energy and what it came to, as lines.
pub(super) fn lines(today: &Today) -> Vec<(&'static str, String)> {
    let split = &today.energy_split;
    let energy = match today.energy_mj {
        None => "unknown: nothing here measures it".to_owned(),
        Some(energy) => format!(
            "{} {}: answering {}, waiting {}, awake {}",
            joules(energy),
            label(today.energy_label),
            joules(split.answering),
            joules(split.waiting),
            joules(split.awake)
        ),
    };
    let known = |amount: &Option<Money>, otherwise: &str| amount.as_ref().map_or(otherwise.to_owned(), money);
    let gross = known(&today.gross, "no value set for a credit");
    let cost = known(&today.cost, if today.energy_mj.is_some() { "no energy price set" } else { "unknown" });
    let unpriced = today.unpriced_mj.filter(|_| today.cost.is_some());
    let cost =
        cost + &unpriced.map_or_else(String::new, |it| format!(" without {} that had no price", joules(it)));
    let net = known(&today.net, "not known");
    vec![("energy", energy), ("money", format!("gross {gross} · energy cost {cost} · net {net}"))]
}
