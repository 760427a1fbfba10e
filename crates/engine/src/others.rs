//! What programs that are neither ours nor a model server use of the cards: a game, a renderer, a training run.
//!
//! What cannot be told apart is not held against anybody: a pause for nothing costs the host more than one that comes with
//! the next sign of a person. Looking takes milliseconds; it is done only while something is shared.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatt_core::device::{ForeignLoad, GpuReading};
use idlewatt_core::meter::Place;
use idlewatt_devices::{GpuProcess, is_here, may_serve, started_by};

use crate::cards::UNCLAIMED;
use crate::node::{Node, lock};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Finer differences are nobody's news: percent, bytes.
const STEP: (u8, u64) = (5, 100_000_000);

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct Others(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    looked: Option<Instant>,
    /// Where model servers listened when processes were told apart.
    ports: BTreeSet<u16>,
    /// Processes that serve models, or may.
    servers: BTreeSet<u32>,
    /// Processes that do not.
    others: BTreeSet<u32>,
    /// As it was at the last look, before anything was smoothed.
    raw: Vec<ForeignLoad>,
    told: Vec<ForeignLoad>,
}

/// What is known of our own work at the moment of a look.
#[derive(Clone, Copy, Debug)]
struct Ours {
    /// Whether a model may be loaded anywhere here.
    loaded: bool,
    /// Whether a model server may be computing.
    computes: bool,
}

impl Others {
    /// Card by card, as smoothed over two looks.
    pub(crate) fn told(&self) -> Vec<ForeignLoad> {
        lock(&self.0).told.clone()
    }
}

impl Node {
    /// What is seen of other programs on each card, for `doctor`, and whether anything is.
    pub(crate) fn others_sight(&self) -> Vec<(bool, String)> {
        let told = self.others.told();
        let cards = self.cards.latest();
        let sight = |card: &GpuReading| {
            let its = told.iter().find(|it| it.card == card.id);
            let (load, held) = (its.and_then(|it| it.utilisation), its.and_then(|it| it.vram));
            (its.is_some(), format!("other programs on {}: {}", card.name, words(its.is_some(), load, held)))
        };
        cards.iter().map(sight).collect()
    }

    /// Looks again, unless that was done a moment ago, and decides anew where it changed.
    pub(crate) async fn look_at_others(self: &Arc<Self>) {
        if lock(&self.others.0).looked.is_some_and(|at| at.elapsed() < LOOK) {
            return;
        }
        let cards = self.cards.latest();
        let (shared, _) = self.services.shared_and_ready();
        let told = if shared == 0 || cards.is_empty() {
            *lock(&self.others.0) = Seen::default();
            Vec::new()
        } else {
            let mut ports = self.services.ports_here();
            ports.extend(self.own_server.url().and_then(|it| it.port()));
            let work = *self.slots.shared().borrow() > 0 || self.services.any_probing();
            let ours = Ours {
                loaded: self.services.warm_on() != Place::Elsewhere || self.own_server.running().is_some(),
                computes: work || self.own_use_lasts(),
            };
            let (node, sensors) = (Arc::clone(self), self.cards.sensors());
            let look = move || {
                let users = lock(&sensors).gpus().processes();
                let mut seen = lock(&node.others.0);
                seen.tell_apart(&users, &ports);
                let loads = cards.iter().filter(|it| !it.asleep);
                let raw = loads.map(|card| seen.load(card, &users, ours)).collect();
                seen.take(raw)
            };
            tokio::task::spawn_blocking(look).await.unwrap_or_default()
        };
        let before = std::mem::replace(&mut lock(&self.others.0).told, told.clone());
        if before != told {
            self.decide();
        }
    }
}

fn words(looked: bool, load: Option<u8>, held: Option<u64>) -> String {
    let gigabytes = |bytes: u64| format!("{}.{} GB held", bytes / 1_000_000_000, bytes / STEP.1 % 10);
    match (looked, load, held.map(gigabytes)) {
        (false, ..) => "looked at while something is shared".to_owned(),
        (true, None, None) => "cannot be told from what is ours at the moment".to_owned(),
        (true, Some(load), Some(held)) => format!("{load} % busy, {held}"),
        (true, Some(load), None) => format!("{load} % busy; memory by process is not told"),
        (true, None, Some(held)) => format!("{held}; load by process is not told"),
    }
}

/// Processes that use a card and are neither ours nor, as far as can be seen, a model server's on one of these ports.
pub(crate) fn others_among(users: &[GpuProcess], ports: &BTreeSet<u16>) -> BTreeSet<u32> {
    let mut seen = Seen::default();
    seen.tell_apart(users, ports);
    seen.others
}

impl Seen {
    /// Sorts every process that uses a card. Only one that is new makes it look who serves.
    fn tell_apart(&mut self, users: &[GpuProcess], ports: &BTreeSet<u16>) {
        let users: BTreeSet<u32> = users.iter().map(|it| it.pid).collect();
        if self.ports != *ports {
            // One that was taken for a stranger may be the server that was found since.
            self.ports.clone_from(ports);
            self.servers.clear();
            self.others.clear();
        }
        self.servers.retain(|pid| users.contains(pid));
        self.others.retain(|pid| users.contains(pid));
        if users.iter().all(|pid| self.servers.contains(pid) || self.others.contains(pid)) {
            return;
        }
        let mut servers = started_by(std::process::id());
        for port in ports {
            let its = may_serve(*port);
            if its.is_empty() {
                // Whose these are cannot be told.
                (self.servers, self.others) = (users, BTreeSet::new());
                return;
            }
            servers.extend(its);
        }
        (self.others, self.servers) =
            users.into_iter().partition(|pid| !servers.contains(pid) && is_here(*pid));
    }

    fn load(&self, card: &GpuReading, users: &[GpuProcess], ours: Ours) -> ForeignLoad {
        let its: Vec<&GpuProcess> = users.iter().filter(|it| it.gpu == card.id).collect();
        let others = || its.iter().filter(|it| self.others.contains(&it.pid));
        let vram = match its.is_empty() {
            false => others().map(|it| it.vram).sum(),
            // No process is told: what is in use is others' where nothing of ours can be.
            true => card.vram_used.map(|it| it.saturating_sub(UNCLAIMED)).filter(|_| !ours.loaded),
        };
        let by_process: Option<u32> = others().map(|it| it.utilisation.map(u32::from)).sum();
        let utilisation = match (its.iter().any(|it| it.utilisation.is_some()), ours.computes) {
            (true, _) => by_process,
            (false, false) => card.utilisation,
            (false, true) => None,
        };
        ForeignLoad {
            card: card.id.clone(),
            utilisation: utilisation.map(|it| u8::try_from(it.min(100)).unwrap_or(100)),
            vram,
        }
    }

    /// Gives what is told: of two looks the lower load, so that a short burst does not show.
    fn take(&mut self, raw: Vec<ForeignLoad>) -> Vec<ForeignLoad> {
        self.looked = Some(Instant::now());
        let steady = |now: &ForeignLoad| {
            let before = self.raw.iter().find(|it| it.card == now.card);
            let lower = before.and_then(|it| it.utilisation).zip(now.utilisation).map(|(a, b)| a.min(b));
            ForeignLoad {
                card: now.card.clone(),
                utilisation: lower.map(|it| it / STEP.0 * STEP.0),
                vram: now.vram.map(|it| it / STEP.1 * STEP.1),
            }
        };
        let told = raw.iter().map(steady).collect();
        self.raw = raw;
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn user(pid: u32, vram: u64, utilisation: Option<u8>) -> GpuProcess {
        GpuProcess { gpu: "GPU-1".into(), pid, vram: Some(vram), utilisation }
    }

    fn card(vram_used: u64, utilisation: u32) -> GpuReading {
        let silent = GpuReading::silent("GPU-1", "card", Instant::now());
        GpuReading { vram_used: Some(vram_used), utilisation: Some(utilisation), ..silent }
    }

    fn seen(servers: &[u32], others: &[u32]) -> Seen {
        let set = |pids: &[u32]| pids.iter().copied().collect();
        Seen { servers: set(servers), others: set(others), ..Seen::default() }
    }

    const IDLE: Ours = Ours { loaded: false, computes: false };
    const AT_WORK: Ours = Ours { loaded: true, computes: true };

    #[test]
    fn doctor_says_what_is_not_told_instead_of_nothing() {
        assert_eq!(words(false, None, None), "looked at while something is shared");
        assert_eq!(words(true, Some(35), Some(2_450_000_000)), "35 % busy, 2.4 GB held");
        assert_eq!(words(true, None, Some(0)), "0.0 GB held; load by process is not told");
        assert!(words(true, None, None).contains("cannot be told"));
    }

    #[test]
    fn a_model_server_is_no_other_program() {
        let users = [user(7, 6 * GB, Some(90)), user(8, 5 * GB, Some(40))];
        let load = seen(&[7], &[8]).load(&card(12 * GB, 100), &users, AT_WORK);
        assert_eq!((load.utilisation, load.vram), (Some(40), Some(5 * GB)));
    }

    #[test]
    fn a_total_is_others_only_where_nothing_of_ours_can_be_in_it() {
        let load = |ours| seen(&[], &[]).load(&card(9 * GB, 60), &[], ours);
        assert_eq!((load(IDLE).utilisation, load(IDLE).vram), (Some(60), Some(9 * GB - UNCLAIMED)));
        assert_eq!((load(AT_WORK).utilisation, load(AT_WORK).vram), (None, None));
    }

    #[test]
    fn a_burst_between_two_looks_does_not_show() {
        let mut it = seen(&[], &[8]);
        let look = |it: &mut Seen, percent: u8| {
            let raw = vec![it.load(&card(GB, percent.into()), &[user(8, GB, Some(percent))], AT_WORK)];
            it.take(raw)[0].utilisation
        };
        assert_eq!(
            [3, 95, 2, 64, 97].map(|it_is| look(&mut it, it_is)),
            [None, Some(0), Some(0), Some(0), Some(60)]
        );
    }

    #[test]
    fn whoever_is_not_known_to_serve_and_is_here_is_another() {
        let me = std::process::id();
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let mut it = Seen::default();
        it.tell_apart(
            &[user(1, GB, None), user(child.id(), GB, None), user(u32::MAX, GB, None)],
            &BTreeSet::new(),
        );
        assert!(it.others.contains(&1), "{it:?}");
        assert!(it.servers.contains(&child.id()) && it.servers.contains(&u32::MAX), "{me}: {it:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
