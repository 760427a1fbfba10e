//! The X server's idle counter. Two alarms of the SYNC extension tell when it passes a threshold upwards (nobody has
//! touched anything for that long) and downwards (somebody has, this moment); in between nothing runs here. What was
//! touched the counter does not say, so nothing here ever learns of a key.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use x11rb::connection::Connection as _;
use x11rb::protocol::Event;
use x11rb::protocol::sync::{ConnectionExt as _, CreateAlarmAux, Int64, TESTTYPE, VALUETYPE};
use x11rb::rust_connection::RustConnection;

use super::{Lost, ask, event, wire};
use crate::teller::Teller;
use crate::{Sight, before_now, reading};

/// Tells of input on `display` until the server is lost.
pub(in super::super) async fn follow(display: &str, quiet: Duration, teller: &Teller) -> Lost {
    let named = display.to_owned();
    let counter = match ask(move || Counter::open(&named, quiet)).await {
        Ok(counter) => counter,
        Err(lost) => return lost,
    };
    teller.source(Sight {
        reading: reading(counter.idle, quiet),
        source: format!("the idle counter of X display {display}"),
        unseen: &["input of other seats"],
        action: None,
    });
    match counter.tell(teller).await {
        Ok(never) => match never {},
        Err(lost) => lost,
    }
}

struct Counter {
    server: RustConnection,
    /// Fires when input stops.
    rests: u32,
    /// Fires when input comes back.
    stirs: u32,
    /// Time since the last input, when opened.
    idle: Duration,
}

impl Counter {
    /// Connects and sets both alarms; blocks for some round trips.
    fn open(display: &str, quiet: Duration) -> Result<Self, Lost> {
        let (server, _) = RustConnection::connect(Some(display))?;
        server.sync_initialize(3, 1)?.reply()?;
        let counters = server.sync_list_system_counters()?.reply()?.counters;
        let idle = counters.into_iter().find(|counter| counter.name == b"IDLETIME");
        let counter = idle.ok_or(Lost::NoCounter)?.counter;
        // Asked before the alarms are set: asking is how the server learns the counter's value, and an alarm waits for a
        // passage from the value known when it was set. Asked after, an input just then would go unseen.
        let idle = duration(server.sync_query_counter(counter)?.reply()?.counter_value);
        let alarm = |test: TESTTYPE, at: Duration| -> Result<u32, Lost> {
            let id = server.generate_id()?;
            let about = CreateAlarmAux::new()
                .counter(counter)
                .value_type(VALUETYPE::ABSOLUTE)
                .value(millis(at))
                .test_type(test)
                .delta(Int64 { hi: 0, lo: 0 })
                .events(1);
            server.sync_create_alarm(id, &about)?.check()?;
            Ok(id)
        };
        let rests = alarm(TESTTYPE::POSITIVE_TRANSITION, quiet)?;
        // Well below: the server may note the passage upwards at exactly `quiet`, and a passage downwards counts only
        // from a value above the alarm's own.
        let stirs = alarm(TESTTYPE::NEGATIVE_TRANSITION, quiet / 2)?;
        Ok(Self { server, rests, stirs, idle })
    }

    async fn tell(self, teller: &Teller) -> Result<Infallible, Lost> {
        let wire = wire(&self.server)?;
        loop {
            let Event::SyncAlarmNotify(alarm) = event(&self.server, &wire).await? else { continue };
            if alarm.alarm == self.stirs {
                teller.reading(PresenceReading::Active { since: Instant::now() });
            } else if alarm.alarm == self.rests {
                let last_input = before_now(duration(alarm.counter_value));
                teller.reading(PresenceReading::Idle { last_input });
            }
        }
    }
}

fn millis(span: Duration) -> Int64 {
    let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let [a, b, c, d, rest @ ..] = millis.to_be_bytes();
    Int64 { hi: i32::from_be_bytes([a, b, c, d]), lo: u32::from_be_bytes(rest) }
}

fn duration(value: Int64) -> Duration {
    let millis = (i64::from(value.hi) << 32) | i64::from(value.lo);
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_64_bit_milliseconds() {
        for span in [Duration::ZERO, Duration::from_millis(2_000), Duration::from_secs(5_000_000)] {
            assert_eq!(duration(millis(span)), span);
        }
        assert_eq!(duration(Int64 { hi: -1, lo: 5 }), Duration::ZERO);
    }
}
