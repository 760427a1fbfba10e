//! What a command took, for people.

use super::energy::watts;
use super::{columns, grouped};
use crate::measure::{Measured, Report};
use idlewatt_protocol::{Millijoules, Milliwatts};

/// The report of `idlewatt measure`: a line a sensor, what each leaves out, and what was not seen.
pub(crate) fn measured(report: &Report) -> String {
    let ended = match report.exit_code {
        0 => String::new(),
        code @ 129.. => format!(", ended by signal {}", code - 128),
        code => format!(", exit code {code}"),
    };
    let mut out = format!("\nidlewatt: {}{ended}\n", time(report.seconds));
    if report.sensors.is_empty() {
        out.push_str("No power sensor can be read here, so nothing was measured.\n");
    }
    out.push_str(&columns(&report.sensors.iter().map(row).collect::<Vec<_>>()));
    for sensor in &report.sensors {
        let leaves_out =
            sensor.leaves_out.as_ref().map(|it| format!("; leaves out {it}")).unwrap_or_default();
        out.push_str(&format!("  {}: {}{leaves_out}\n", sensor.name, sensor.method));
    }
    for missing in &report.missing {
        out.push_str(&format!("not seen: {missing}\n"));
    }
    out
}

fn row(it: &Measured) -> Vec<String> {
    let error = it.error_mj.map(|error| format!(" ± {}", joules(error))).unwrap_or_default();
    vec![
        format!("{} ({})", it.name, it.scope),
        format!("{}{error} J", joules(it.energy_mj)),
        watt_hours(it.energy_mj),
        format!("mean {}", watts(Milliwatts(it.mean_mw))),
        format!("peak {}", watts(Milliwatts(it.peak_mw))),
        it.label.to_owned(),
    ]
}

/// Whole joules from ten on: no sensor knows more.
fn joules(mj: i64) -> String {
    match mj.unsigned_abs() {
        few if few < 10_000 => format!("{:.2}", Millijoules(mj).to_main_unit()),
        many => grouped((many + 500) / 1000),
    }
}

/// Always in watt-hours, beside the joules: what an electricity bill counts.
fn watt_hours(mj: i64) -> String {
    let hours = Millijoules(mj).to_main_unit() / 3600.0;
    if hours < 1.0 { format!("{hours:.4} Wh") } else { format!("{hours:.2} Wh") }
}

fn time(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{seconds:.2} s")
    } else {
        format!("{:.0} min {:.1} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}
