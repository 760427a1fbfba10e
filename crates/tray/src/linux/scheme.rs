//! Whether the desktop is light or dark, told by its settings portal.

use std::future::pending;

use futures_util::StreamExt as _;
use zbus::fdo::DBusProxy;
use zbus::zvariant::OwnedValue;
use zbus::{Connection, Proxy};

const PORTAL: &str = "org.freedesktop.portal.Desktop";
const NAMESPACE: &str = "org.freedesktop.appearance";
const KEY: &str = "color-scheme";
/// The portal's value for "prefers light"; 0 is no preference, 1 prefers dark.
const PREFERS_LIGHT: u32 = 2;

/// The desktop's scheme, as last told.
pub(super) struct Scheme {
    dark: bool,
    told: Option<Told>,
}

struct Told {
    dbus: DBusProxy<'static>,
    settings: Proxy<'static>,
    changes: zbus::proxy::SignalStream<'static>,
    owners: zbus::fdo::NameOwnerChangedStream,
}

/// Reads the scheme and subscribes to it. Without a portal the glyph for dark panels is shown: GNOME's bar is dark
/// whatever the scheme, and desktops with light panels have a portal.
pub(super) async fn watch() -> Scheme {
    let told = match subscribe().await {
        Ok(told) => Some(told),
        Err(error) => {
            tracing::debug!(%error, "no settings portal: the tray shows its glyph for dark panels");
            None
        }
    };
    let mut scheme = Scheme { dark: true, told };
    scheme.read().await;
    scheme
}

async fn subscribe() -> zbus::Result<Told> {
    let bus = Connection::session().await?;
    let dbus = DBusProxy::new(&bus).await?;
    let owners = dbus.receive_name_owner_changed_with_args(&[(0, PORTAL)]).await?;
    let settings: Proxy<'static> = zbus::proxy::Builder::new(&bus)
        .destination(PORTAL)?
        .path("/org/freedesktop/portal/desktop")?
        .interface("org.freedesktop.portal.Settings")?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    let changes = settings.receive_signal_with_args("SettingChanged", &[(0, NAMESPACE), (1, KEY)]).await?;
    Ok(Told { dbus, settings, changes, owners })
}

impl Scheme {
    /// Whether the glyph should be light ink on a dark panel.
    pub(super) fn dark(&self) -> bool {
        self.dark
    }

    /// Waits until the scheme is another one; for ever without a portal.
    pub(super) async fn changed(&mut self) {
        let before = self.dark;
        while self.dark == before {
            let Some(told) = &mut self.told else { pending().await };
            let open = tokio::select! {
                change = told.changes.next() => change.is_some(),
                owner = told.owners.next() => owner.is_some(),
            };
            if open {
                self.read().await;
            } else {
                self.told = None;
            }
        }
    }

    async fn read(&mut self) {
        let Some(told) = &self.told else { return };
        // Asking a portal that does not run would start it.
        let Ok(name) = PORTAL.try_into() else { return };
        if !told.dbus.name_has_owner(name).await.unwrap_or(false) {
            return;
        }
        match told.settings.call::<_, _, OwnedValue>("ReadOne", &(NAMESPACE, KEY)).await {
            Ok(value) => self.dark = u32::try_from(value) != Ok(PREFERS_LIGHT),
            Err(error) => tracing::debug!(%error, "the settings portal does not tell the color scheme"),
        }
    }
}
