//! macOS: no source yet. A person may be here, so the reading is [`PresenceReading::Blind`] and sharing waits to be told.

use std::future::pending;

use idlewatt_core::presence::PresenceReading;
use tokio::sync::watch;

use crate::teller::Teller;
use crate::{Options, Program, Sight};

pub(crate) async fn input(_options: Options, teller: Teller) {
    teller.source(Sight {
        reading: PresenceReading::Blind,
        source: "this build cannot see input on macOS".to_owned(),
        unseen: &["whether anybody is here"],
        action: Some("Set share.while_active to share although somebody may be here.".to_owned()),
    });
    pending().await
}

pub(crate) async fn activity(_options: Options, _listed: watch::Receiver<Vec<String>>, teller: Teller) {
    teller.unheard("games and calls", "this build cannot see them on macOS");
    pending().await
}

pub(crate) fn programs(_options: &Options) -> Vec<Program> {
    Vec::new()
}
