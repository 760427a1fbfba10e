//! The tray on a private bus, read and clicked as a desktop's panel does it.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail at once")]

use std::future::Future;
use std::process::Command;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use idlewatt_control::PauseFor;
use idlewatt_tray::{Action, Icon, Item, TrayError, TrayView, run};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zbus::zvariant::Value;

use self::panel::{PATIENCE, Panel, Shown};

mod panel;

const INSIDE: &str = "IDLEWATT_TEST_BUS";

/// Runs `claim` in a process of its own, on a bus of its own.
fn on_a_private_bus(name: &str, claim: impl Future<Output = Result<()>>) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async { timeout(PATIENCE * 3, claim).await }).unwrap().unwrap();
    }
    let status = Command::new("dbus-run-session")
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .expect("dbus-run-session (Debian: dbus-daemon) runs");
    assert!(status.success());
}

fn view(icon: Icon, sentence: &str) -> TrayView {
    TrayView {
        icon,
        title: "Idlewatt".to_owned(),
        tooltip: sentence.to_owned(),
        menu: vec![
            Item::Text(sentence.to_owned()),
            Item::Separator,
            Item::Choice {
                label: "Pause for 1 hour".to_owned(),
                action: Action::Pause(PauseFor::Seconds { seconds: 3_600 }),
            },
            Item::Choice { label: "Stop_sharing and quit".to_owned(), action: Action::Quit },
        ],
    }
}

struct Tray {
    show: watch::Sender<TrayView>,
    actions: mpsc::Receiver<Action>,
    task: JoinHandle<Result<(), TrayError>>,
}

fn start(first: TrayView) -> Tray {
    let (show, views) = watch::channel(first);
    let (choose, actions) = mpsc::channel(8);
    Tray { show, actions, task: tokio::spawn(run(views, choose)) }
}

impl Tray {
    async fn action(&mut self) -> Result<Action> {
        timeout(PATIENCE, self.actions.recv()).await?.context("the tray is gone")
    }
}

#[test]
fn the_panel_reads_what_the_view_says() {
    on_a_private_bus("the_panel_reads_what_the_view_says", async {
        let mut panel = Panel::open().await?;
        let _tray = start(view(Icon::Sharing, "Sharing: <b>nobody</b> asks."));
        let read = panel.item().await?.read().await?;
        assert_eq!(
            (read.id.as_str(), read.title.as_str(), read.status.as_str()),
            ("idlewatt", "Idlewatt", "Active")
        );
        assert_eq!(read.tooltip, "Idlewatt\nSharing: ‹b›nobody‹/b› asks.");
        assert_eq!(read.icon_sizes, [16, 22, 24, 32, 48]);
        let lines: Vec<_> =
            read.menu.iter().map(|line| (line.label.as_str(), line.enabled, line.separator)).collect();
        assert_eq!(
            lines,
            [
                ("Sharing: <b>nobody</b> asks.", false, false),
                ("", true, true),
                ("Pause for 1 hour", true, false),
                ("Stop__sharing and quit", true, false),
            ]
        );
        Ok(())
    });
}

#[test]
fn a_click_comes_out_as_its_action() {
    on_a_private_bus("a_click_comes_out_as_its_action", async {
        let mut panel = Panel::open().await?;
        let mut tray = start(view(Icon::Paused, "Paused: you are here."));
        let shown = panel.item().await?;
        shown.click("Pause for 1 hour").await?;
        assert_eq!(tray.action().await?, Action::Pause(PauseFor::Seconds { seconds: 3_600 }));
        shown.click("Stop__sharing and quit").await?;
        assert_eq!(tray.action().await?, Action::Quit);
        shown.left_click().await?;
        assert_eq!(tray.action().await?, Action::Open);
        Ok(())
    });
}

#[test]
fn a_change_is_told_and_the_same_view_again_is_not() {
    on_a_private_bus("a_change_is_told_and_the_same_view_again_is_not", async {
        let mut panel = Panel::open().await?;
        let tray = start(view(Icon::Sharing, "Sharing."));
        let shown = panel.item().await?;
        let before = shown.pixmaps().await?;
        let mut icons = shown.item.receive_signal("NewIcon").await?;
        let mut told = shown.item.receive_all_signals().await?;

        tray.show.send(view(Icon::Sharing, "Sharing."))?;
        tray.show.send(view(Icon::Attention, "Sharing. The keyring is locked."))?;
        timeout(PATIENCE, icons.next()).await?;
        let read = shown.read().await?;
        assert_eq!(read.status, "NeedsAttention");
        assert_eq!(read.tooltip, "Idlewatt\nSharing. The keyring is locked.");
        assert_eq!(read.menu[0].label, "Sharing. The keyring is locked.");
        assert_ne!(shown.pixmaps().await?, before);

        // What follows the change is the next change: nothing is told in between.
        let next = async || -> Result<String> {
            let signal = timeout(PATIENCE, told.next()).await?.context("the item is gone")?;
            Ok(signal.header().member().context("a signal has a name")?.to_string())
        };
        let mut next = next;
        let mut names = Vec::new();
        while names.len() < 3 {
            names.push(next().await?);
        }
        names.sort();
        assert_eq!(names, ["NewIcon", "NewStatus", "NewToolTip"]);
        tray.show.send(view(Icon::Attention, "Sharing. The keyring is locked."))?;
        tray.show.send(view(Icon::Attention, "Sharing again."))?;
        assert_eq!(next().await?, "NewToolTip");
        Ok(())
    });
}

#[test]
fn a_panel_that_comes_later_gets_the_item() {
    on_a_private_bus("a_panel_that_comes_later_gets_the_item", async {
        let tray = start(view(Icon::Offline, "Offline."));
        // The item is on the bus before any panel is.
        let bus = zbus::Connection::session().await?;
        let dbus = zbus::fdo::DBusProxy::new(&bus).await?;
        let mut names = dbus.receive_name_owner_changed().await?;
        let ours = |name: &str| name.starts_with("org.kde.StatusNotifierItem-");
        while !dbus.list_names().await?.iter().any(|name| ours(name.as_str())) {
            timeout(PATIENCE, names.next()).await?;
        }
        let mut panel = Panel::open().await?;
        assert_eq!(panel.item().await?.read().await?.tooltip, "Idlewatt\nOffline.");

        // And again after the panel was restarted.
        drop(panel);
        let mut panel = Panel::open().await?;
        let shown: Shown = panel.item().await?;
        assert_eq!(shown.read().await?.tooltip, "Idlewatt\nOffline.");

        let Tray { show, task, .. } = tray;
        drop(show);
        timeout(PATIENCE, task).await??.context("the tray ends with its view")?;
        Ok(())
    });
}

struct Portal(u32);

#[zbus::interface(name = "org.freedesktop.portal.Settings")]
impl Portal {
    #[zbus(name = "ReadOne")]
    fn read_one(&self, _namespace: &str, _key: &str) -> Value<'static> {
        Value::from(self.0)
    }
}

#[test]
fn a_light_desktop_gets_the_dark_glyph_and_a_portal_that_comes_later_is_heard() {
    let name = "a_light_desktop_gets_the_dark_glyph_and_a_portal_that_comes_later_is_heard";
    on_a_private_bus(name, async {
        let mut panel = Panel::open().await?;
        let _tray = start(view(Icon::Paused, "Paused."));
        let shown = panel.item().await?;
        let ink = |pixmaps: &[panel::Pixmap]| -> u64 {
            let opaque = pixmaps[3].2.chunks_exact(4).filter(|argb| argb[0] > 200);
            opaque.map(|argb| u64::from(argb[2])).sum()
        };
        let on_dark = ink(&shown.pixmaps().await?);
        let mut icons = shown.item.receive_signal("NewIcon").await?;
        let portal = zbus::connection::Builder::session()?
            .serve_at("/org/freedesktop/portal/desktop", Portal(2))?
            .name("org.freedesktop.portal.Desktop")?
            .build()
            .await?;
        timeout(PATIENCE, icons.next()).await?;
        let on_light = ink(&shown.pixmaps().await?);
        assert!(on_light * 3 < on_dark, "{on_light} is not darker than {on_dark}");
        portal
            .emit_signal(
                None::<&str>,
                "/org/freedesktop/portal/desktop",
                "org.freedesktop.portal.Settings",
                "SettingChanged",
                &("org.freedesktop.appearance", "color-scheme", Value::from(2_u32)),
            )
            .await?;
        Ok(())
    });
}
