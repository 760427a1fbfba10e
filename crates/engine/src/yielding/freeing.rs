//! Freeing memory, and looking whether it is free: every server that may be unloaded is asked, or ended where it is the
//! node's own, and what its processes hold of the cards is read until it has fallen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use idlewatt_control::{Code, ControlError};
use idlewatt_core::yielding::Memory;
use idlewatt_core::yielding::story::{Told, gigabytes};
use idlewatt_core::yielding::unloading::{Answer, Order, Sight, Unloading, Verdict, Whose};
use idlewatt_protocol::PauseCode;
use idlewatt_servers::{Managed, ServerError, UnloadError, is_loopback};
use tokio::time::timeout;

use super::Account;
use crate::clock;
use crate::node::Node;
use crate::services::Releasable;

/// A server says within this time whether it unloads.
const ANSWERED: Duration = Duration::from_secs(10);
/// Between two looks at what a server holds, each of which takes milliseconds: a tenth of the time that it has taken so
/// far, within these.
const LOOK: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// What memory is freed for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// A yield: a person or their program waits for it.
    Now,
    /// Standby: nobody does. It gives way to a yield, and to whoever uses the server.
    Whenever,
}

/// One server to be freed.
enum Target {
    Own(Arc<Managed>),
    Others(Box<Releasable>),
}

/// What came of one.
struct Outcome {
    name: String,
    verdict: Verdict,
    at: Instant,
}

impl Node {
    /// Frees everything that a yield may free, and tells what came of it.
    pub(super) async fn free_for(
        self: Arc<Self>,
        mut account: Account,
        own: Option<Arc<Managed>>,
        cause: PauseCode,
    ) {
        let _turn = self.giving_back.freeing.lock().await;
        let others = self.services.releasable(self.own_server.url().as_ref());
        let targets: Vec<Target> = own
            .map(Target::Own)
            .into_iter()
            .chain(others.into_iter().map(|it| Target::Others(Box::new(it))))
            .collect();
        if targets.is_empty() {
            return;
        }
        tracing::info!(?cause, servers = targets.len(), "freeing memory");
        let power = self.cards.power();
        let outcomes = join_all(targets.into_iter().map(|it| self.free_one(it, Wanted::Now))).await;
        for it in outcomes.iter().flatten() {
            account.note(it.at, step(it));
        }
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        if outcomes.is_empty() {
            return;
        }
        account.story.memory = told(&outcomes, account.seen);
        self.cards.read_for_meter().await;
        if let (Some(before), Some(after)) = (power, self.cards.power()) {
            let watts = |power: idlewatt_protocol::Milliwatts| power.0 / 1000;
            account
                .note(Instant::now(), format!("Cards draw {} W; {} W before", watts(after), watts(before)));
        }
        self.tell_kept(&outcomes);
        self.tell_yield(account);
    }

    /// Unloads what nobody asked for. It is no yield: nobody waits, and a yield does not wait for it.
    pub(super) async fn free_idle(self: Arc<Self>, idle: Vec<Releasable>) {
        // While a yield frees, it frees these too.
        let Ok(_turn) = self.giving_back.freeing.try_lock() else { return };
        let targets = idle.into_iter().map(|it| Target::Others(Box::new(it)));
        // A yield that comes meanwhile has it at once, whatever server is slow to answer.
        let unless_overtaken = async |it| {
            let mut memory = self.giving_back.memory();
            tokio::select! {
                outcome = self.free_one(it, Wanted::Whenever) => outcome,
                _ = memory.wait_for(|it| *it == Memory::Free) => None,
            }
        };
        let outcomes = join_all(targets.map(unless_overtaken)).await;
        let outcomes: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        for it in &outcomes {
            tracing::info!(server = %it.name, verdict = ?it.verdict, "unloaded for want of demand");
        }
        self.tell_kept(&outcomes);
        self.services_changed();
    }

    /// `None` where it is not wanted any more, or not so.
    async fn free_one(self: &Arc<Self>, target: Target, wanted: Wanted) -> Option<Outcome> {
        let (whose, name, beside) = match &target {
            Target::Own(_) => (Whose::Own, "Your own model server".to_owned(), 1),
            Target::Others(it) => (Whose::Others, it.server.label(), it.beside),
        };
        let port = match &target {
            Target::Own(managed) => managed.url().port(),
            Target::Others(it) => {
                it.server.url().port_or_known_default().filter(|_| is_loopback(it.server.url()))
            }
        };
        let processes = match port {
            // Ended before anybody looked: then nothing of it is in the way.
            Some(port) if whose == Whose::Others => self.cards.processes_of(port).await,
            _ => BTreeSet::new(),
        };
        let (memory, begun) = (self.giving_back.memory(), Instant::now());
        let first = self.sight(&target, &processes).await;
        let (mut unloading, mut order) = Unloading::begin(whose, beside, first, Instant::now());
        let verdict = loop {
            let pause = (begun.elapsed() / 10).clamp(LOOK[0], LOOK[1]);
            let step = async {
                match (&target, order) {
                    (Target::Others(it), Order::Ask) => {
                        let answer = timeout(ANSWERED, it.server.unload(&it.model)).await;
                        Some(as_answer(answer.ok()))
                    }
                    // The memory that was asked back has told whoever runs it.
                    (Target::Own(managed), _) => {
                        drop(timeout(pause, managed.ended()).await);
                        None
                    }
                    (Target::Others(_), _) => {
                        tokio::time::sleep(pause).await;
                        None
                    }
                }
            };
            order = match step.await {
                Some(answer) => unloading.answered(answer, Instant::now()),
                None => unloading.saw(self.sight(&target, &processes).await, Instant::now()),
            };
            if let Order::Done(verdict) = order {
                break verdict;
            }
            let over = match wanted {
                Wanted::Now => *memory.borrow() == Memory::MayLoad,
                // Whoever uses it has asked for it.
                Wanted::Whenever => order == Order::LookLater,
            };
            if over {
                return None;
            }
        };
        if let (Target::Others(it), Verdict::Freed(_) | Verdict::Unseen) = (&target, verdict) {
            self.services.released(&it.id);
            self.look.notify_one();
        }
        Some(Outcome { name, verdict, at: Instant::now() })
    }

    async fn sight(&self, target: &Target, processes: &BTreeSet<u32>) -> Sight {
        match target {
            Target::Own(managed) => Sight { gone: managed.has_ended(), ..Sight::default() },
            Target::Others(it) => Sight {
                vram: if processes.is_empty() { None } else { self.cards.held_by(processes).await },
                busy: self.own_use_lasts() || it.server.busy().await.is_some_and(|busy| busy > 0),
                gone: false,
            },
        }
    }

    /// Says of memory that stays held what to do, until it is free.
    fn tell_kept(&self, outcomes: &[Outcome]) {
        let kept = outcomes.iter().find_map(|it| match it.verdict {
            Verdict::Kept(bytes) => Some((it, bytes)),
            _ => None,
        });
        match kept {
            Some((it, bytes)) => self.wants_person("memory", &kept_notice(&it.name, bytes)),
            None if outcomes.iter().any(|it| matches!(it.verdict, Verdict::Freed(_))) => {
                self.settled("memory")
            }
            None => {}
        }
    }
}

fn as_answer(answer: Option<Result<(), UnloadError>>) -> Answer {
    match answer {
        Some(Ok(())) => Answer::Agreed,
        Some(Err(UnloadError::AtWork)) => Answer::AtWork,
        Some(Err(UnloadError::Unsupported | UnloadError::Refused)) => Answer::Refused,
        Some(Err(UnloadError::Server(ServerError::KeyNeeded))) => Answer::Refused,
        Some(Err(UnloadError::Server(_))) | None => Answer::Away,
    }
}

fn step(outcome: &Outcome) -> String {
    let name = &outcome.name;
    match outcome.verdict {
        Verdict::Freed(Some(bytes)) => format!("{name}: {} free", gigabytes(bytes)),
        Verdict::Freed(None) => format!("{name} ended: its memory is free"),
        Verdict::Unseen => format!("{name} says that the model is unloaded; no card tells what it holds"),
        Verdict::Kept(bytes) => {
            format!("{name} says that the model is unloaded, but holds {} all the same", gigabytes(bytes))
        }
        Verdict::Refused => format!("{name} frees no memory while it runs"),
    }
}

/// The least of what was reached, over all servers.
fn told(outcomes: &[Outcome], seen: Instant) -> Told {
    let kept = outcomes.iter().map(|it| match it.verdict {
        Verdict::Kept(bytes) => bytes,
        _ => 0,
    });
    let kept: u64 = kept.sum();
    let any = |wanted: Verdict| outcomes.iter().any(|it| it.verdict == wanted);
    if kept > 0 {
        Told::Kept(kept)
    } else if any(Verdict::Refused) {
        Told::Refused
    } else if any(Verdict::Unseen) {
        Told::Unseen
    } else {
        let last = outcomes.iter().map(|it| it.at).max().unwrap_or(seen);
        Told::Free { at_ms: clock::millis(last.saturating_duration_since(seen)) }
    }
}

fn kept_notice(name: &str, bytes: u64) -> ControlError {
    ControlError::new(
        Code::ServerFailed,
        format!("{name} was asked to free its memory and still holds {}.", gigabytes(bytes)),
        "It said yes. Idlewatt ends no program that it did not start, so that memory is missing for what you do now.",
        "End that model server, or unload the model in it. It is looked at again the next time.",
    )
}
