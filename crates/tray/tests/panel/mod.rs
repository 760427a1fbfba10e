//! A panel without a screen: it owns `org.kde.StatusNotifierWatcher`, takes items, and reads and clicks them as a desktop's
//! panel would.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tokio::sync::mpsc;
use zbus::zvariant::{OwnedValue, Value};
use zbus::{Connection, Proxy};

/// Longer than any panel waits; a test that needs it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct Panel {
    pub(crate) bus: Connection,
    items: mpsc::UnboundedReceiver<String>,
}

struct Watcher(mpsc::UnboundedSender<String>);

#[zbus::interface(name = "org.kde.StatusNotifierWatcher")]
impl Watcher {
    fn register_status_notifier_item(&self, service: String) {
        let _ = self.0.send(service);
    }

    #[zbus(property)]
    fn is_status_notifier_host_registered(&self) -> bool {
        true
    }
}

impl Panel {
    /// Becomes the panel of the session bus.
    pub(crate) async fn open() -> Result<Self> {
        let (tell, items) = mpsc::unbounded_channel();
        let bus = zbus::connection::Builder::session()?
            .serve_at("/StatusNotifierWatcher", Watcher(tell))?
            .name("org.kde.StatusNotifierWatcher")?
            .build()
            .await?;
        Ok(Self { bus, items })
    }

    /// The next item that registers.
    pub(crate) async fn item(&mut self) -> Result<Shown> {
        let service = tokio::time::timeout(PATIENCE, self.items.recv())
            .await
            .context("no item has registered")?
            .context("the panel is closed")?;
        let item = proxy(&self.bus, &service, "/StatusNotifierItem", "org.kde.StatusNotifierItem").await?;
        let menu = proxy(&self.bus, &service, "/MenuBar", "com.canonical.dbusmenu").await?;
        Ok(Shown { item, menu })
    }
}

async fn proxy(
    bus: &Connection,
    service: &str,
    path: &'static str,
    interface: &'static str,
) -> Result<Proxy<'static>> {
    Ok(zbus::proxy::Builder::new(bus)
        .destination(service.to_owned())?
        .path(path)?
        .interface(interface)?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?)
}

/// An item as the panel has it.
pub(crate) struct Shown {
    pub(crate) item: Proxy<'static>,
    pub(crate) menu: Proxy<'static>,
}

/// Everything the panel was told.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ReadOut {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) status: String,
    pub(crate) tooltip: String,
    /// Widths of the pixmaps, pixels.
    pub(crate) icon_sizes: Vec<i32>,
    /// The largest pixmap, as a hexadecimal ARGB.
    pub(crate) glyph: String,
    pub(crate) menu: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Line {
    #[serde(skip)]
    pub(crate) id: i32,
    pub(crate) label: String,
    pub(crate) enabled: bool,
    pub(crate) separator: bool,
}

pub(crate) type Pixmap = (i32, i32, Vec<u8>);

impl Shown {
    pub(crate) async fn read(&self) -> Result<ReadOut> {
        let (_, _, title, sentence): (String, Vec<Pixmap>, String, String) =
            self.item.get_property("ToolTip").await?;
        let pixmaps = self.pixmaps().await?;
        let largest = pixmaps.iter().max_by_key(|(width, ..)| *width).context("no glyph")?;
        Ok(ReadOut {
            id: self.item.get_property("Id").await?,
            title: self.item.get_property("Title").await?,
            status: self.item.get_property("Status").await?,
            tooltip: format!("{title}\n{sentence}"),
            icon_sizes: pixmaps.iter().map(|(width, ..)| *width).collect(),
            glyph: largest.2.iter().map(|byte| format!("{byte:02x}")).collect(),
            menu: self.lines().await?,
        })
    }

    pub(crate) async fn pixmaps(&self) -> Result<Vec<Pixmap>> {
        Ok(self.item.get_property("IconPixmap").await?)
    }

    /// The whole menu, by `GetLayout`.
    pub(crate) async fn lines(&self) -> Result<Vec<Line>> {
        type Node = (i32, HashMap<String, OwnedValue>, Vec<OwnedValue>);
        let nothing: &[&str] = &[];
        let (_, (_, _, children)): (u32, Node) = self.menu.call("GetLayout", &(0, -1, nothing)).await?;
        children.iter().map(|child| line(child)).collect()
    }

    /// Clicks the line that says `label`.
    pub(crate) async fn click(&self, label: &str) -> Result<()> {
        let lines = self.lines().await?;
        let line = lines.iter().find(|line| line.label == label).context("no such line")?;
        self.menu.call::<_, _, ()>("Event", &(line.id, "clicked", Value::from(0), 0_u32)).await?;
        Ok(())
    }

    pub(crate) async fn left_click(&self) -> Result<()> {
        Ok(self.item.call::<_, _, ()>("Activate", &(0, 0)).await?)
    }
}

fn line(node: &Value<'_>) -> Result<Line> {
    let Value::Structure(node) = node else { bail!("a menu node is no structure: {node:?}") };
    let [Value::I32(id), Value::Dict(properties), Value::Array(_)] = node.fields() else {
        bail!("a menu node of another shape: {node:?}")
    };
    let label: Option<String> = properties.get(&"label")?;
    let enabled: Option<bool> = properties.get(&"enabled")?;
    let kind: Option<String> = properties.get(&"type")?;
    Ok(Line {
        id: *id,
        label: label.unwrap_or_default(),
        enabled: enabled.unwrap_or(true),
        separator: kind.as_deref() == Some("separator"),
    })
}
