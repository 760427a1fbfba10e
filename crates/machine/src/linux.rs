//! Linux: UPower, logind and NetworkManager tell over D-Bus, the kernel of memory and clocks. None of them is started by
//! being asked.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use crate::{KeepAwake, Options, Teller};

mod clocks;
mod daemon;
mod lid_and_sleep;
mod memory;
mod network;
mod supply;

pub(crate) use clocks::slept;
pub(crate) use lid_and_sleep::Inhibitor;

/// A system bus that is not there, or was lost, is looked for again this often.
const BUS_AGAIN: Duration = Duration::from_secs(60);

pub(crate) async fn follow(options: Options, teller: Teller) {
    tokio::join!(
        clocks::follow(&teller),
        memory::follow(&options.proc, &teller),
        follow_daemons(&options, &teller),
    );
}

async fn follow_daemons(options: &Options, teller: &Teller) -> Infallible {
    loop {
        if let Some(address) = &options.system_bus {
            match daemon::connect(address).await {
                Ok(bus) => {
                    let lost = tokio::select! {
                        lost = supply::follow(&bus, &options.sysfs, teller) => lost,
                        lost = lid_and_sleep::follow(&bus, &options.sysfs, teller) => lost,
                        lost = network::follow(&bus, teller) => lost,
                    };
                    tracing::warn!(lost, "the system bus is lost");
                }
                Err(error) => tracing::debug!(%error, "no system bus"),
            }
        }
        lid_and_sleep::nobody(teller);
        network::nobody(teller);
        tokio::select! {
            never = supply::read(&options.sysfs, teller) => match never {},
            never = refuse(teller) => match never {},
            () = tokio::time::sleep(BUS_AGAIN) => {}
        }
    }
}

/// Says to whoever wants the machine awake that nobody here can keep it so.
async fn refuse(teller: &Teller) -> Infallible {
    let mut wished = teller.wished.clone();
    loop {
        let why = "logind, which keeps Linux awake, does not answer".to_owned();
        let awake = wished.borrow_and_update().awake;
        teller.held(if awake { KeepAwake::Refused { why } } else { KeepAwake::Released });
        if wished.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}
