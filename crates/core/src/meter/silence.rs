//! What was used while several requests were silent at once, and nobody could say for whom.
//!
//! A model server says nothing while it reads a prompt, and may read several, or one while others wait. What was used
//! then is held until they speak. Prompts are read one after another, and who is done first speaks first: it takes as much
//! as its prompt is known to cost, and leaves the rest to those who are silent still. What nobody's cost explains goes to
//! all by their costs.

use std::collections::BTreeMap;

use idlewatt_protocol::RequestId;

use super::card::{fixed, parts};

/// Part of a cost that counts beside what is left of it.
const UNEXPLAINED: f64 = 32.0;

#[derive(Clone, Debug, Default)]
pub(super) struct Silence {
    held: Vec<Held>,
    requests: BTreeMap<RequestId, Claim>,
}

#[derive(Clone, Debug)]
struct Held {
    /// mJ
    energy: i64,
    /// Those who were silent and have not left.
    silent: Vec<RequestId>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Claim {
    /// What it was given while it was silent, mJ.
    taken: f64,
    /// What it is known to have cost, mJ; `None` while it is silent.
    cost: Option<f64>,
}

#[expect(clippy::cast_precision_loss, reason = "weights")]
impl Claim {
    /// Takes so much of what is held, and no more than there is.
    fn take(&mut self, held: &mut Held, much: impl FnOnce(Self) -> f64) -> i64 {
        let part = whole(much(*self)).min(held.energy);
        held.energy -= part;
        self.taken += part as f64;
        part
    }

    fn left(self) -> f64 {
        (self.cost.unwrap_or_default() - self.taken).max(0.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "weights")]
impl Silence {
    /// It was given this while it alone was silent.
    pub(super) fn took(&mut self, id: RequestId, energy: i64) {
        self.requests.entry(id).or_default().taken += energy as f64;
    }

    /// This was used while several were silent.
    pub(super) fn hold(&mut self, energy: i64, silent: Vec<RequestId>) {
        if energy > 0 {
            self.held.push(Held { energy, silent });
        }
    }

    /// A request's silence is known to have cost this much: what it takes of what was held, and what is given out because
    /// nobody in it is silent any more.
    pub(super) fn speaks(&mut self, id: RequestId, cost: f64) -> Vec<(RequestId, i64)> {
        self.requests.entry(id).or_default().cost = Some(cost);
        let mut given = Vec::new();
        for it in self.held.iter_mut().filter(|it| it.silent.contains(&id)) {
            given.push((id, claim(&mut self.requests, id).take(it, Claim::left)));
        }
        let spoke = |id: &RequestId| self.requests.get(id).is_some_and(|claim| claim.cost.is_some());
        let (done, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|it| it.silent.iter().all(spoke));
        self.held = held;
        for it in done {
            let weights: Vec<u64> = it.silent.iter().map(|id| fixed(self.weight(*id))).collect();
            given.extend(it.silent.into_iter().zip(parts(it.energy, &weights)));
        }
        given
    }

    /// What its silence is known to have cost and it was not given, mJ.
    pub(super) fn lacks(&self, id: RequestId) -> f64 {
        self.requests.get(&id).map_or(0.0, |claim| claim.cost.map_or(0.0, |cost| cost - claim.taken))
    }

    /// A request is over. One that never spoke takes an equal part.
    pub(super) fn leaves(&mut self, id: RequestId) -> Vec<(RequestId, i64)> {
        let mut given = Vec::new();
        for it in self.held.iter_mut().filter(|it| it.silent.contains(&id)) {
            let equal = it.energy as f64 / it.silent.len() as f64;
            given.push((
                id,
                claim(&mut self.requests, id).take(it, |claim| claim.cost.map_or(equal, |_| 0.0)),
            ));
            it.silent.retain(|other| *other != id);
            if let [alone] = it.silent[..] {
                given.push((alone, claim(&mut self.requests, alone).take(it, |_| f64::INFINITY)));
            }
        }
        self.held.retain(|it| it.energy > 0);
        self.requests.remove(&id);
        given
    }

    fn weight(&self, id: RequestId) -> f64 {
        self.requests
            .get(&id)
            .map_or(0.0, |claim| claim.left() + claim.cost.unwrap_or_default() / UNEXPLAINED)
    }
}

fn claim(requests: &mut BTreeMap<RequestId, Claim>, id: RequestId) -> &mut Claim {
    requests.entry(id).or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "far below 2⁶³")]
fn whole(energy: f64) -> i64 {
    energy as i64
}
