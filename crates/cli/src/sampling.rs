//! Reads this machine's power sensors at a steady pace on a thread of its own, and says what each measured over a
//! stretch of time. The figures themselves are the meter's (`idlewatt_core::meter`), one meter a sensor.
//!
//! Needs no running engine. Reads and never sets.

mod plugs;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use idlewatt_core::device::{GpuReading, Sensor, SensorReading};
use idlewatt_core::meter::{Meter, Place, Task};
use idlewatt_devices::{Finding, Level, Places, Sensors, of_card};
use idlewatt_protocol::receipt::Energy;
use idlewatt_protocol::{Label, Millijoules, Milliwatts, RequestId};
use idlewatt_signals::PlugAddress;

use plugs::Plugs;

/// The meter knows work by requests; a stretch is one that runs on the sensor alone.
const STRETCH: RequestId = RequestId([0; 16]);

/// How long the first stretch waits for sensors that tell nothing yet.
const SETTLE: Duration = Duration::from_millis(300);

/// One round of readings: each sensor in the order of [`Sampling::sensors`].
pub(crate) struct Sample {
    /// When.
    pub(crate) at: Instant,
    /// Power and the energy of the stretch so far.
    pub(crate) sensors: Vec<(Option<Milliwatts>, Millijoules)>,
}

/// What one sensor measured over a stretch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stretch {
    /// Which sensor.
    pub(crate) sensor: Sensor,
    /// How long.
    pub(crate) time: Duration,
    /// How much, how well known.
    pub(crate) energy: Energy,
    /// Highest reading.
    pub(crate) peak: Option<Milliwatts>,
    /// Highest temperature, °C; of cards only.
    pub(crate) hottest_c: Option<i32>,
    /// The limit in force at its end; of cards only.
    pub(crate) limit: Option<Milliwatts>,
}

impl Stretch {
    /// Energy over time; `None` where energy is unknown.
    pub(crate) fn mean(&self) -> Option<Milliwatts> {
        let micros = i64::try_from(self.time.as_micros()).ok().filter(|it| *it > 0)?;
        let exact = i128::from(self.energy.total_mj?.0) * 1_000_000 / i128::from(micros);
        i64::try_from(exact).ok().map(Milliwatts)
    }
}

/// Sensors being read. Dropping it stops the reading.
pub(crate) struct Sampling {
    sensors: Vec<Sensor>,
    missing: Vec<String>,
    cards: Vec<GpuReading>,
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Begin(Sender<()>),
    End(Sender<Vec<Stretch>>),
}

impl Sampling {
    /// Looks for sensors and reads them every `pace` from then on; plugs are asked once a second. `each` is told of every
    /// round of readings during a stretch, on the reading thread.
    pub(crate) fn start(
        places: &Places,
        plugs: &[PlugAddress],
        pace: Duration,
        each: impl FnMut(&Sample) + Send + 'static,
    ) -> Self {
        let mut sensors = Sensors::new(places);
        let cards: Vec<GpuReading> = sensors.gpus().read().into_iter().flatten().collect();
        // The first reading of a processor's counter is what its power is told from.
        drop(sensors.read_machine());
        let mut list = sensors.list();
        let mut missing = sensors.gpus().findings();
        // What is said of a card that is read is no absence.
        missing.retain(|it| it.level == Level::Problem || (cards.is_empty() && it.level > Level::Good));
        missing.extend(sensors.missing());
        let mut missing: Vec<String> = missing.iter().map(in_words).collect();
        let plugs = Plugs::start(plugs);
        if let Some(plugs) = &plugs {
            list.extend(plugs.sensors.iter().cloned());
            missing.extend(plugs.silent.iter().cloned());
        }
        let known = list.iter().map(|it| (it.id.clone(), Watched::of(it.clone()))).collect();
        let order = list.iter().map(|it| it.id.clone()).collect();
        let reading = Reading { sensors, plugs, known, order, begun: None, each };
        let (orders, queue) = channel();
        let thread = std::thread::spawn(move || reading.run(&queue, pace));
        Self { sensors: list, missing, cards, orders: Some(orders), thread: Some(thread) }
    }

    /// What can be read.
    pub(crate) fn sensors(&self) -> &[Sensor] {
        &self.sensors
    }

    /// What cannot be read, and why.
    pub(crate) fn missing(&self) -> &[String] {
        &self.missing
    }

    /// The cards as they were when this started.
    pub(crate) fn cards(&self) -> &[GpuReading] {
        &self.cards
    }

    /// Begins a stretch with a reading of every sensor.
    pub(crate) fn begin(&self) {
        self.order(Order::Begin).unwrap_or_default();
    }

    /// Ends it with another: what each sensor measured.
    pub(crate) fn end(&self) -> Vec<Stretch> {
        self.order(Order::End).unwrap_or_default()
    }

    fn order<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Option<T> {
        let (reply, answer) = channel();
        self.orders.as_ref()?.send(order(reply)).ok()?;
        answer.recv().ok()
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the reading of sensors ended early");
        }
    }
}

struct Reading<F> {
    sensors: Sensors,
    plugs: Option<Plugs>,
    known: BTreeMap<String, Watched>,
    order: Vec<String>,
    begun: Option<Instant>,
    each: F,
}

/// One sensor and its meter.
struct Watched {
    sensor: Sensor,
    meter: Meter,
    last: Option<SensorReading>,
    tells_power: bool,
    power: Option<Milliwatts>,
    so_far: Millijoules,
    peak: Option<Milliwatts>,
    hottest_c: Option<i32>,
    limit: Option<Milliwatts>,
}

impl<F: FnMut(&Sample)> Reading<F> {
    fn run(mut self, orders: &Receiver<Order>, pace: Duration) {
        let mut next = Instant::now();
        loop {
            match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Order::Begin(reply)) => {
                    let at = self.settle();
                    self.begun = Some(at);
                    self.known.values_mut().for_each(|it| it.begin(at));
                    self.tell(at);
                    next = at + pace;
                    let _ = reply.send(());
                }
                Ok(Order::End(reply)) => {
                    self.ask_plugs();
                    let at = self.read();
                    self.tell(at);
                    let time = self.begun.take().map_or(Duration::ZERO, |begun| at - begun);
                    let known = &mut self.known;
                    let stretches = self.order.iter().filter_map(|id| Some(known.get_mut(id)?.end(at, time)));
                    let _ = reply.send(stretches.collect());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let at = self.read();
                    self.tell(at);
                    // A sensor slower than the pace is read as fast as it answers; what was missed is not caught up.
                    next = (next + pace).max(Instant::now());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reads until every sensor tells power, within [`SETTLE`]: one that counts tells it from the second change on, and
    /// what was used until then would be lost.
    fn settle(&mut self) -> Instant {
        self.ask_plugs();
        let begun = Instant::now();
        let mut at = self.read();
        while self.known.values().any(|it| !it.tells_power) && begun.elapsed() < SETTLE {
            std::thread::sleep(SETTLE / 10);
            at = self.read();
        }
        at
    }

    /// A stretch begins and ends with what the plugs show right then.
    fn ask_plugs(&self) {
        if let Some(plugs) = &self.plugs {
            plugs.ask();
        }
    }

    fn read(&mut self) -> Instant {
        for reading in self.plugs.iter().flat_map(Plugs::told) {
            if let Some(watched) = self.known.get_mut(&reading.sensor) {
                watched.take(reading);
            }
        }
        for card in self.sensors.gpus().read().into_iter().flatten() {
            if let Some(watched) = self.known.get_mut(&card.id) {
                watched.hottest_c = watched.hottest_c.max(card.temperature_c);
                watched.limit = card.limit.or(watched.limit);
                watched.take(of_card(&card));
            }
        }
        for reading in self.sensors.read_machine() {
            if let Some(watched) = self.known.get_mut(&reading.sensor) {
                watched.take(reading);
            }
        }
        Instant::now()
    }

    fn tell(&mut self, at: Instant) {
        if self.begun.is_some() {
            let known = &self.known;
            let sensors =
                self.order.iter().filter_map(|id| known.get(id)).map(|it| (it.power, it.so_far)).collect();
            (self.each)(&Sample { at, sensors });
        }
    }
}

impl Watched {
    fn of(sensor: Sensor) -> Self {
        Self {
            sensor,
            meter: Meter::default(),
            last: None,
            tells_power: false,
            power: None,
            so_far: Millijoules::ZERO,
            peak: None,
            hottest_c: None,
            limit: None,
        }
    }

    fn take(&mut self, reading: SensorReading) {
        self.tells_power = reading.power.is_some();
        self.power = reading.power.map(|it| it.value).or_else(|| self.by_counter(&reading));
        self.peak = self.peak.max(self.power);
        // The meter reads cards; to it any sensor is one that tells power and energy only.
        self.meter.read(&GpuReading {
            power: reading.power,
            energy: reading.energy,
            ..GpuReading::silent(&self.sensor.id, "", reading.at)
        });
        self.so_far += self.meter.take().answering;
        if self.last.as_ref().is_none_or(|last| last.energy != reading.energy || reading.energy.is_none()) {
            self.last = Some(reading);
        }
    }

    /// Power of a sensor that only counts, from one change of its counter to the next.
    fn by_counter(&self, reading: &SensorReading) -> Option<Milliwatts> {
        let last = self.last.as_ref()?;
        let (from, to) = (last.energy?, reading.energy?);
        if from == to {
            return self.power;
        }
        let micros = i128::try_from(reading.at.saturating_duration_since(last.at).as_micros()).ok()?;
        let power = i128::from((to - from).0) * 1_000_000 / Some(micros).filter(|it| *it > 0)?;
        i64::try_from(power).ok().filter(|it| *it >= 0).map(Milliwatts)
    }

    fn begin(&mut self, at: Instant) {
        let place = Place::Cards(vec![self.sensor.id.clone()]);
        self.meter.begin(STRETCH, Task { service: String::new(), place, own: false }, at);
        let _ = self.meter.take();
        self.so_far = Millijoules::ZERO;
        self.peak = self.power;
        self.hottest_c = None;
    }

    fn end(&mut self, at: Instant, time: Duration) -> Stretch {
        let energy = self.meter.end(STRETCH, at);
        // A sensor that told nothing, or only once, knows nothing of the stretch.
        let energy = if energy.label == Label::Unknown { Energy::default() } else { energy };
        let (peak, hottest_c, limit) = (self.peak, self.hottest_c, self.limit);
        Stretch { sensor: self.sensor.clone(), time, energy, peak, hottest_c, limit }
    }
}

fn in_words(finding: &Finding) -> String {
    match &finding.action {
        Some(action) => format!("{}. {action}", finding.what.trim_end_matches('.')),
        None => finding.what.clone(),
    }
}
