//! Windows and macOS: the tray, drawn by Tauri from the same view as on Linux. For its sake the process stays when the
//! window closes. On Linux the resident shows it without a toolkit, and this file is not built.

use std::sync::{Mutex, MutexGuard, PoisonError};

use idlewatt_control::{Event, Request, Status};
use idlewatt_tray::{Action, Icon, Item, TrayView};
use tauri::image::Image;
use tauri::menu::{Menu, MenuBuilder, MenuEvent, MenuItemBuilder, MenuItemKind};
use tauri::tray::{MouseButton, MouseButtonState, TrayIconBuilder, TrayIconEvent};
use tauri::{AppHandle, Manager as _, Wry, include_image};

use crate::link::Link;
use crate::window;

const ID: &str = "idlewatt";
/// macOS colours template images itself; a menu belongs to a left click there, a window to one on Windows.
const MACOS: bool = cfg!(target_os = "macos");

/// UTF-16 units of a tooltip: Windows keeps 128, the last for its end.
const TOOLTIP: usize = 127;

/// What is shown now. Locked for a moment only: drawing waits for the thread that a click comes from.
#[derive(Default)]
pub(crate) struct Shown(Mutex<Option<(TrayView, Menu<Wry>)>>);

impl Shown {
    fn now(&self) -> MutexGuard<'_, Option<(TrayView, Menu<Wry>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Draws what an event changes.
pub(crate) fn follow(app: &AppHandle, event: &Event) {
    let Event::Status(status) = event else { return };
    if let Err(error) = show(app, status) {
        tracing::warn!(%error, "the tray cannot be drawn");
    }
}

/// Whether there is a tray to stay for.
pub(crate) fn is_shown(app: &AppHandle) -> bool {
    app.tray_by_id(ID).is_some()
}

/// The engine of another process has ended: nothing is left to show but a window that says so.
pub(crate) fn gone(app: &AppHandle) {
    let app = app.clone();
    // Windows lets go of it only on the thread that made it.
    let removed = app.clone().run_on_main_thread(move || {
        if app.remove_tray_by_id(ID).is_some() && app.webview_windows().is_empty() {
            app.exit(0);
        }
    });
    if let Err(error) = removed {
        tracing::debug!(%error, "the program ends as well");
    }
}

fn show(app: &AppHandle, status: &Status) -> tauri::Result<()> {
    let view = TrayView::from(status);
    let shown = app.state::<Shown>();
    let tray = app.tray_by_id(ID);
    let before = shown.now().clone().filter(|_| tray.is_some());
    let (menu, replaced) = match before {
        Some((before, _)) if before == view => return Ok(()),
        Some((before, menu)) if view.has_lines_of(&before) => (menu, false),
        _ => (self::menu(app, &view)?, true),
    };
    shown.now().replace((view.clone(), menu.clone()));
    if let Some(tray) = tray {
        tray.set_icon_with_as_template(Some(glyph(view.icon)), MACOS)?;
        tray.set_tooltip(Some(view.tooltip_within(TOOLTIP)))?;
        // Whoever has the menu open keeps it: a choice in one that was taken away would be lost.
        return if replaced { tray.set_menu(Some(menu)) } else { relabel(&menu, &view) };
    }
    TrayIconBuilder::with_id(ID)
        .icon(glyph(view.icon))
        .icon_as_template(MACOS)
        .tooltip(view.tooltip_within(TOOLTIP))
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
        menu = match label(item) {
            Some(label) => {
                let chosen = matches!(item, Item::Choice { .. });
                menu.item(&MenuItemBuilder::with_id(place.to_string(), label).enabled(chosen).build(app)?)
            }
            None => menu.separator(),
        };
    }
    menu.build()
}

/// Gives the lines of a menu the words of a view that has the same lines.
fn relabel(menu: &Menu<Wry>, view: &TrayView) -> tauri::Result<()> {
    for (place, item) in view.menu.iter().enumerate() {
        let line = menu.get(&place.to_string());
        if let (Some(MenuItemKind::MenuItem(line)), Some(label)) = (line, label(item)) {
            line.set_text(label)?;
        }
    }
    Ok(())
}

/// In a menu's label an ampersand marks the access key.
fn label(item: &Item) -> Option<String> {
    match item {
        Item::Separator => None,
        Item::Text(label) | Item::Choice { label, .. } => Some(label.replace('&', "&&")),
    }
}

fn chosen(app: &AppHandle, event: MenuEvent) {
    let action = {
        let shown = app.state::<Shown>();
        let shown = shown.now();
        let place = event.id().as_ref().parse::<usize>().ok();
        match place.and_then(|place| shown.as_ref()?.0.menu.get(place)) {
            Some(Item::Choice { action, .. }) => *action,
            _ => return,
        }
    };
    let request = match action {
        Action::Open => return window::front(app),
        Action::Pause(pause) => Request::Pause(pause),
        Action::Resume => Request::Resume,
        Action::ShareNow { seconds } => Request::ShareNow { seconds },
        Action::GiveBack => Request::GiveBack,
        Action::Quit => Request::Stop,
    };
    let app = app.clone();
    tauri::async_runtime::spawn(async move {
        let link = app.state::<Link>().inner().clone();
        let guest = matches!(link, Link::There(_));
        let quits = request == Request::Stop;
        if let Err(error) = link.ask(request).await {
            tracing::warn!(error = format!("{error:#}"), "a choice in the tray failed");
        }
        // The engine of this process ends the process when it has handed everything back.
        if quits && guest {
            app.exit(0);
        }
    });
}

/// The artwork for the bar as it is now: macOS colours it, Windows has dark bars and light ones.
fn glyph(icon: Icon) -> Image<'static> {
    match (icon, MACOS, light()) {
        (Icon::Sharing, true, _) => include_image!("../icons/tray/sharing-template-36.png"),
        (Icon::Yielding, true, _) => include_image!("../icons/tray/yielding-template-36.png"),
        (Icon::Paused, true, _) => include_image!("../icons/tray/paused-template-36.png"),
        (Icon::Offline, true, _) => include_image!("../icons/tray/offline-template-36.png"),
        (Icon::Attention, true, _) => include_image!("../icons/tray/attention-template-36.png"),
        (Icon::Sharing, _, true) => include_image!("../icons/tray/sharing-light-32.png"),
        (Icon::Yielding, _, true) => include_image!("../icons/tray/yielding-light-32.png"),
        (Icon::Paused, _, true) => include_image!("../icons/tray/paused-light-32.png"),
        (Icon::Offline, _, true) => include_image!("../icons/tray/offline-light-32.png"),
        (Icon::Attention, _, true) => include_image!("../icons/tray/attention-light-32.png"),
        (Icon::Sharing, ..) => include_image!("../icons/tray/sharing-dark-32.png"),
        (Icon::Yielding, ..) => include_image!("../icons/tray/yielding-dark-32.png"),
        (Icon::Paused, ..) => include_image!("../icons/tray/paused-dark-32.png"),
        (Icon::Offline, ..) => include_image!("../icons/tray/offline-dark-32.png"),
        (Icon::Attention, ..) => include_image!("../icons/tray/attention-dark-32.png"),
    }
}

/// Whether the taskbar is light. Asked at each drawing: after a change of theme the glyph follows with the next status.
#[cfg(windows)]
fn light() -> bool {
    let theme = r"Software\Microsoft\Windows\CurrentVersion\Themes\Personalize";
    let theme = windows_registry::CURRENT_USER.open(theme);
    theme.and_then(|theme| theme.get_u32("SystemUsesLightTheme")).is_ok_and(|light| light == 1)
}

#[cfg(not(windows))]
fn light() -> bool {
    false
}
