//! No millijoule is lost or made, whatever runs when: requests of two services, the host's own among them, on two cards,
//! with sensors that fail.

use std::time::{Duration, Instant};

use idlewatt_core::device::{GpuReading, Power};
use idlewatt_core::meter::{Meter, Place, Purpose, Split, Task, Tokens};
use idlewatt_protocol::{Millijoules, Milliwatts};
use idlewatt_simgpu::Random;

use crate::rig::request;
use crate::seeds;

struct Schedule {
    random: Random,
    meter: Meter,
    at: Instant,
    running: Vec<(u64, bool, Tokens)>,
    next: u64,
    split: Split,
    shared: i64,
    own: i64,
    /// What each card truly drew, mW, and its counter, mJ.
    cards: [(i64, i64); 2],
}

impl Schedule {
    fn read(&mut self) {
        self.at += Duration::from_micros(u64::from(self.random.whole(1, 200_000)));
        for (index, (power, counter)) in self.cards.iter_mut().enumerate() {
            *power = (*power + i64::from(self.random.whole(0, 100_000)) - 50_000).clamp(10_000, 500_000);
            *counter += *power / 10;
            let broken = self.random.chance(0.05);
            let odd = if self.random.chance(0.3) { 0 } else { i64::MAX / 4 };
            let value = Milliwatts(if broken { odd } else { *power });
            let power = (!self.random.chance(0.05)).then_some(Power { value, averaged: index == 1 });
            // Back to zero, a wrap of 32 bits that nobody undid, nothing at all.
            if self.random.chance(0.001) {
                *counter = 0;
            }
            let energy = match self.random.whole(0, 99) {
                0 => Some(Millijoules(*counter + (1 << 32))),
                1..5 => None,
                _ => Some(Millijoules(*counter)),
            };
            let id = ["GPU-a", "GPU-b"][index];
            self.meter.read(&GpuReading { power, energy, ..GpuReading::silent(id, "", self.at) });
        }
    }

    fn act(&mut self) {
        match self.random.whole(0, 11) {
            0 | 1 if self.running.len() < 8 => {
                let place = match self.random.whole(0, 4) {
                    0 => Place::Cards(vec!["GPU-a".into()]),
                    1 => Place::Cards(vec!["GPU-a".into(), "GPU-b".into()]),
                    2 => Place::Cards(vec!["GPU-b".into()]),
                    3 => Place::Anywhere,
                    _ => Place::Elsewhere,
                };
                let service = ["one", "two"][self.random.whole(0, 1) as usize].into();
                let own = self.random.chance(0.3);
                self.meter.begin(request(self.next), Task { service, place, own }, self.at);
                self.running.push((self.next, own, Tokens::default()));
                self.next += 1;
            }
            2..=6 => {
                let count = self.running.len();
                let Some(index) = count.checked_sub(1).map(|last| self.random.whole(0, last as u32)) else {
                    return;
                };
                let (id, _, tokens) = &mut self.running[index as usize];
                if tokens.prompt == 0 {
                    *tokens = Tokens {
                        prompt: self.random.whole(1, 4000),
                        cached: self.random.whole(0, 1000),
                        completion: 0,
                    };
                }
                tokens.completion += self.random.whole(0, 20);
                self.meter.progress(request(*id), *tokens);
            }
            7 if !self.running.is_empty() => {
                let last = self.running.len() as u32 - 1;
                let index = self.random.whole(0, last) as usize;
                self.end(index);
            }
            8 => {
                let purpose = match self.random.whole(0, 3) {
                    0 => Purpose::Host,
                    1 => Purpose::Waiting(Place::Anywhere),
                    2 => Purpose::Waiting(Place::Cards(vec!["GPU-a".into()])),
                    _ => Purpose::Awake,
                };
                let loaded = matches!(purpose, Purpose::Waiting(_));
                self.meter.set_purpose(purpose, loaded);
            }
            9 => self.take(),
            _ => self.read(),
        }
    }

    fn end(&mut self, index: usize) {
        let (id, own, _) = self.running.remove(index);
        let energy = self.meter.end(request(id), self.at);
        assert!(energy.marginal_mj.is_none_or(|it| it.0 >= 0 && Some(it) <= energy.total_mj), "{energy:?}");
        let total = energy.total_mj.map_or(0, |it| it.0);
        *if own { &mut self.own } else { &mut self.shared } += total;
    }

    fn take(&mut self) {
        let split = self.meter.take();
        assert!(
            [split.answering, split.waiting, split.awake, split.host].iter().all(|it| it.0 >= 0),
            "{split:?}"
        );
        self.split.answering += split.answering;
        self.split.waiting += split.waiting;
        self.split.awake += split.awake;
        self.split.host += split.host;
    }
}

#[test]
fn no_millijoule_is_lost_or_made() {
    let (mut requests, mut joules) = (0, 0);
    let all = seeds(300, 10_000);
    let count = all.end;
    for seed in all {
        let mut schedule = Schedule {
            random: Random::new(seed),
            meter: Meter::default(),
            at: Instant::now(),
            running: Vec::new(),
            next: 0,
            split: Split::default(),
            shared: 0,
            own: 0,
            cards: [(50_000, 0), (80_000, 1 << 20)],
        };
        for _ in 0..schedule.random.whole(20, 400) {
            schedule.act();
        }
        while !schedule.running.is_empty() {
            schedule.end(0);
        }
        schedule.take();
        // What shared requests used is what went into answering; the host's own are in the host's part; and all parts
        // together are what the cards were measured to have used.
        assert_eq!(schedule.split.answering.0, schedule.shared, "seed {seed}");
        assert!(schedule.split.host.0 >= schedule.own, "seed {seed}");
        assert_eq!(schedule.split.measured(), schedule.meter.measured(), "seed {seed}");
        requests += schedule.next;
        joules += schedule.split.measured().0 / 1000;
    }
    println!("{count} schedules, {requests} requests, {joules} J: every millijoule is in its place");
}
