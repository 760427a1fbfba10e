//! macOS: power supply, memory and clocks are read, sleep is seen when it is over, and an assertion keeps the machine
//! awake. Type-checked only: never run.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use idlewatt_core::machine::Supply;
use idlewatt_devices::{Places, supply};

use crate::{Options, Sight, Teller, stay_awake, until_due};

mod asked;

pub(crate) use asked::slept;

/// There is none: before it sleeps, macOS asks only those who run its event loop.
#[derive(Debug)]
pub(crate) enum Inhibitor {}

pub(crate) async fn follow(_options: Options, teller: Teller) {
    for subject in ["lid", "connection"] {
        teller.sight(Sight { subject, reading: None, unseen: None });
    }
    tokio::join!(read(&teller), stay_awake(&teller, asked::Assertion::stay_awake));
}

async fn read(teller: &Teller) -> Infallible {
    /// A clock that was set this much apart was set by somebody.
    const SET: Duration = Duration::from_secs(2);
    let mut before = (asked::running(), slept(), SystemTime::now());
    loop {
        let supply = tokio::task::spawn_blocking(|| supply(&Places::default())).await.ok().flatten();
        let memory_short = asked::is_memory_short();
        teller.state(|state| {
            state.supply = supply;
            state.memory_short = memory_short;
        });
        let said = |subject, told: Option<&str>, unseen| Sight {
            subject,
            reading: told.map(|told| format!("macOS says: {told}")),
            unseen,
        };
        let from = supply.map(|it| if it == Supply::Mains { "the mains" } else { "a battery" });
        teller.sight(said("power supply", from, None));
        teller.sight(said("memory", memory_short.map(|it| if it { "short" } else { "enough" }), None));
        let slept_so_far = format!("slept {} s so far", slept().as_secs());
        teller.sight(said("sleep", Some(&slept_so_far), Some("that sleep is about to begin")));
        teller.sight(said("clocks", Some("compared every ten seconds while sharing"), None));
        until_due(teller).await;
        let now = (asked::running(), slept(), SystemTime::now());
        let went_on = (now.0 + now.1).saturating_sub(before.0 + before.1);
        let by_wall = now.2.duration_since(before.2).unwrap_or_default();
        if now.1 > before.1 + SET || by_wall.abs_diff(went_on) > SET {
            teller.jumped();
        }
        before = now;
    }
}
