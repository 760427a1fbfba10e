//! Windows: no source yet, so nothing is known, and the machine sleeps when it wants to.

use std::future::pending;

use crate::{KeepAwake, Options, Sight, Teller};

/// There is none.
#[derive(Debug)]
pub(crate) enum Inhibitor {}

pub(crate) async fn follow(_options: Options, teller: Teller) {
    for subject in ["power supply", "lid", "connection", "memory", "sleep", "clocks"] {
        teller.sight(Sight { subject, reading: None, unseen: None });
    }
    let mut wished = teller.wished.clone();
    loop {
        let why = "this build cannot keep Windows awake".to_owned();
        teller.held(if wished.borrow_and_update().awake {
            KeepAwake::Refused { why }
        } else {
            KeepAwake::Released
        });
        if wished.changed().await.is_err() {
            return pending().await;
        }
    }
}
