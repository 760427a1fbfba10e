//! Cards whose Linux driver tells of them below `/sys/bus/pci/drivers`: what AMD's and Intel's have in common.
//!
//! A card that sleeps (runtime power management) is not woken to be looked at: nearly every question would wake it, its
//! `runtime_status` does not.

use std::time::Instant;

use idlewatt_core::device::{GpuReading, Sensor};

use crate::names::Names;
use crate::rest::Rest;
use crate::sysfs::{self, Gone, PciDevice, Sleep};
use crate::{CardError, Finding, GpuProcess, Level, Places, Vendor, fdinfo, finding};

/// Drivers of cards with memory of their own; of the last two only those cards have sensors.
const DISCRETE: [&str; 3] = ["nvidia", "xe", "i915"];

/// One card of one vendor.
pub(crate) trait Card: Send + Sized {
    /// The kernel's drivers for this vendor's cards.
    const DRIVERS: &'static [&'static str];

    /// Opens what tells of the card. `None` where nothing does.
    fn open(device: &PciDevice) -> Option<Self>;

    /// Whether it is a part of the processor.
    fn is_integrated(&self) -> bool;

    /// What its power sensor is.
    fn sensor(&self, id: &str, name: &str) -> Sensor;

    /// Fills in what the card, which is awake, tells now.
    fn read(&mut self, blank: GpuReading) -> Result<GpuReading, Gone>;
}

/// All cards of one vendor.
pub(crate) struct Cards<C> {
    places: Places,
    cards: Vec<Known<C>>,
    /// Those that are left aside.
    integrated: Vec<Known<C>>,
    look_at: Instant,
}

struct Known<C> {
    device: PciDevice,
    id: String,
    name: String,
    sleep: Sleep,
    rest: Rest,
    card: C,
}

impl<C: Card> Cards<C> {
    pub(crate) fn new(places: &Places) -> Self {
        let mut this = Self {
            places: places.clone(),
            cards: Vec::new(),
            integrated: Vec::new(),
            look_at: Instant::now(),
        };
        this.look_again();
        this
    }

    /// Finds what came and went. A card that stayed keeps its open files and its counter.
    fn look_again(&mut self) {
        let now = Instant::now();
        if self.look_at > now {
            return;
        }
        self.look_at = now + self.places.retry;
        let devices: Vec<_> =
            C::DRIVERS.iter().flat_map(|driver| sysfs::pci_devices(&self.places.sysfs, driver)).collect();
        let ids = |cards: &[Known<C>]| cards.iter().map(|known| known.id.clone()).collect::<Vec<_>>();
        let ids_before = ids(&self.cards);
        let mut before = std::mem::take(&mut self.cards);
        before.append(&mut self.integrated);
        for device in devices {
            let same = before.iter().position(|known| known.device == device);
            let known = same.map(|at| before.swap_remove(at));
            self.cards.extend(known.or_else(|| self.open(device)));
        }
        self.leave_integrated_aside();
        // A driver whose devices tell nothing, such as that of graphics inside a processor, is looked at each time.
        if ids(&self.cards) != ids_before {
            tracing::info!(drivers = ?C::DRIVERS, cards = self.cards.len(), "cards found");
        }
    }

    fn open(&self, device: PciDevice) -> Option<Known<C>> {
        let card = C::open(&device)?;
        let name = Names::of(&self.places.share).card(&device);
        let id = format!("{}-{}", device.driver, device.address);
        let sleep = Sleep::of(&device.folder);
        Some(Known { sleep, rest: Rest::default(), id, name, card, device })
    }

    /// The figures of a processor's own graphics hold the processor. On a machine with a card beside it they would be taken
    /// for a second card's.
    fn leave_integrated_aside(&mut self) {
        let has_sensors = |driver: &&'static str| {
            let devices = sysfs::pci_devices(&self.places.sysfs, driver);
            *driver == "nvidia" && !devices.is_empty() || devices.iter().any(|it| it.hwmon().is_some())
        };
        let discrete =
            self.cards.iter().any(|known| !known.card.is_integrated()) || DISCRETE.iter().any(has_sensors);
        if discrete {
            self.integrated.extend(self.cards.extract_if(.., |known| known.card.is_integrated()));
        }
    }
}

impl<C: Card> Vendor for Cards<C> {
    fn read(&mut self) -> Vec<Result<GpuReading, CardError>> {
        self.look_again();
        let readings: Vec<_> = self.cards.iter_mut().map(Known::read).collect();
        if readings.iter().any(Result::is_err) {
            // Its files stay lost; those of a driver that was loaded again are new.
            self.cards.retain(|known| readings.iter().flatten().any(|reading| reading.id == known.id));
            self.look_at = Instant::now();
        }
        readings
    }

    fn sensors(&mut self) -> Vec<Sensor> {
        self.look_again();
        self.cards.iter().map(|known| known.card.sensor(&known.id, &known.name)).collect()
    }

    fn processes(&mut self) -> Vec<GpuProcess> {
        self.look_again();
        let cards: Vec<_> =
            self.cards.iter().map(|known| (known.device.address.as_str(), known.id.as_str())).collect();
        if cards.is_empty() {
            return Vec::new();
        }
        fdinfo::processes(&self.places, &cards)
    }

    fn findings(&mut self) -> Vec<Finding> {
        let readings = self.read();
        let cards = readings.iter().map(finding::of_card);
        let aside = self.integrated.iter().map(|Known { name, .. }| {
            let what = format!("{name} is part of the processor; beside a card of its own it is left aside");
            Finding::new(Level::Note, what)
        });
        cards.chain(aside).collect()
    }
}

impl<C: Card> Known<C> {
    fn read(&mut self) -> Result<GpuReading, CardError> {
        let now = Instant::now();
        let blank = GpuReading::silent(&self.id, &self.name, now);
        let reading = match (self.sleep.sleeps(), self.rest.instead(&self.device.folder, now)) {
            (Ok(true), _) => return Ok(GpuReading { asleep: true, ..blank }),
            (Ok(false), Some(last)) => return Ok(last),
            (Ok(false), None) => self.card.read(blank),
            (Err(gone), _) => Err(gone),
        };
        if let Ok(reading) = &reading {
            self.rest.looked(reading);
        }
        reading.map_err(|Gone| CardError {
            id: self.id.clone(),
            name: self.name.clone(),
            lost: true,
            problem: "the card is gone, or its driver was unloaded".into(),
        })
    }
}
