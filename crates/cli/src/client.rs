//! The command line's side of the control door.

use std::time::Duration;

use idlewatt_control::{CONTROL_VERSION, Code, ControlError, Request, Response};
use idlewatt_engine::home::{ControlFile, Home};

use crate::exit::{Exit, Failure};

/// Asks the engine of this home one thing.
///
/// # Errors
/// When none runs, or it answers with an error.
pub(crate) fn ask(home: &Home, request: &Request) -> Result<Response, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable_engine(&error))?;
    runtime.block_on(ask_now(home, request))
}

/// Like [`ask`], within a runtime.
///
/// # Errors
/// As `ask`.
pub(crate) async fn ask_now(home: &Home, request: &Request) -> Result<Response, Failure> {
    let resident = home.resident().ok_or_else(not_running)?;
    match send(&resident, request).await? {
        Response::Error(error) => Err(explained(error, &resident)),
        response => Ok(response),
    }
}

/// Like [`ask`], where no engine running is fine.
///
/// # Errors
/// When one runs and answers with an error.
pub(crate) fn ask_if_running(home: &Home, request: &Request) -> Result<Option<Response>, Failure> {
    match ask(home, request) {
        Err(failure) if failure.exit == Exit::NotRunning => Ok(None),
        answered => answered.map(Some),
    }
}

async fn send(resident: &ControlFile, request: &Request) -> Result<Response, Failure> {
    // The engine is on this machine, whatever proxy the environment names. Probing a cold model may take minutes.
    let client = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(600))
        .build()
        .map_err(|error| unreachable_engine(&error))?;
    let answer = client
        .post(format!("http://{}/api/control", resident.address))
        .bearer_auth(&resident.token)
        .json(request)
        .send()
        .await
        .map_err(|error| unreachable_engine(&error))?;
    answer.json().await.map_err(|error| unreachable_engine(&error))
}

fn not_running() -> Failure {
    Failure::new(
        Exit::NotRunning,
        "Idlewatt is not running.",
        "This command asks a running engine.",
        "Start it with `idlewatt run`, or open the desktop app.",
    )
}

fn unreachable_engine(error: &dyn std::error::Error) -> Failure {
    let cause = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
    Failure::new(
        Exit::Failed,
        format!("The engine did not answer: {cause}."),
        "It may be stopping, or just have stopped.",
        "Try again; if it goes on, end it and start it anew.",
    )
}

/// An engine of another version may not know what is asked: that is then the thing to say.
fn explained(error: ControlError, resident: &ControlFile) -> Failure {
    if error.code == Code::BadRequest && resident.control != CONTROL_VERSION {
        return Failure::new(
            Exit::Failed,
            format!(
                "The engine that runs is version {}, this command is {}.",
                resident.version,
                env!("CARGO_PKG_VERSION")
            ),
            "They do not speak the same interface.",
            "Restart the engine.",
        );
    }
    error.into()
}
