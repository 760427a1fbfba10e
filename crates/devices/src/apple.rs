//! Apple silicon by `macmon`, which needs no rights.
//!
//! What the system tells of the graphics alone is far too low (65 W told, 179 W more at the wall in one test). So the card's
//! power here is the whole machine's, and what work adds to it is what the meter finds above its idle power.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Instant;

use idlewatt_core::device::{GpuReading, Power, Scope, Sensor};
use idlewatt_protocol::Milliwatts;
use macmon::Sampler;

use crate::{CardError, Finding, GpuProcess, Level, Vendor, finding};

/// Shorter stretches say more of the sensors' refresh than of the machine, ms.
const SHORTEST: u32 = 20;

/// The sampler may not leave its thread, which waits while nobody asks.
pub(crate) struct Apple {
    chip: Option<String>,
    questions: SyncSender<()>,
    answers: Receiver<Option<Told>>,
}

struct Told {
    watts: f32,
    celsius: Option<f32>,
    busy: f32,
}

impl Apple {
    pub(crate) fn new() -> Self {
        let (questions, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let (tell_chip, chip) = sync_channel(1);
        thread::spawn(move || {
            let sampler = Sampler::new().inspect_err(|error| tracing::debug!(%error, "no Apple sensors"));
            let Ok(mut sampler) = sampler else { return };
            if tell_chip.send(sampler.get_soc_info().chip_name.clone()).is_err() {
                return;
            }
            while let Ok(()) = asked.recv() {
                if answer.send(Told::now(&mut sampler)).is_err() {
                    return;
                }
            }
        });
        Self { chip: chip.recv().ok(), questions, answers }
    }

    fn ask(&self) -> Option<Told> {
        self.questions.send(()).ok()?;
        self.answers.recv().ok()?
    }
}

impl Told {
    fn now(sampler: &mut Sampler) -> Option<Self> {
        let told = sampler
            .get_metrics(SHORTEST)
            .inspect_err(|error| tracing::debug!(%error, "no Apple reading"))
            .ok()?;
        Some(Self {
            watts: told.sys_power,
            celsius: told.temp.gpu_temp_avg,
            busy: told.gpu_active_ratio * 100.0,
        })
    }
}

impl Vendor for Apple {
    fn read(&mut self) -> Vec<Result<GpuReading, CardError>> {
        let Some(chip) = &self.chip else { return Vec::new() };
        let told = self.ask();
        let blank = GpuReading::silent("apple", chip, Instant::now());
        let Some(told) = told else { return vec![Ok(blank)] };
        let power = whole(told.watts * 1000.0, 1..1_000_000)
            .map(|mw| Power { value: Milliwatts(mw), averaged: true });
        let small = |value: f32, most| whole(value, 0..most);
        vec![Ok(GpuReading {
            power,
            temperature_c: told.celsius.and_then(|it| small(it, 200)).and_then(|it| i32::try_from(it).ok()),
            utilisation: small(told.busy, 101).and_then(|it| u32::try_from(it).ok()),
            ..blank
        })]
    }

    fn sensors(&mut self) -> Vec<Sensor> {
        let sensor = |chip: &String| Sensor {
            id: "apple".to_owned(),
            name: chip.clone(),
            scope: Scope::Machine,
            method: "macmon: power of the whole system".to_owned(),
            leaves_out: Some("losses of the power supply, and devices with one of their own".to_owned()),
        };
        self.chip.iter().map(sensor).collect()
    }

    fn processes(&mut self) -> Vec<GpuProcess> {
        Vec::new()
    }

    fn findings(&mut self) -> Vec<Finding> {
        match self.chip {
            Some(_) => self.read().iter().map(finding::of_card).collect(),
            None => vec![Finding::new(
                Level::Note,
                "this Mac tells no power: it is no Apple silicon, or a virtual machine",
            )],
        }
    }
}

/// A sensor may say NaN.
fn whole(value: f32, range: std::ops::Range<i64>) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "finite; the range holds what is left")]
    let whole = value.is_finite().then_some(value as i64);
    whole.filter(|it| range.contains(it))
}
