//! Windows: the system calls back before it sleeps, when it wakes and when the lid moves; the power supply, memory and the
//! cost of the connection are read.

use std::convert::Infallible;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::calls::Calls;
use crate::{Options, READ, Sight, Teller, stay_awake, until_due};

mod asked;
mod calls;

pub(crate) use asked::slept;

/// What makes Windows wait in its call before it sleeps: it goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Inhibitor {
    _call: std::sync::mpsc::Sender<()>,
}

/// What the system called back for.
#[derive(Debug)]
enum Told {
    /// It sleeps once this is dropped.
    Sleeps(std::sync::mpsc::Sender<()>),
    Woke,
    LidClosed(bool),
}

pub(crate) async fn follow(options: Options, teller: Teller) {
    let (tell, told) = unbounded_channel();
    // The calls come for as long as this lives.
    let calls = Calls::register(&tell);
    drop(tell);
    teller.sight(Sight {
        subject: "sleep",
        reading: calls.sleep.then(|| "Windows tells before it sleeps and when it wakes".to_owned()),
        unseen: Some("sleep with less than two seconds' notice, as on an empty battery"),
    });
    teller.sight(Sight {
        subject: "lid",
        reading: calls.lid.then(|| "Windows tells of it".to_owned()),
        unseen: Some("whether another screen is used"),
    });
    tokio::join!(
        hear(told, &teller),
        read(&options, &teller),
        stay_awake(&teller, asked::Request::stay_awake)
    );
}

async fn hear(mut told: UnboundedReceiver<Told>, teller: &Teller) -> Infallible {
    while let Some(news) = told.recv().await {
        match news {
            Told::Sleeps(call) => {
                teller.brake.hold(Some(Inhibitor { _call: call }));
                teller.state(|state| state.going_to_sleep = true);
            }
            Told::Woke => {
                teller.brake.release();
                teller.state(|state| state.going_to_sleep = false);
                teller.jumped();
            }
            Told::LidClosed(closed) => teller.state(|state| state.lid_closed = Some(closed)),
        }
    }
    std::future::pending().await
}

async fn read(options: &Options, teller: &Teller) -> Infallible {
    /// A clock that was set this much apart was set by somebody.
    const SET: Duration = Duration::from_secs(2);
    let sysfs = options.sysfs.clone();
    let mut clocks = (Instant::now(), SystemTime::now());
    loop {
        let places = idlewatt_devices::Places { sysfs: sysfs.clone(), ..idlewatt_devices::Places::default() };
        let asked = tokio::task::spawn_blocking(move || asked::Asked::now(&places)).await;
        if let Ok(asked) = asked {
            teller.state(|state| {
                state.supply = asked.supply;
                state.metered = asked.metered;
                state.memory_short = asked.memory_short;
            });
            for sight in asked.sights() {
                teller.sight(sight);
            }
        }
        until_due(teller).await;
        let now = (Instant::now(), SystemTime::now());
        let went_on = now.0 - clocks.0;
        let by_wall = now.1.duration_since(clocks.1).unwrap_or_default();
        if by_wall.abs_diff(went_on) > SET && went_on < READ * 3 {
            teller.jumped();
        }
        clocks = now;
        teller.sight(Sight {
            subject: "clocks",
            reading: Some("compared every ten seconds while sharing".to_owned()),
            unseen: None,
        });
    }
}
