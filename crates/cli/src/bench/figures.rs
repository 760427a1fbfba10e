//! From repeats to the figures of a report. Pure arithmetic.

use idlewatt_protocol::bench::{BenchPhase, BenchPoint};
use idlewatt_protocol::{Label, Milliwatts};

/// One phase of one repeat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Phase {
    /// Prompt tokens computed.
    pub(super) prompt: u64,
    /// Tokens generated after the first of each answer: the first comes out of reading the prompt.
    pub(super) generated: u64,
    /// Time in which prompts were read, s.
    pub(super) reading_s: f64,
    /// Time in which those tokens were generated, s.
    pub(super) generating_s: f64,
    /// All of the phase, s.
    pub(super) seconds: f64,
    /// What it used.
    pub(super) energy: Option<Used>,
    /// Highest power.
    pub(super) peak: Option<Milliwatts>,
    /// Highest temperature, °C.
    pub(super) hottest_c: Option<i32>,
    /// How well the energy is known.
    pub(super) label: Label,
}

/// Energy with its sensor's error, µJ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) uj: f64,
    pub(super) error_uj: f64,
}

/// One repeat: reading long prompts, then writing long answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repeat {
    pub(super) prefill: Phase,
    pub(super) decode: Phase,
}

impl Repeat {
    fn prefill_uj(&self) -> Option<Used> {
        let (used, tokens) = (self.prefill.energy?, tokens(self.prefill.prompt)?);
        Some(Used { uj: used.uj / tokens, error_uj: used.error_uj / tokens })
    }

    /// The answers' energy without that of reading their own short prompts.
    fn decode_uj(&self) -> Option<Used> {
        let (used, tokens) = (self.decode.energy?, tokens(self.decode.generated)?);
        let prompts = self.prefill_uj()?.uj * self.decode.prompt as f64;
        Some(Used { uj: (used.uj - prompts).max(0.0) / tokens, error_uj: used.error_uj / tokens })
    }
}

#[expect(clippy::cast_precision_loss, reason = "some thousand tokens")]
fn tokens(count: u64) -> Option<f64> {
    (count > 0).then_some(count as f64)
}

/// The point that some repeats at one cap give.
pub(super) fn point(cap_mw: Option<Milliwatts>, repeats: &[Repeat]) -> BenchPoint {
    let phases = || repeats.iter().flat_map(|it| [&it.prefill, &it.decode]);
    let energy: Option<f64> = phases().map(|it| it.energy.map(|it| it.uj)).sum();
    let seconds: f64 = phases().map(|it| it.seconds).sum();
    let known = phases().map(|it| it.label).max().unwrap_or_default();
    let speed = |part: fn(&Repeat) -> (u64, f64)| {
        let speeds: Vec<f64> = repeats
            .iter()
            .map(part)
            .filter_map(|(count, seconds)| Some(tokens(count)? / Some(seconds).filter(|it| *it > 0.0)?))
            .collect();
        whole(mean(&speeds) * 1000.0)
    };
    let phase = |milli_tokens_per_s, used: Vec<Option<Used>>| {
        let used: Option<Vec<Used>> = used.into_iter().collect();
        let used = used.filter(|it| !it.is_empty());
        BenchPhase {
            milli_tokens_per_s,
            uj_per_token: used.as_ref().map(|it| whole(mean(&uj(it)))),
            error_uj: used.as_ref().map(|it| whole(error(it))),
        }
    };
    BenchPoint {
        cap_mw,
        repeats: u32::try_from(repeats.len()).unwrap_or(u32::MAX),
        prefill: phase(
            speed(|it| (it.prefill.prompt, it.prefill.reading_s)),
            repeats.iter().map(Repeat::prefill_uj).collect(),
        ),
        decode: phase(
            speed(|it| (it.decode.generated, it.decode.generating_s)),
            repeats.iter().map(Repeat::decode_uj).collect(),
        ),
        mean_mw: energy.filter(|_| seconds > 0.0).map(|uj| Milliwatts(whole(uj / seconds / 1000.0))),
        peak_mw: phases().map(|it| it.peak).max().flatten(),
        temperature_c: phases().map(|it| it.hottest_c).max().flatten(),
        label: if energy.is_some() { known } else { Label::Unknown },
    }
}

fn uj(used: &[Used]) -> Vec<f64> {
    used.iter().map(|it| it.uj).collect()
}

/// Half width of the 95 % interval of the mean over repeats (Student's t), and the sensor's own error, which repeating
/// does not make smaller, as independent errors.
fn error(used: &[Used]) -> f64 {
    let sensor = used.iter().map(|it| it.error_uj).sum::<f64>() / used.len() as f64;
    let values = uj(used);
    let spread = match values.len() {
        0 | 1 => 0.0,
        count => {
            let centre = mean(&values);
            let squares: f64 = values.iter().map(|it| (it - centre).powi(2)).sum();
            let deviation = (squares / (count - 1) as f64).sqrt();
            student(count - 1) * deviation / (count as f64).sqrt()
        }
    };
    spread.hypot(sensor)
}

/// The 97.5 % point of Student's t distribution.
fn student(freedom: usize) -> f64 {
    const POINTS: [f64; 19] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093,
    ];
    POINTS[freedom.clamp(1, POINTS.len()) - 1]
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

#[expect(clippy::cast_possible_truncation, reason = "held to what JSON carries exactly")]
fn whole(value: f64) -> i64 {
    let most = idlewatt_protocol::units::MAX_SAFE_INTEGER as f64;
    value.round().clamp(0.0, most) as i64
}

/// The point with the most tokens a joule while it answers, and those that its error does not tell from it.
pub(crate) fn best(points: &[BenchPoint]) -> Option<(&BenchPoint, Vec<&BenchPoint>)> {
    let cost = |it: &&BenchPoint| it.decode.uj_per_token;
    let best = points.iter().filter(|it| cost(it).is_some()).min_by_key(cost)?;
    let reach = |it: &BenchPoint| it.decode.error_uj.unwrap_or(0);
    let alike = points.iter().filter(|it| {
        let apart = it.decode.uj_per_token.zip(best.decode.uj_per_token).map(|(it, best)| it - best);
        *it != best && apart.is_some_and(|apart| apart < reach(it) + reach(best))
    });
    Some((best, alike.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 W throughout: 2,000 prompt tokens in 5 s, then 500 tokens in 5 s with 40 tokens of prompts before them.
    fn repeat(watts: f64) -> Repeat {
        let phase = |prompt, generated| Phase {
            prompt,
            generated,
            reading_s: 5.0,
            generating_s: 5.0,
            seconds: 5.0,
            energy: Some(Used { uj: watts * 5e6, error_uj: watts * 0.1e6 }),
            peak: Some(Milliwatts(whole(watts * 1e3))),
            hottest_c: Some(60),
            label: Label::Measured,
        };
        Repeat { prefill: phase(2_000, 0), decode: phase(40, 500) }
    }

    #[test]
    fn energy_a_token_is_the_phases_own() {
        let point = point(Some(Milliwatts(250_000)), &[repeat(200.0); 5]);
        assert_eq!(point.prefill.uj_per_token, Some(500_000));
        // 1,000 J less 40 × 0.5 J for reading, over 500 tokens.
        assert_eq!(point.decode.uj_per_token, Some(1_960_000));
        assert_eq!((point.prefill.milli_tokens_per_s, point.decode.milli_tokens_per_s), (400_000, 100_000));
        assert_eq!((point.mean_mw, point.repeats), (Some(Milliwatts(200_000)), 5));
        // No spread: what is left is the sensor's.
        assert_eq!(point.decode.error_uj, Some(40_000));
    }

    #[test]
    fn spread_over_repeats_widens_the_error() {
        let repeats = [190.0, 200.0, 210.0].map(repeat);
        let point = point(None, &repeats);
        // Prefill: 25,000 µJ standard deviation, t = 4.303, and 10,000 µJ of the sensor.
        let spread = 4.303 * 25_000.0 / 3_f64.sqrt();
        assert_eq!(point.prefill.error_uj, Some(whole(spread.hypot(10_000.0))));
    }

    #[test]
    fn one_repeat_without_energy_leaves_none_of_it() {
        let mut silent = repeat(200.0);
        silent.decode.energy = None;
        silent.decode.label = Label::Unknown;
        let point = point(None, &[repeat(200.0), silent]);
        assert_eq!((point.decode.uj_per_token, point.mean_mw, point.label), (None, None, Label::Unknown));
        assert_eq!(point.prefill.uj_per_token, Some(500_000));
        assert_eq!(point.decode.milli_tokens_per_s, 100_000);
    }

    #[test]
    fn the_best_point_names_those_it_cannot_be_told_from() {
        let at = |cap, watts: f64| point(Some(Milliwatts(cap)), &[repeat(watts); 3]);
        let points = [at(150_000, 152.0), at(200_000, 150.0), at(300_000, 260.0)];
        let (best, alike) = best(&points).unwrap();
        assert_eq!(best.cap_mw, Some(Milliwatts(200_000)));
        assert_eq!(alike.iter().map(|it| it.cap_mw).collect::<Vec<_>>(), [Some(Milliwatts(150_000))]);
    }
}
