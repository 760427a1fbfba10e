//! One-time codes: a link that `idlewatt run` prints carries a code, and a browser trades it for the token. A link stays
//! in histories and scroll-back; a token must not.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use idlewatt_control::Code;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::{Shared, refusal};

/// Life of a code.
const CODE_LIFE: Duration = Duration::from_secs(10 * 60);

/// Codes that have not been used yet. At most a handful live at once.
#[derive(Default)]
pub struct LoginCodes(Mutex<Vec<(String, Instant)>>);

impl LoginCodes {
    /// Makes a code that lives for [`CODE_LIFE`] from `now`.
    pub fn make(&self, now: Instant) -> String {
        let code = crate::identity::token();
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.retain(|(_, until)| *until > now);
        // Whoever asks for codes without end pushes out the oldest, and never fills memory.
        if codes.len() >= 8 {
            codes.remove(0);
        }
        codes.push((code.clone(), now + CODE_LIFE));
        code
    }

    /// Whether the code was good until now; it never is again.
    pub fn spend(&self, code: &str, now: Instant) -> bool {
        let mut codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = codes.iter().position(|(it, _)| it.as_bytes().ct_eq(code.as_bytes()).into());
        found.is_some_and(|at| codes.remove(at).1 > now)
    }
}

#[derive(Deserialize)]
pub(super) struct Login {
    code: String,
}

#[derive(Serialize)]
struct LoggedIn<'a> {
    token: &'a str,
}

pub(super) async fn login(State(shared): State<Shared>, Json(login): Json<Login>) -> Response {
    if shared.codes.spend(&login.code, Instant::now()) {
        return Json(LoggedIn { token: &shared.token }).into_response();
    }
    refusal(
        StatusCode::UNAUTHORIZED,
        Code::Unauthorized,
        "This link was used before, or is older than ten minutes.",
        "A link to the control panel opens it once.",
        "Run `idlewatt panel` for a new one.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_opens_once_and_not_after_ten_minutes() {
        let (codes, now) = (LoginCodes::default(), Instant::now());
        let code = codes.make(now);
        assert!(!codes.spend("other", now));
        assert!(codes.spend(&code, now));
        assert!(!codes.spend(&code, now));
        let late = codes.make(now);
        assert!(!codes.spend(&late, now + CODE_LIFE));
    }
}
