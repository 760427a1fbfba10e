//! Windows and macOS: the tray, drawn by Tauri from the same view as on Linux. For its sake the process stays when the
//! window closes. On Linux the resident shows it without a toolkit, and this file is not built.

use std::sync::{Mutex, PoisonError};

use idlewatt_control::{Event, Request, Status};
use idlewatt_tray::{Action, Icon, Item, TrayView};
use tauri::image::Image;
use tauri::menu::{Menu, MenuBuilder, MenuEvent, MenuItemBuilder};
use tauri::tray::{MouseButton, MouseButtonState, TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Manager as _, Wry, include_image};

use crate::link::Link;
use crate::window;

const ID: &str = "idlewatt";
/// macOS colours template images itself; a menu belongs to a left click there, a window to one on Windows.
const MACOS: bool = cfg!(target_os = "macos");

/// What is shown now.
#[derive(Default)]
pub(crate) struct Shown(Mutex<Option<TrayView>>);

/// Draws what an event changes.
pub(crate) fn follow(app: &AppHandle, event: &Event) {
    let Event::Status(status) = event else { return };
    if let Err(error) = show(app, status) {
        tracing::warn!(%error, "the tray cannot be drawn");
    }
}

fn show(app: &AppHandle, status: &Status) -> tauri::Result<()> {
    let view = TrayView::from(status);
    let shown = app.state::<Shown>();
    let before = shown.0.lock().unwrap_or_else(PoisonError::into_inner).replace(view.clone());
    if before.as_ref() == Some(&view) {
        return Ok(());
    }
    let menu = menu(app, &view)?;
    if let Some(tray) = app.tray_by_id(ID) {
        tray.set_icon_with_as_template(Some(glyph(view.icon)), MACOS)?;
        tray.set_tooltip(Some(&view.tooltip))?;
        return tray.set_menu(Some(menu));
    }
    TrayIconBuilder::with_id(ID)
        .icon(glyph(view.icon))
        .icon_as_template(MACOS)
        .tooltip(&view.tooltip)
        .menu(&menu)
        .show_menu_on_left_click(MACOS)
        .on_menu_event(chosen)
        .on_tray_icon_event(|tray, event| {
            let left = (MouseButton::Left, MouseButtonState::Up);
            if let TrayIconEvent::Click { button, button_state, .. } = event
                && (button, button_state) == left
                && !MACOS
            {
                window::front(tray.app_handle());
            }
        })
        .build(app)?;
    Ok(())
}

/// Each line's id is its place in the view.
fn menu(app: &AppHandle, view: &TrayView) -> tauri::Result<Menu<Wry>> {
    let mut menu = MenuBuilder::new(app);
    for (place, item) in view.menu.iter().enumerate() {
        let line = |label: &str, enabled| {
            // In a menu's label an ampersand marks the access key.
            MenuItemBuilder::with_id(place.to_string(), label.replace('&', "&&")).enabled(enabled).build(app)
        };
        menu = match item {
            Item::Separator => menu.separator(),
            Item::Text(text) => menu.item(&line(text, false)?),
            Item::Choice { label, .. } => menu.item(&line(label, true)?),
        };
    }
    menu.build()
}

fn chosen(app: &AppHandle, event: MenuEvent) {
    let action = {
        let shown = app.state::<Shown>();
        let view = shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        let item = event.id().as_ref().parse::<usize>().ok().and_then(|place| view.as_ref()?.menu.get(place));
        match item {
            Some(Item::Choice { action, .. }) => *action,
            _ => return,
        }
    };
    let request = match action {
        Action::Open => return window::front(app),
        Action::Pause(pause) => Request::Pause(pause),
        Action::Resume => Request::Resume,
        Action::Quit => Request::Stop,
    };
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let link = app.state::<Link>().inner().clone();
        if let Err(error) = link.ask(&request).await {
            tracing::warn!(error = format!("{error:#}"), "a choice in the tray failed");
        }
        if request == Request::Stop {
            app.exit(0);
        }
    });
}

fn glyph(icon: Icon) -> Image<'static> {
    match (icon, MACOS) {
        (Icon::Sharing, true) => include_image!("../icons/tray/sharing-template-36.png"),
        (Icon::Yielding, true) => include_image!("../icons/tray/yielding-template-36.png"),
        (Icon::Paused, true) => include_image!("../icons/tray/paused-template-36.png"),
        (Icon::Offline, true) => include_image!("../icons/tray/offline-template-36.png"),
        (Icon::Attention, true) => include_image!("../icons/tray/attention-template-36.png"),
        (Icon::Sharing, false) => include_image!("../icons/tray/sharing-dark-32.png"),
        (Icon::Yielding, false) => include_image!("../icons/tray/yielding-dark-32.png"),
        (Icon::Paused, false) => include_image!("../icons/tray/paused-dark-32.png"),
        (Icon::Offline, false) => include_image!("../icons/tray/offline-dark-32.png"),
        (Icon::Attention, false) => include_image!("../icons/tray/attention-dark-32.png"),
    }
}
