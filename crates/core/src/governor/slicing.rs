//! Of the requests that run: whose process goes on for the next slice, whose stands still, and who is ended.

use std::collections::BTreeMap;

use super::account::{Micros, SECOND};
use super::deciding::{AHEAD, CUT_AHEAD, OVERDUE, SLICE, Scene};
use super::{Effect, Refusal, Service};

/// Requests whose process stood still for this long are ended: their consumers wait for nothing.
const STALLED: Micros = 3 * SECOND;
/// Requests that still run this long after they were to end are ended again.
const CUT_AGAIN: Micros = SECOND;

/// The services' processes, as they were told.
#[derive(Clone, Debug, Default)]
pub(super) struct Slicing {
    told: BTreeMap<String, Told>,
    /// Who is asked first, so that nobody always comes last.
    turn: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    stopped: Option<Micros>,
    cut: Option<Micros>,
}

/// What runs from now on.
#[derive(Clone, Debug, Default)]
pub(super) struct Work<'a> {
    /// Cards that work.
    pub(super) cards: Vec<&'a str>,
    /// Cards whose work stands still.
    pub(super) waiting: Vec<&'a str>,
    /// When to look again.
    pub(super) again: Option<Micros>,
}

impl Slicing {
    /// Decides for every service with running requests. `in_pace`: whether the cards may have another slice.
    pub(super) fn decide<'a>(
        &mut self,
        scene: &Scene<'a>,
        services: &[Service],
        in_pace: impl Fn(&[&str]) -> bool,
        effects: &mut Vec<Effect>,
    ) -> Work<'a> {
        self.let_go(services, effects);
        let mut work = Work::default();
        let (mut sliced, mut whole): (Vec<&Service>, Vec<&Service>) = (Vec::new(), Vec::new());
        for service in services {
            let under = scene.under(service);
            if service.running == 0 {
                self.told.entry(service.id.clone()).or_default().cut = None;
                self.go_on(service, effects);
            } else if scene.is_held(&under, false) {
                self.go_on(service, effects);
                work.cards.extend(under);
            } else if service.stoppable {
                sliced.push(service);
            } else {
                whole.push(service);
            }
        }
        for service in whole {
            self.end_or_go_on(scene, service, &mut work, effects);
        }
        self.turn = self.turn.wrapping_add(1);
        let first = self.turn.checked_rem(sliced.len()).unwrap_or(0);
        sliced.rotate_left(first);
        for service in sliced {
            self.slice(scene, service, &in_pace, &mut work, effects);
        }
        work
    }

    /// A process whose service is not told of any more, because it is shared no more or answers nobody while it stands
    /// still, is nobody's to continue but ours.
    fn let_go(&mut self, services: &[Service], effects: &mut Vec<Effect>) {
        let gone = self.told.extract_if(.., |id, _| services.iter().all(|it| it.id != *id));
        let stopped = gone.filter(|(_, told)| told.stopped.is_some());
        effects.extend(stopped.map(|(service, _)| Effect::Continue { service }));
    }

    /// A request that cannot be stopped goes on until the energy is nearly used.
    fn end_or_go_on<'a>(
        &mut self,
        scene: &Scene<'a>,
        service: &Service,
        work: &mut Work<'a>,
        effects: &mut Vec<Effect>,
    ) {
        self.go_on(service, effects);
        let under = scene.under(service);
        let refusal = scene.refusal(service, &under).filter(|it| !matches!(it, Refusal::HostLoad { .. }));
        work.cards.extend(&under);
        let lasts = scene.lasts(&work.cards, 0);
        if refusal.is_some() || lasts.is_some_and(|lasts| lasts < CUT_AHEAD) {
            self.cut(scene, service, &under, effects);
            work.look_in(scene.now, SLICE);
        } else if let Some(lasts) = lasts {
            work.look_in(scene.now, (lasts - CUT_AHEAD).max(SLICE));
        }
    }

    fn slice<'a>(
        &mut self,
        scene: &Scene<'a>,
        service: &Service,
        in_pace: &impl Fn(&[&str]) -> bool,
        work: &mut Work<'a>,
        effects: &mut Vec<Effect>,
    ) {
        let under = scene.under(service);
        let all: Vec<&str> = work.cards.iter().chain(&under).copied().collect();
        work.look_in(scene.now, OVERDUE);
        if in_pace(&under) && scene.fits(&all, AHEAD) {
            self.go_on(service, effects);
            work.cards.extend(under);
            return;
        }
        let told = self.told.entry(service.id.clone()).or_default();
        let since = *told.stopped.get_or_insert_with(|| {
            effects.push(Effect::Stop { service: service.id.clone() });
            scene.now
        });
        if scene.now - since >= STALLED {
            // A process that stands still does not notice that its consumer left.
            self.go_on(service, effects);
            self.cut(scene, service, &under, effects);
            work.cards.extend(under);
        } else {
            work.waiting.extend(under);
        }
    }

    fn go_on(&mut self, service: &Service, effects: &mut Vec<Effect>) {
        let told = self.told.entry(service.id.clone()).or_default();
        if told.stopped.take().is_some() {
            effects.push(Effect::Continue { service: service.id.clone() });
        }
    }

    fn cut(&mut self, scene: &Scene<'_>, service: &Service, under: &[&str], effects: &mut Vec<Effect>) {
        let told = self.told.entry(service.id.clone()).or_default();
        if told.cut.is_none_or(|at| scene.now - at >= CUT_AGAIN) {
            told.cut = Some(scene.now);
            let why = scene.refusal(service, under).unwrap_or(Refusal::Used);
            effects.push(Effect::Cut { service: service.id.clone(), why });
        }
    }
}

impl Work<'_> {
    fn look_in(&mut self, now: Micros, time: Micros) {
        self.again = Some(self.again.map_or(now + time, |at| at.min(now + time)));
    }
}
