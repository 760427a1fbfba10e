//! Wall plugs, asked once a second on a thread of their own: one that answers slowly holds up no other sensor.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use idlewatt_core::device::{Sensor, SensorReading};
use idlewatt_signals::{LIMIT, Plug, PlugAddress};

/// Plugs show means over about a second.
const PACE: Duration = Duration::from_secs(1);

/// Plugs that answer. Their asking ends when this is dropped.
pub(super) struct Plugs {
    pub(super) sensors: Vec<Sensor>,
    /// Those that do not, and why.
    pub(super) silent: Vec<String>,
    orders: Sender<Sender<()>>,
    told: Receiver<SensorReading>,
}

impl Plugs {
    /// Asks each once, and those that answered again and again; `None` where there are none.
    pub(super) fn start(addresses: &[PlugAddress]) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let (mut plugs, mut sensors, mut silent) = (Vec::new(), Vec::new(), Vec::new());
        let (tell, told) = channel();
        for address in addresses {
            let read = Plug::new(address).and_then(|mut plug| Ok((runtime.block_on(plug.read())?, plug)));
            match read {
                Ok((reading, plug)) => {
                    sensors.push(plug.sensor().clone());
                    drop(tell.send(reading));
                    plugs.push(plug);
                }
                Err(error) => silent.push(format!("{address}: {error}")),
            }
        }
        let (orders, queue) = channel::<Sender<()>>();
        std::thread::spawn(move || {
            let mut next = Instant::now() + PACE;
            loop {
                let order = match queue.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(reply) => Some(reply),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                for plug in &mut plugs {
                    // One that is silent for once is asked again; the gap is the meter's to judge.
                    if let Ok(reading) = runtime.block_on(plug.read())
                        && tell.send(reading).is_err()
                    {
                        return;
                    }
                }
                next = Instant::now() + PACE;
                if let Some(reply) = order {
                    let _ = reply.send(());
                }
            }
        });
        (!addresses.is_empty()).then_some(Self { sensors, silent, orders, told })
    }

    /// Asks all of them now, and waits for their answers for as long as a plug may take.
    pub(super) fn ask(&self) {
        let (reply, asked) = channel();
        if !self.sensors.is_empty() && self.orders.send(reply).is_ok() {
            let _ = asked.recv_timeout(2 * LIMIT);
        }
    }

    /// What they told since this was asked last.
    pub(super) fn told(&self) -> impl Iterator<Item = SensorReading> {
        self.told.try_iter()
    }
}
