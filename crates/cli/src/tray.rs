//! The tray of `idlewatt run --tray`: the engine's status in, choices out.

use std::process::Stdio;
use std::sync::Arc;

use idlewatt_control::{Event, Request, Response, Status};
use idlewatt_engine::door::Resident;
use idlewatt_tray::{Action, TrayView};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};

/// Shows the tray until the engine ends. Without a session bus there is none, and the engine runs on.
pub(crate) async fn show(resident: Arc<dyn Resident>) {
    // Subscribed first: nothing falls between the first status and the next.
    let mut events = resident.events();
    let Some(status) = status(resident.as_ref()).await else { return };
    let (view, views) = watch::channel(TrayView::from(&status));
    let (choose, mut chosen) = mpsc::channel(8);
    let mut panel = tokio::spawn(panel(views, choose));
    loop {
        tokio::select! {
            _ = &mut panel => return,
            Some(action) = chosen.recv() => act(action, resident.as_ref()).await,
            event = events.recv() => {
                let changed = match event {
                    Ok(Event::Status(status)) => Some(*status),
                    Ok(_) => None,
                    Err(RecvError::Lagged(_)) => self::status(resident.as_ref()).await,
                    Err(RecvError::Closed) => return,
                };
                if let Some(status) = changed {
                    view.send_if_modified(|shown| {
                        let next = TrayView::from(&status);
                        let changed = *shown != next;
                        *shown = next;
                        changed
                    });
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
async fn panel(views: watch::Receiver<TrayView>, choose: mpsc::Sender<Action>) {
    if let Err(error) = idlewatt_tray::run(views, choose).await {
        tracing::warn!(%error, "no tray");
    }
}

/// Elsewhere the desktop app draws the tray.
#[cfg(not(target_os = "linux"))]
async fn panel(_views: watch::Receiver<TrayView>, _choose: mpsc::Sender<Action>) {
    tracing::warn!("here the tray is the desktop app's");
}

async fn status(resident: &dyn Resident) -> Option<Status> {
    match resident.answer(Request::Status).await {
        Response::Status(status) => Some(*status),
        _ => None,
    }
}

async fn act(action: Action, resident: &dyn Resident) {
    let request = match action {
        Action::Open => return open(resident).await,
        Action::Pause(pause) => Request::Pause(pause),
        Action::Resume => Request::Resume,
        Action::ShareNow { seconds } => Request::ShareNow { seconds },
        Action::GiveBack => Request::GiveBack,
        Action::Quit => Request::Stop,
    };
    if let Response::Error(error) = resident.answer(request).await {
        tracing::warn!(%error, "a choice in the tray failed");
    }
}

/// The desktop app's window where it is installed, the browser otherwise.
async fn open(resident: &dyn Resident) {
    let beside = std::env::current_exe().ok().map(|it| it.with_file_name("idlewatt-desktop"));
    if let Some(desktop) = beside.filter(|it| it.is_file())
        && start(desktop.as_os_str(), None)
    {
        return;
    }
    if let Response::Panel { url } = resident.answer(Request::Panel).await
        && !start("xdg-open".as_ref(), Some(&url))
    {
        tracing::warn!("no browser could be opened; `idlewatt panel` prints the link");
    }
}

fn start(program: &std::ffi::OsStr, argument: Option<&str>) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.args(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Waited for in the background, so that it leaves no process entry behind.
    command.spawn().map(|mut child| tokio::spawn(async move { child.wait().await })).is_ok()
}
