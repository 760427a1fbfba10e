//! Systems on which no card's limit can be set: Apple's GPUs have none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;

use crate::custody::Custody;

pub(crate) fn state() -> PathBuf {
    "/var/lib/idlewatt".into()
}

#[expect(clippy::unused_async, reason = "as on the systems that have something to wait for")]
pub(crate) async fn serve(_path: &Path, _custody: Arc<Custody>) -> anyhow::Result<()> {
    bail!("no card's limit can be set on this system")
}
