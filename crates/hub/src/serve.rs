//! `idlewatt-hub serve`: listens, says where, and drains when told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use idlewatt_hub_core::ledger::FeeRate;
use url::Url;

/// What `idlewatt-hub serve` was asked for.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The folder of `hub.db`, `hub.key` and `admin.sock`; made when missing.
    pub data: PathBuf,
    /// The address that invites and nodes are given, where it is not the one listened on.
    pub public_url: Option<Url>,
    /// The hub's part of each payment.
    pub fee: FeeRate,
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// When the address is in use, or the data folder cannot be opened.
pub async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    anyhow::bail!("cannot listen on {}: the gateway is not built in", options.listen)
}
