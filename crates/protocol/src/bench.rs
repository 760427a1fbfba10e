//! What `idlewatt bench` found: energy a token of one model on one machine, at one power limit or over several.
//!
//! A node signs a report and sends it to a hub that publishes such tables. It names cards and models, never the
//! machine, its person or its files.

use std::fmt;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::artefact::Artefact;
use crate::limits::{MAX_BENCH_POINTS, MAX_NAME};
use crate::receipt::{Envelope, VerifyError, sign_batch};
use crate::units::{Label, MAX_SAFE_INTEGER, Milliwatts, UnixMillis};

/// Payload type of a signed [`BenchReport`].
pub const BENCH_TYPE: &str = "application/vnd.idlewatt.bench.v1+json";

/// Columns of a table of reports, units in brackets; the cells are [`BenchReport::rows`]'. ASCII, because spreadsheets
/// guess the encoding of a file by its first line.
pub const COLUMNS: [&str; 20] = [
    "GPU",
    "model",
    "quantisation",
    "model server",
    "cap (W)",
    "prefill (J/token)",
    "prefill error (J/token)",
    "prefill (tokens/s)",
    "decode (J/token)",
    "decode error (J/token)",
    "decode (tokens/s)",
    "mean power (W)",
    "peak power (W)",
    "temperature (C)",
    "repeats",
    "energy is",
    "measured by",
    "workload",
    "weights",
    "Idlewatt",
];

/// One run of the published workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchReport {
    /// Which workload, with its version: `idlewatt-1`.
    pub workload: String,
    /// Idlewatt's version.
    pub version: String,
    /// When it began.
    pub started: UnixMillis,
    /// The cards' product names; empty where it ran on no card.
    pub gpus: Vec<String>,
    /// The processor's product name, where it ran on no card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub processor: Option<String>,
    /// The model server's kind and version: `llama.cpp b6000`.
    pub server: String,
    /// What answered.
    pub artefact: Artefact,
    /// How energy was measured, for people; empty where nothing measured it.
    pub method: String,
    /// One a power limit, lowest first.
    pub points: Vec<BenchPoint>,
}

/// The figures at one power limit. Means over the repeats; each error is the half width of their 95 % interval, with
/// the sensor's own error in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchPoint {
    /// The limit in force; `None` where the card does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub cap_mw: Option<Milliwatts>,
    /// How often the workload was run.
    pub repeats: u32,
    /// Reading the prompt.
    pub prefill: BenchPhase,
    /// Writing the answer.
    pub decode: BenchPhase,
    /// Mean power while it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub mean_mw: Option<Milliwatts>,
    /// Highest reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub peak_mw: Option<Milliwatts>,
    /// Highest temperature, °C.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional))]
    pub temperature_c: Option<i32>,
    /// How the energy is known.
    pub label: Label,
}

/// One phase of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "ts", derive(ts_rs::TS))]
pub struct BenchPhase {
    /// Speed, tokens a second × 1,000.
    #[cfg_attr(feature = "ts", ts(type = "number"))]
    pub milli_tokens_per_s: i64,
    /// Energy a token, microjoules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub uj_per_token: Option<i64>,
    /// Its error, microjoules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "ts", ts(optional, type = "number"))]
    pub error_uj: Option<i64>,
}

impl BenchReport {
    /// Signs it. The envelope holds the exact bytes, so that anyone who gets it can check who said so.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> Envelope {
        // Plain numbers and names: writing them as JSON cannot fail.
        let payload = serde_json::to_vec(self).unwrap_or_default();
        sign_batch(key, BENCH_TYPE, &[payload]).swap_remove(0)
    }

    /// What an envelope says, once its signature was checked. Which keys are to be believed is for the caller to say:
    /// it is [`Envelope::keyid`]'s word, not proof of what ran.
    ///
    /// # Errors
    /// When the envelope is malformed, altered, or of another kind, or the report is beyond the limits.
    pub fn open(envelope: &Envelope) -> Result<Self, VerifyError> {
        let report: Self = envelope.read(BENCH_TYPE, "the report")?;
        match report.breach() {
            Some(breach) => Err(VerifyError::Contradiction(format!("the report is no report: {breach}"))),
            None => Ok(report),
        }
    }

    /// What it ran on: the cards, or the processor.
    #[must_use]
    pub fn hardware(&self) -> String {
        match (self.gpus.as_slice(), &self.processor) {
            ([], Some(processor)) => processor.clone(),
            ([], None) => "unknown".to_owned(),
            ([one], _) => one.clone(),
            ([first, rest @ ..], _) if rest.iter().all(|it| it == first) => {
                format!("{} x {first}", rest.len() + 1)
            }
            (several, _) => several.join(" + "),
        }
    }

    /// The first limit that it breaks, in words; `None` when it keeps all.
    #[must_use]
    pub fn breach(&self) -> Option<&'static str> {
        let artefact = &self.artefact;
        let needed = [&self.workload, &self.version, &artefact.model, &artefact.engine];
        let optional = [&artefact.quantisation, &artefact.engine_build, &self.processor];
        let names: Vec<&String> =
            needed.into_iter().chain(&self.gpus).chain(optional.into_iter().flatten()).collect();
        if names.iter().any(|name| name.trim().is_empty()) {
            return Some("a name is empty");
        }
        let mut texts = names.into_iter().chain([&self.server, &self.method]);
        if texts.any(|text| text.len() > MAX_NAME || text.chars().any(char::is_control)) {
            return Some("a text is longer than 256 bytes, or holds a control character");
        }
        if self.gpus.len() > MAX_BENCH_POINTS || !(1..=MAX_BENCH_POINTS).contains(&self.points.len()) {
            return Some("it has no point, or more than 64 points or cards");
        }
        let sane = |value: i64| (0..=MAX_SAFE_INTEGER).contains(&value);
        let phase = |it: &BenchPhase| {
            sane(it.milli_tokens_per_s) && [it.uj_per_token, it.error_uj].into_iter().flatten().all(sane)
        };
        let point = |it: &BenchPoint| {
            let mut watts = [it.cap_mw, it.mean_mw, it.peak_mw].into_iter().flatten();
            it.repeats > 0 && phase(&it.prefill) && phase(&it.decode) && watts.all(|it| sane(it.0))
        };
        if !(is_sane(self.started) && self.points.iter().all(point)) {
            return Some("a figure is negative or beyond belief");
        }
        None
    }

    /// One row a power limit, under [`COLUMNS`]. Empty where a figure is not known.
    #[must_use]
    pub fn rows(&self) -> Vec<Vec<String>> {
        let artefact = &self.artefact;
        let row = |it: &BenchPoint| {
            let watts = |power: Option<Milliwatts>| power.map(|it| decimal(it.0, 3)).unwrap_or_default();
            let joules = |uj: Option<i64>| uj.map(|it| decimal(it, 6)).unwrap_or_default();
            vec![
                self.hardware(),
                artefact.model.clone(),
                artefact.quantisation.clone().unwrap_or_default(),
                self.server.clone(),
                watts(it.cap_mw),
                joules(it.prefill.uj_per_token),
                joules(it.prefill.error_uj),
                decimal(it.prefill.milli_tokens_per_s, 3),
                joules(it.decode.uj_per_token),
                joules(it.decode.error_uj),
                decimal(it.decode.milli_tokens_per_s, 3),
                watts(it.mean_mw),
                watts(it.peak_mw),
                it.temperature_c.map(|it| it.to_string()).unwrap_or_default(),
                it.repeats.to_string(),
                it.label.as_str().to_owned(),
                self.method.clone(),
                self.workload.clone(),
                artefact.digest.map(|it| it.to_string()).unwrap_or_default(),
                self.version.clone(),
            ]
        };
        self.points.iter().map(row).collect()
    }
}

/// After 2023, before 2200.
fn is_sane(at: UnixMillis) -> bool {
    (1_700_000_000_000..7_258_118_400_000).contains(&at.0)
}

/// Cells as one line of a CSV file (RFC 4180), with its line end. A text that a spreadsheet would take for a formula is
/// made plain by an apostrophe before it.
#[must_use]
pub fn csv_line<S: AsRef<str>>(cells: impl IntoIterator<Item = S>) -> String {
    let mut line = String::new();
    for (at, cell) in cells.into_iter().enumerate() {
        let cell = cell.as_ref();
        if at > 0 {
            line.push(',');
        }
        let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
        if formula || cell.contains(['"', ',', '\n', '\r']) {
            let apostrophe = if formula { "'" } else { "" };
            line.push_str(&format!("\"{apostrophe}{}\"", cell.replace('"', "\"\"")));
        } else {
            line.push_str(cell);
        }
    }
    line.push_str("\r\n");
    line
}

/// An integer of 10^−`places` as a decimal number, without zeros at its end.
#[must_use]
pub fn decimal(value: i64, places: u32) -> String {
    let (scale, abs) = (10_u64.pow(places), value.unsigned_abs());
    let sign = if value < 0 { "-" } else { "" };
    let part = format!("{:0width$}", abs % scale, width = places as usize);
    let part = part.trim_end_matches('0');
    let dot = if part.is_empty() { "" } else { "." };
    format!("{sign}{}{dot}{part}", abs / scale)
}

/// Energy a token for people, joules: `4.85 ± 0.09`. As many digits as its error lets mean something; three that count
/// where there is no error.
#[must_use]
pub fn joules(uj: i64, error_uj: Option<i64>) -> String {
    let meant = error_uj.filter(|error| *error > 0).map_or(uj / 1000, |error| error / 100).unsigned_abs();
    let places = 6_usize.saturating_sub(meant.checked_ilog10().map_or(0, |it| it as usize + 1));
    let rounded = |uj: i64| format!("{:.places$}", Joules(uj));
    error_uj.map_or_else(|| rounded(uj), |error| format!("{} ± {}", rounded(uj), rounded(error)))
}

/// Microjoules, to be rounded to a number of places.
struct Joules(i64);

impl fmt::Display for Joules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = u32::try_from(f.precision().unwrap_or(6).min(6)).unwrap_or(6);
        let (step, scale) = (10_u64.pow(6 - places), 10_u64.pow(places));
        let units = (self.0.unsigned_abs() + step / 2) / step;
        let sign = if self.0 < 0 { "-" } else { "" };
        match places as usize {
            0 => write!(f, "{sign}{units}"),
            width => write!(f, "{sign}{}.{:0width$}", units / scale, units % scale),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_go_as_far_as_the_error_lets_them() {
        assert_eq!(joules(4_851_234, Some(90_000)), "4.851 ± 0.090");
        assert_eq!(joules(4_851_234, Some(1_200_000)), "4.9 ± 1.2");
        assert_eq!(joules(48_512_340, Some(12_000_000)), "49 ± 12");
        assert_eq!(joules(4_851_234, None), "4.85");
        assert_eq!(joules(12_345, None), "0.0123");
        assert_eq!(joules(123, Some(0)), "0.000123 ± 0.000000");
        assert_eq!(joules(0, None), "0.000000");
    }

    fn report() -> BenchReport {
        let phase =
            BenchPhase { milli_tokens_per_s: 41_200, uj_per_token: Some(4_850_000), error_uj: Some(90_000) };
        BenchReport {
            workload: "idlewatt-1".into(),
            version: "0.1.0".into(),
            started: UnixMillis(1_795_267_200_000),
            gpus: vec!["NVIDIA GeForce RTX 4090".into()],
            processor: None,
            server: "llama.cpp b6000".into(),
            artefact: Artefact {
                model: "m".into(),
                quantisation: Some("q4_k_m".into()),
                digest: None,
                engine: "llama.cpp".into(),
                engine_build: Some("b6000".into()),
            },
            method: "NVML: instantaneous power, energy counter".into(),
            points: vec![BenchPoint {
                cap_mw: Some(Milliwatts(300_000)),
                repeats: 5,
                prefill: BenchPhase { uj_per_token: None, error_uj: None, ..phase },
                decode: phase,
                mean_mw: Some(Milliwatts(280_500)),
                peak_mw: None,
                temperature_c: Some(61),
                label: Label::Measured,
            }],
        }
    }

    #[test]
    fn a_signed_report_opens_and_an_altered_one_does_not() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let envelope = report().sign(&key);
        assert_eq!(BenchReport::open(&envelope), Ok(report()));
        let better = BenchReport { version: "0.1.1".into(), ..report() }.sign(&key);
        let forged = Envelope { payload: better.payload, ..envelope };
        assert!(BenchReport::open(&forged).is_err());
    }

    #[test]
    fn a_report_beyond_belief_is_refused_although_it_is_signed() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let refused = |change: fn(&mut BenchReport)| {
            let mut report = report();
            change(&mut report);
            BenchReport::open(&report.sign(&key)).is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|it| it.points.clear()));
        assert!(refused(|it| it.points[0].decode.uj_per_token = Some(-1)));
        assert!(refused(|it| it.points[0].repeats = 0));
        assert!(refused(|it| it.points[0].cap_mw = Some(Milliwatts(-5))));
        assert!(refused(|it| it.artefact.model.clear()));
        assert!(refused(|it| it.gpus[0] = "x".repeat(300)));
        assert!(refused(|it| it.server = "a\u{1b}[2J".into()));
        assert!(refused(|it| it.started = UnixMillis(0)));
        assert!(refused(|it| it.points = vec![it.points[0].clone(); 65]));
    }

    #[test]
    fn a_row_fits_its_columns_and_what_is_not_known_is_empty() {
        let rows = report().rows();
        assert_eq!(rows[0].len(), COLUMNS.len());
        let cell = |name: &str| rows[0][COLUMNS.iter().position(|it| *it == name).unwrap()].as_str();
        assert_eq!(cell("decode (J/token)"), "4.85");
        assert_eq!(cell("prefill (J/token)"), "");
        assert_eq!((cell("cap (W)"), cell("mean power (W)")), ("300", "280.5"));
        assert_eq!(cell("energy is"), "measured");
    }

    #[test]
    fn no_cell_breaks_its_line_or_runs_as_a_formula() {
        let line = csv_line(["a", "b,\"c\"", "=cmd()", "-1.5", ""]);
        assert_eq!(line, "a,\"b,\"\"c\"\"\",\"'=cmd()\",-1.5,\r\n");
    }

    #[test]
    fn cards_of_one_kind_are_counted() {
        let with =
            |gpus: &[&str]| BenchReport { gpus: gpus.iter().map(ToString::to_string).collect(), ..report() };
        assert_eq!(with(&["A", "A"]).hardware(), "2 x A");
        assert_eq!(with(&["A", "B"]).hardware(), "A + B");
        let processor = BenchReport { processor: Some("C".into()), ..with(&[]) };
        assert_eq!(processor.hardware(), "C");
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal(4_850_000, 6), "4.85");
        assert_eq!(decimal(-1_050, 3), "-1.05");
        assert_eq!(decimal(7, 0), "7");
    }
}
