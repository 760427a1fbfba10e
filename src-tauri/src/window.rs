//! The one window. A second start brings it to the front; on Linux closing it ends the process.

use std::path::Path;

use anyhow::Context as _;
use idlewatt_engine::home::{HOME_VARIABLE, Home};
use tauri::webview::NewWindowResponse;
use tauri::{AppHandle, Manager as _, Url, WebviewUrl, WebviewWindowBuilder};
use tauri_plugin_window_state::StateFlags;

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
    let link = Link::new(home.clone())?;
    let single = tauri_plugin_single_instance::Builder::new()
        .callback(|app, _arguments, _folder| front(app))
        .dbus_id(instance(std::env::var_os(HOME_VARIABLE).as_deref().map(Path::new)))
        .build();
    let remembered = tauri_plugin_window_state::Builder::new()
        .with_filename(home.data.join("window.json").to_string_lossy())
        .with_state_flags(StateFlags::SIZE | StateFlags::POSITION | StateFlags::MAXIMIZED)
        .build();
    let app = tauri::Builder::default()
        .plugin(single)
        .plugin(remembered)
        .manage(link.clone())
        .invoke_handler(tauri::generate_handler![link::control])
        .setup(move |app| {
            app.manage(home);
            if !hidden {
                open(app.handle())?;
            }
            #[cfg(not(target_os = "linux"))]
            app.manage(crate::tray::Shown::default());
            tauri::async_runtime::spawn(link.forward(app.handle().clone()));
            Ok(())
        })
        .build(tauri::generate_context!())
        .context("the window cannot be opened")?;
    app.run(|_, _event| {
        // Without a window the tray is left; only its "quit" ends the process.
        #[cfg(not(target_os = "linux"))]
        if let tauri::RunEvent::ExitRequested { code: None, api, .. } = _event {
            api.prevent_exit();
        }
    });
    Ok(())
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

/// Brings the window to the front, opened anew if it was closed.
pub(crate) fn front(app: &AppHandle) {
    let fronted = match app.get_webview_window(LABEL) {
        Some(window) => window.unminimize().and_then(|()| window.show()).and_then(|()| window.set_focus()),
        None => open(app),
    };
    if let Err(error) = fronted {
        tracing::warn!(%error, "the window does not come to the front");
    }
}

/// Whether an address is the embedded page's; the window shows nothing else.
fn own_page(url: &Url) -> bool {
    matches!((url.scheme(), url.host_str()), ("tauri", Some("localhost")) | ("http", Some("tauri.localhost")))
}

/// The name of this instance on the session bus: one window for each home.
fn instance(home: Option<&Path>) -> String {
    let Some(home) = home else { return "org.idlewatt.desktop".to_owned() };
    let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
    let bytes = home.as_os_str().as_encoded_bytes();
    let hex: String = bytes.iter().rev().take(64).map(|byte| format!("{byte:02x}")).collect();
    format!("org.idlewatt.desktop.home{hex}")
}

#[cfg(test)]
mod tests {
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
        assert_ne!(instance(Some(Path::new("/a"))), instance(Some(Path::new("/b"))));
        assert_ne!(instance(None), instance(Some(Path::new("/a"))));
        let longest = "/x".repeat(2_000);
        assert!(instance(Some(Path::new(&longest))).len() < 240, "a bus name has at most 255 characters");
    }
}
