//! A sensor of Home Assistant, whatever it measures with (<https://developers.home-assistant.io/docs/api/rest/>:
//! `/api/states/<entity_id>`).

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use crate::http::Http;
use crate::{Meter, PlugError, Told};

/// A sensor that has not reported for so long, minutes, is taken for dead: what it shows is from before it fell silent.
/// Wide enough for two clocks that differ, because it is told by Home Assistant's clock and judged by this machine's.
const SILENT_MINUTES: i64 = 15;

pub(crate) struct HomeAssistant {
    state: Url,
    token_file: PathBuf,
    /// Read when it is first needed, and again after it was refused.
    token: Option<String>,
}

impl HomeAssistant {
    pub(crate) fn new(root: &Url, entity: &str, token_file: PathBuf) -> Self {
        let mut state = root.clone();
        state.set_path(&format!("/api/states/{entity}"));
        Self { state, token_file, token: None }
    }
}

#[async_trait]
impl Meter for HomeAssistant {
    async fn ask(&mut self, http: &Http) -> Result<Told, PlugError> {
        let token = match self.token.take() {
            Some(token) => token,
            None => read_token(&self.token_file)?,
        };
        let answer = http.get(self.state.clone(), Some(&token)).await;
        match answer {
            Err(PlugError::Password) => {
                return Err(PlugError::Token(format!(
                    "Home Assistant refuses the token in {}",
                    self.token_file.display()
                )));
            }
            Err(PlugError::Status(404)) => {
                return Err(PlugError::Nothing("of no such sensor: is its name right?".to_owned()));
            }
            _ => self.token = Some(token),
        }
        let state = serde_json::from_value(answer?).map_err(|_| PlugError::Nothing("no state".to_owned()))?;
        read(&state, Timestamp::now())
    }
}

/// A long-lived access token. It says as much as a password, so nobody else may be able to read it.
fn read_token(path: &Path) -> Result<String, PlugError> {
    let wrong = |why: String| PlugError::Token(format!("the token file {} {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read ({error})")))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_or(0, |it| it.permissions().mode());
        if mode & 0o077 != 0 {
            return Err(wrong("can be read by others: make it yours alone with `chmod 600`".to_owned()));
        }
    }
    let token = text.trim();
    let plausible = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    plausible.then(|| token.to_owned()).ok_or_else(|| wrong("holds no token".to_owned()))
}

#[derive(Deserialize)]
struct State {
    /// A string, whatever it measures: `312.4`, `unavailable`.
    state: String,
    #[serde(default)]
    attributes: Attributes,
    /// Also where nothing changed; older versions do not tell.
    #[serde(default)]
    last_reported: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
struct Attributes {
    #[serde(default)]
    unit_of_measurement: Option<String>,
}

fn read(state: &State, now: Timestamp) -> Result<Told, PlugError> {
    let silent = state.last_reported.map(|at| now.duration_since(at).as_mins());
    if let Some(minutes) = silent.filter(|minutes| *minutes >= SILENT_MINUTES) {
        return Err(PlugError::Stale { minutes });
    }
    let short: String = state.state.chars().take(20).collect();
    let number: f64 = state
        .state
        .trim()
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())
        .ok_or_else(|| PlugError::Nothing(format!("{short:?} in place of a number")))?;
    let watts = |scale: f64| Told { watts: Some(number * scale), watt_hours: None };
    let watt_hours = |scale: f64| Told { watts: None, watt_hours: Some(number * scale) };
    match state.attributes.unit_of_measurement.as_deref() {
        Some("W") => Ok(watts(1.0)),
        Some("kW") => Ok(watts(1e3)),
        Some("mW") => Ok(watts(1e-3)),
        Some("Wh") => Ok(watt_hours(1.0)),
        Some("kWh") => Ok(watt_hours(1e3)),
        Some("MWh") => Ok(watt_hours(1e6)),
        unit => {
            let unit: String = unit.unwrap_or("no unit").chars().take(20).collect();
            Err(PlugError::Nothing(format!("of neither power nor energy: its unit is {unit}")))
        }
    }
}
