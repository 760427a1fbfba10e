//! Linux: UPower, logind and NetworkManager tell over D-Bus, the kernel of memory and clocks. None of them is started by
//! being asked.

use std::convert::Infallible;
use std::time::Duration;

use crate::{KeepAwake, Options, Teller};
use clocks::Slept;

mod clocks;
mod daemon;
mod lid_and_sleep;
mod memory;
mod network;
mod supply;

pub(crate) use lid_and_sleep::Inhibitor;

/// What can only be read is read this often while somebody depends on it.
const READ: Duration = Duration::from_secs(10);

/// A system bus that is not there, or was lost, is looked for again this often.
const BUS_AGAIN: Duration = Duration::from_secs(60);

pub(crate) async fn follow(options: Options, teller: Teller) {
    let slept = Slept::default();
    tokio::join!(
        clocks::follow(&slept, &teller),
        memory::follow(&options.proc, &teller),
        follow_daemons(&options, &slept, &teller),
    );
}

async fn follow_daemons(options: &Options, slept: &Slept, teller: &Teller) -> Infallible {
    loop {
        if let Some(address) = &options.system_bus {
            match daemon::connect(address).await {
                Ok(bus) => {
                    let lost = tokio::select! {
                        lost = supply::follow(&bus, &options.sysfs, teller) => lost,
                        lost = lid_and_sleep::follow(&bus, &options.sysfs, slept, teller) => lost,
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
            std::future::pending::<()>().await;
        }
    }
}

/// Waits until what can only be read is to be read again: in a while, and only while somebody depends on it; at once
/// when somebody begins to.
async fn until_due(teller: &Teller) {
    let mut wished = teller.wished.clone();
    let attended = wished.borrow_and_update().attend;
    let begins = async {
        if wished.wait_for(|wishes| wishes.attend).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    if attended {
        tokio::time::sleep(READ).await;
    } else {
        begins.await;
    }
}
