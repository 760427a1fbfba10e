//! The one window. A second start brings it to the front; on Linux closing it ends the process.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Context as _;
use idlewatt_engine::home::Home;
use tauri::webview::NewWindowResponse;
use tauri::{AppHandle, Manager as _, RunEvent, Url, WebviewUrl, WebviewWindowBuilder};
use tauri_plugin_window_state::StateFlags;
#[cfg(not(target_os = "linux"))]
use {
    crate::resident::within,
    idlewatt_control::{Request, Response},
};

use crate::link::{self, Link};

const LABEL: &str = "main";

/// In the C locale WebKitGTK names the language "C", which `Intl` refuses, and with it any page that formats a number.
const LANGUAGE: &str = "try { new Intl.Locale(navigator.language) } catch { \
    Object.defineProperty(Navigator.prototype, 'language', { get: () => 'en' }) }";

/// Opens the window, unless `hidden`, and returns when the process may end.
pub(crate) fn run(home: Home, hidden: bool) -> anyhow::Result<()> {
    #[cfg(target_os = "linux")]
    anyhow::ensure!(
        ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some_and(|it| !it.is_empty())),
        "the window needs a desktop session.\n  why: neither DISPLAY nor WAYLAND_DISPLAY is set.\n  do:  start it from the \
         desktop; on a machine without one, `idlewatt panel` prints the control panel's link."
    );
    let single = tauri_plugin_single_instance::init(|app, arguments, _folder| {
        if !arguments.iter().any(|argument| argument == "--hidden") {
            front(app);
        }
    });
    let remembered = tauri_plugin_window_state::Builder::new()
        .with_filename(home.data.join("window.json").to_string_lossy())
        .with_state_flags(StateFlags::SIZE | StateFlags::POSITION | StateFlags::MAXIMIZED)
        .build();
    let mut context = tauri::generate_context!();
    context.config_mut().identifier = instance(&home);
    // A second start ends in here.
    let app = tauri::Builder::default()
        .plugin(single)
        .plugin(remembered)
        .invoke_handler(tauri::generate_handler![link::control])
        .build(context)
        .context("the window cannot be opened")?;
    #[cfg(not(target_os = "linux"))]
    let mut held = tauri::async_runtime::block_on(within::start(&home, app.handle().clone()))?;
    #[cfg(not(target_os = "linux"))]
    let link = match &held {
        Some(held) => held.link(),
        None => Link::there(home.clone())?,
    };
    #[cfg(target_os = "linux")]
    let link = Link::there(home.clone())?;
    #[cfg(not(target_os = "linux"))]
    app.manage(crate::tray::Shown::default());
    app.manage(link.clone());
    app.manage(home);
    tauri::async_runtime::spawn(link.forward(app.handle().clone()));
    app.run(move |app, event| match event {
        RunEvent::Ready if !hidden => front(app),
        // Without a window the tray is left; only its "quit" ends the process.
        #[cfg(not(target_os = "linux"))]
        RunEvent::ExitRequested { code: None, api, .. } if crate::tray::is_shown(app) => api.prevent_exit(),
        #[cfg(target_os = "macos")]
        RunEvent::Reopen { .. } => front(app),
        #[cfg(not(target_os = "linux"))]
        RunEvent::Exit => held.take().map_or((), within::Held::end),
        _ => {}
    });
    Ok(())
}

/// Brings the window to the front, opened anew if it was closed. Never within a callback of the event loop: there WebView2
/// would wait for itself.
pub(crate) fn front(app: &AppHandle) {
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let fronted = match app.get_webview_window(LABEL) {
            Some(window) => {
                window.unminimize().and_then(|()| window.show()).and_then(|()| window.set_focus())
            }
            None => open(&app),
        };
        match fronted {
            // A second click was as quick.
            Ok(())
            | Err(tauri::Error::WindowLabelAlreadyExists(_) | tauri::Error::WebviewLabelAlreadyExists(_)) => {
            }
            Err(error) => instead(&app, error).await,
        }
    });
}

fn open(app: &AppHandle) -> tauri::Result<()> {
    let home = app.state::<Home>();
    WebviewWindowBuilder::new(app, LABEL, WebviewUrl::App("index.html".into()))
        .title("Idlewatt")
        .inner_size(1120.0, 760.0)
        .min_inner_size(800.0, 560.0)
        .data_directory(home.data.join("window"))
        .initialization_script(LANGUAGE)
        .disable_drag_drop_handler()
        .on_navigation(own_page)
        .on_new_window(|_, _| NewWindowResponse::Deny)
        .build()?;
    Ok(())
}

/// Without a window nothing is left of a guest.
#[cfg(target_os = "linux")]
async fn instead(app: &AppHandle, error: tauri::Error) {
    crate::tell::failure(&anyhow::Error::from(error).context("the window cannot be opened"));
    app.exit(1);
}

/// The same panel in the browser, where the system has no web view: on Windows before WebView2 was installed.
#[cfg(not(target_os = "linux"))]
async fn instead(app: &AppHandle, error: tauri::Error) {
    tracing::warn!(%error, "the window does not open; the browser shows the panel");
    let opened = match app.state::<Link>().ask(Request::Panel).await {
        Ok(Response::Panel { url }) => open::that_detached(url).map_err(anyhow::Error::from),
        Ok(other) => Err(anyhow::anyhow!("the engine answers {other:?}")),
        Err(error) => Err(error),
    };
    if let Err(browser) = opened {
        crate::tell::failure(&anyhow::anyhow!(
            "The window does not open: {error}\n  why: the system gives it no web view, and no browser took its place \
             ({browser:#}).\n  do:  install the WebView2 runtime, or see `idlewatt panel` in a terminal."
        ));
    }
}

/// Whether an address is the embedded page's; the window shows nothing else.
fn own_page(url: &Url) -> bool {
    matches!((url.scheme(), url.host_str()), ("tauri", Some("localhost")) | ("http", Some("tauri.localhost")))
}

/// The name by which a second start finds the first: one window for each home. It goes into a D-Bus name, a Windows class
/// and a socket's path, of which the last bears at most 100 bytes.
fn instance(home: &Home) -> String {
    let mut hasher = DefaultHasher::new();
    home.data.hash(&mut hasher);
    format!("org.idlewatt.desktop.h{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_window_shows_the_embedded_page_only() {
        let shows = |url: &str| own_page(&url.parse().unwrap());
        assert!(shows("tauri://localhost/index.html#/requests"));
        assert!(!shows("https://example.org/"));
        assert!(!shows("http://localhost/"));
        assert!(!shows("file:///etc/passwd"));
        assert!(!shows("tauri://elsewhere/"));
    }

    #[test]
    fn each_home_has_its_own_window() {
        let of = |path: &str| instance(&Home::at(Path::new(path)));
        assert_ne!(of("/a"), of("/b"));
        assert_eq!(of("/a"), of("/a"));
        assert!(of(&"/x".repeat(2_000)).len() < 80, "a socket's path has at most 100 bytes on macOS");
    }
}
