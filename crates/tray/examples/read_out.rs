//! Becomes the panel of the session bus, waits for Idlewatt's item, and prints what it was told as JSON: title, status,
//! tooltip and the whole menu. With arguments it then clicks the lines they name, in order, reading again after each.

#[cfg(target_os = "linux")]
#[path = "../tests/panel/mod.rs"]
mod panel;

#[cfg(target_os = "linux")]
#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "printing is what it is for")]
async fn main() -> anyhow::Result<()> {
    use futures_util::StreamExt as _;

    let mut panel = panel::Panel::open().await?;
    let shown = panel.item().await?;
    let mut told = shown.item.receive_all_signals().await?;
    println!("{}", serde_json::to_string(&shown.read().await?)?);
    // `open` is the left click on the glyph; everything else is a line of the menu.
    for label in std::env::args().skip(1) {
        match label.as_str() {
            "open" => shown.left_click().await?,
            label => shown.click(label).await?,
        }
        tokio::time::timeout(panel::PATIENCE, told.next()).await?;
        println!("{}", serde_json::to_string(&shown.read().await?)?);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
