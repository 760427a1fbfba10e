//! Windows: no source yet. A person may be here, so the reading is [`PresenceReading::Blind`] and sharing waits to be told.

use std::future::pending;

use idlewatt_core::presence::PresenceReading;

use crate::{Options, Sight, Teller};

pub(crate) async fn follow(_options: Options, teller: Teller) {
    teller.source(Sight {
        reading: PresenceReading::Blind,
        source: "this build cannot see input on Windows".to_owned(),
        unseen: &["whether anybody is here"],
        action: Some("Set share.while_active to share although somebody may be here.".to_owned()),
    });
    pending().await
}
