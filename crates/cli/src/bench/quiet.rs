//! A running engine, paused while something is measured: it would answer strangers on the same card.

use std::time::Duration;

use idlewatt_control::{PauseFor, Request, Response, State, Status};
use idlewatt_engine::home::Home;
use idlewatt_protocol::{PauseCode, UnixMillis};
use tokio::time::{Instant, sleep};

use crate::client;
use crate::exit::{Exit, Failure};

/// How long a pause lasts unless it is renewed: a killed bench leaves no more than this behind.
const PAUSE: Duration = Duration::from_secs(10 * 60);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5 * 60);
/// Shared requests are handed back within seconds.
const HAND_BACK: Duration = Duration::from_secs(60);

/// The engine at rest; [`end`](Self::end) lets it go on as it was.
pub(super) struct Quiet<'a> {
    home: &'a Home,
    /// `None` where no engine runs.
    before: Option<Before>,
}

/// Whether the host had paused it, and until when.
enum Before {
    Free,
    Paused(Option<UnixMillis>),
}

impl<'a> Quiet<'a> {
    /// Pauses the engine of this home, if one runs, and waits until the cards are free.
    ///
    /// # Errors
    /// When it does not do so.
    pub(super) async fn begin(home: &'a Home) -> Result<Self, Failure> {
        let Some(status) = status(home, &Request::Status).await? else {
            return Ok(Self { home, before: None });
        };
        let by_host = status.reasons.iter().find(|it| it.code == PauseCode::PausedByHost);
        let before = by_host.map_or(Before::Free, |it| Before::Paused(it.until));
        let quiet = Self { home, before: Some(before) };
        quiet.pause().await?;
        let begun = Instant::now();
        while let Some(status) = status_now(home).await? {
            if status.state != State::Yielding && status.running == 0 {
                break;
            }
            if begun.elapsed() > HAND_BACK {
                quiet.end().await?;
                return Err(Failure::new(
                    Exit::Failed,
                    "The engine still answers a shared request after a minute's pause.",
                    "What it uses would be counted as the workload's. Nothing was measured.",
                    "See `idlewatt status`, then try again.",
                ));
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(quiet)
    }

    /// Renews the pause for as long as this is polled.
    pub(super) async fn hold(&self) -> Failure {
        loop {
            sleep(RENEW).await;
            if let Err(failure) = self.pause().await {
                return failure;
            }
        }
    }

    async fn pause(&self) -> Result<(), Failure> {
        let lasts_longer = matches!(self.before, Some(Before::Paused(None)));
        if self.before.is_some() && !lasts_longer {
            let seconds = u32::try_from(PAUSE.as_secs()).unwrap_or(u32::MAX);
            status(self.home, &Request::Pause(PauseFor::Seconds { seconds })).await?;
        }
        Ok(())
    }

    /// Lets the engine go on as it was.
    ///
    /// # Errors
    /// When it cannot be told; its pause then ends by itself within ten minutes.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let again = match self.before {
            None | Some(Before::Paused(None)) => return Ok(()),
            Some(Before::Free) => Request::Resume,
            Some(Before::Paused(Some(until))) if is_ahead(until) => {
                Request::Pause(PauseFor::At { at: until })
            }
            Some(Before::Paused(Some(_))) => Request::Resume,
        };
        status(self.home, &again).await.map(drop)
    }
}

fn is_ahead(at: UnixMillis) -> bool {
    at.0 > jiff::Timestamp::now().as_millisecond()
}

async fn status_now(home: &Home) -> Result<Option<Status>, Failure> {
    status(home, &Request::Status).await
}

/// Asks; `None` where no engine runs.
async fn status(home: &Home, request: &Request) -> Result<Option<Status>, Failure> {
    match client::ask_now(home, request).await {
        Ok(Response::Status(status)) => Ok(Some(*status)),
        Ok(_) => Ok(None),
        Err(failure) if failure.exit == Exit::NotRunning => Ok(None),
        Err(failure) => Err(failure),
    }
}
