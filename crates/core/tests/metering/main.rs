//! The meter against the truth of simulated cards.
//!
//! `IDLEWATT_STRICT` asks for the full count of seeds, as `script/show` does; `IDLEWATT_FIRST_SEED` for other ones than
//! those that constants were chosen on.

#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "helpers of tests fail as tests do; comparisons are within parts of a percent"
)]

mod attribution;
mod conservation;
mod energy;
mod rig;

fn is_strict() -> bool {
    std::env::var_os("IDLEWATT_STRICT").is_some()
}

/// Few seeds while building, all of them for a claim.
fn seeds(few: u64, all: u64) -> std::ops::Range<u64> {
    let first = std::env::var("IDLEWATT_FIRST_SEED").map_or(0, |it| it.parse().unwrap());
    first..first + if is_strict() { all } else { few }
}

/// Errors of many runs, as parts.
#[derive(Default)]
struct Errors(Vec<f64>);

impl Errors {
    fn add(&mut self, measured: f64, truth: f64) {
        self.0.push((measured - truth) / truth);
    }

    /// What this part of all errors does not exceed.
    fn quantile(&self, part: f64) -> f64 {
        let mut sorted: Vec<f64> = self.0.iter().map(|error| error.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[((sorted.len() as f64 * part).ceil() as usize).clamp(1, sorted.len()) - 1]
    }

    fn worst(&self) -> f64 {
        self.quantile(1.0)
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
}
