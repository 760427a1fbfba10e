//! The tray over D-Bus: a StatusNotifierItem with its menu, drawn by the desktop's own panel. No toolkit is loaded.

use ksni::TrayMethods as _;
use ksni::menu::StandardItem;
use tokio::sync::{mpsc, watch};

use crate::view::{Action, Icon, Item, TrayView};

mod glyph;
mod scheme;

/// Why no tray can be shown.
#[derive(Debug, thiserror::Error)]
pub enum TrayError {
    /// There is no session bus to show it on.
    #[error("no tray: the session bus does not answer ({0}); start Idlewatt from the desktop session")]
    NoBus(#[source] ksni::Error),
}

/// Shows `view` in the panel, and every later one, until its sender is gone; sends what the person chooses to
/// `actions`. Where the session has no panel for trays yet, it waits to be told of one.
///
/// # Errors
/// When there is no session bus.
pub async fn run(
    mut view: watch::Receiver<TrayView>,
    actions: mpsc::Sender<Action>,
) -> Result<(), TrayError> {
    let mut scheme = scheme::watch().await;
    let mut shown = view.borrow_and_update().clone();
    let item = Panel { view: shown.clone(), dark: scheme.dark(), actions };
    let handle = item.assume_sni_available(true).spawn().await.map_err(TrayError::NoBus)?;
    loop {
        tokio::select! {
            changed = view.changed() => {
                if changed.is_err() {
                    break;
                }
                if *view.borrow_and_update() != shown {
                    shown.clone_from(&view.borrow());
                    handle.update(|item| item.view = shown.clone()).await;
                }
            }
            () = scheme.changed() => {
                let dark = scheme.dark();
                handle.update(|item| item.dark = dark).await;
            }
        }
    }
    handle.shutdown().await;
    Ok(())
}

/// The item as the panel asks for it.
struct Panel {
    view: TrayView,
    dark: bool,
    actions: mpsc::Sender<Action>,
}

impl Panel {
    /// Hands a choice on. A full queue means the engine is behind by many clicks; one more would change nothing.
    fn chosen(&self, action: Action) {
        if let Err(error) = self.actions.try_send(action) {
            tracing::warn!(?action, %error, "a choice in the tray was not taken");
        }
    }
}

impl ksni::Tray for Panel {
    fn id(&self) -> String {
        "idlewatt".to_owned()
    }

    fn title(&self) -> String {
        self.view.title.clone()
    }

    fn status(&self) -> ksni::Status {
        match self.view.icon {
            Icon::Attention => ksni::Status::NeedsAttention,
            _ => ksni::Status::Active,
        }
    }

    fn icon_pixmap(&self) -> Vec<ksni::Icon> {
        glyph::pixmaps(self.view.icon, self.dark)
    }

    fn attention_icon_pixmap(&self) -> Vec<ksni::Icon> {
        glyph::pixmaps(Icon::Attention, self.dark)
    }

    fn tool_tip(&self) -> ksni::ToolTip {
        ksni::ToolTip {
            title: self.view.title.clone(),
            // Panels may read markup here, and names in the sentence come from elsewhere.
            description: self.view.tooltip.replace('<', "‹").replace('>', "›"),
            ..Default::default()
        }
    }

    fn activate(&mut self, _x: i32, _y: i32) {
        self.chosen(Action::Open);
    }

    fn menu(&self) -> Vec<ksni::MenuItem<Self>> {
        self.view.menu.iter().map(line).collect()
    }
}

fn line(item: &Item) -> ksni::MenuItem<Panel> {
    // In a menu's label one underscore marks the access key.
    let plain = |text: &str| text.replace('_', "__");
    match item {
        Item::Separator => ksni::MenuItem::Separator,
        Item::Text(text) => StandardItem { label: plain(text), enabled: false, ..Default::default() }.into(),
        Item::Choice { label, action } => {
            let action = *action;
            let activate = Box::new(move |panel: &mut Panel| panel.chosen(action));
            StandardItem { label: plain(label), activate, ..Default::default() }.into()
        }
    }
}
