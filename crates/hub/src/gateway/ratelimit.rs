//! What is left of a key's minute, in the headers that OpenAI's clients read:
//! `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`. A key without a limit has none of them.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use idlewatt_hub_core::allowance::{Allowance, Remaining};

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

pub(super) fn describe(allowance: Allowance, headers: &mut HeaderMap) {
    for (names, left) in [(REQUESTS, allowance.requests), (TOKENS, allowance.tokens)] {
        let Some(Remaining { limit, remaining, reset }) = left else { continue };
        let [limits, remains, resets] = names;
        headers.insert(limits, HeaderValue::from(limit));
        headers.insert(remains, HeaderValue::from(remaining));
        if let Ok(reset) = HeaderValue::try_from(duration(reset)) {
            headers.insert(resets, reset);
        }
    }
}

/// As OpenAI writes durations, after Go: `17ms`, `8s`, `6m0s`. Rounded up, since too late is right and too early is not.
fn duration(it: Duration) -> String {
    if it.is_zero() {
        return "0s".to_owned();
    }
    if it < Duration::from_secs(1) {
        return format!("{}ms", it.as_nanos().div_ceil(1_000_000));
    }
    let seconds = it.as_nanos().div_ceil(1_000_000_000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, wanted) in [
            (0, "0s"),
            (17, "17ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1001, "2s"),
            (59_001, "1m0s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_millis(ms)), wanted);
        }
        assert_eq!(duration(Duration::from_nanos(1)), "1ms");
    }
}
