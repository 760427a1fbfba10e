//! What a token of one service costs on one card, fitted by least squares from what was measured.
//!
//! Four terms: a prompt token that was computed; a generated token; a *step*, in which everybody who generates gets one
//! token while the weights are read once, so that company makes tokens cheap; and a generated token's context. The fit
//! starts from common proportions and is pulled to them ever more weakly; older stretches fade.

/// Terms of the cost.
const TERMS: usize = 4;
type Vector = [f64; TERMS];

/// The proportions to start from: prompt token, generated token, step, a thousand tokens of context behind a generated
/// token. Assumed, until something is measured: a token alone costs ten of a prompt's, most of it for reading the weights.
const START: Vector = [1.0, 3.0, 7.0, 0.3];
/// How much the start weighs, in average stretches.
const START_WEIGHS: f64 = 0.1;
/// What each stretch leaves of those before it.
const FADING: f64 = 0.98;
/// Error of a share before anything was fitted, as a part of it.
const UNFITTED: f64 = 0.3;
/// A fit is never called better than this.
const BEST: f64 = 0.05;

/// What was computed for one request, or for all of a stretch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// Prompt tokens computed.
    pub(super) prompt: f64,
    /// Tokens generated.
    pub(super) decoded: f64,
    /// Steps in which they were; for one of several, its share of them.
    pub(super) steps: f64,
    /// Thousands of tokens in the context behind each generated token, summed.
    pub(super) context: f64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Cost {
    squares: [Vector; TERMS],
    products: Vector,
    /// Energy, and what the start's proportions make of the same work.
    energy: f64,
    start: f64,
    rows: f64,
    fitted: Option<Vector>,
    /// Mean error of what was foretold, as a part of it.
    residual: f64,
}

impl Work {
    const fn terms(self) -> Vector {
        [self.prompt, self.decoded, self.steps, self.context]
    }
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.decoded += other.decoded;
        self.steps += other.steps;
        self.context += other.context;
    }
}

impl Cost {
    /// Nothing learned.
    pub(super) const NONE: Self = Self {
        squares: [[0.0; TERMS]; TERMS],
        products: [0.0; TERMS],
        energy: 0.0,
        start: 0.0,
        rows: 0.0,
        fitted: None,
        residual: 0.0,
    };

    /// mJ; before anything was learned, in proportions only.
    pub(super) fn of(&self, work: Work) -> f64 {
        dot(&self.fitted.unwrap_or(START), &work.terms())
    }

    /// Whether [`of`](Self::of) means millijoules.
    pub(super) fn is_fitted(&self) -> bool {
        self.fitted.is_some()
    }

    /// How far a share may be off, as a part of it.
    pub(super) fn error(&self) -> f64 {
        // Few stretches tell little of how good the fit is.
        if self.fitted.is_some() {
            (self.residual + UNFITTED / (1.0 + self.rows)).max(BEST)
        } else {
            UNFITTED
        }
    }

    /// A stretch of this work used this much, mJ.
    pub(super) fn learn(&mut self, work: Work, energy: f64) {
        let terms = work.terms();
        let start = dot(&START, &terms);
        if energy <= 0.0 || start <= 0.0 {
            return;
        }
        if self.fitted.is_some() {
            let off = (energy - self.of(work)).abs() / energy;
            self.residual += (off.min(1.0) - self.residual) / (self.rows + 1.0);
        }
        // Stretches of any length say the same of a token: each weighs by its relative error.
        let weight = 1.0 / (energy * energy);
        for (row, term) in self.squares.iter_mut().zip(terms) {
            for (cell, other) in row.iter_mut().zip(terms) {
                *cell = *cell * FADING + weight * term * other;
            }
        }
        for (product, term) in self.products.iter_mut().zip(terms) {
            *product = *product * FADING + weight * term * energy;
        }
        self.energy = self.energy * FADING + 1.0;
        self.start = self.start * FADING + start / energy;
        self.rows = self.rows * FADING + 1.0;
        self.fitted = Some(self.solve());
    }

    /// No term costs less than nothing: one that would is left out.
    fn solve(&self) -> Vector {
        let scale = self.energy / self.start;
        let start = START.map(|it| it * scale);
        let mut left_out = [false; TERMS];
        loop {
            let mut matrix = self.squares;
            let mut side = self.products;
            for term in 0..TERMS {
                let pull = START_WEIGHS * (self.squares[term][term] / self.rows).max(1e-12);
                matrix[term][term] += pull;
                side[term] += pull * start[term];
            }
            for term in (0..TERMS).filter(|term| left_out[*term]) {
                matrix.iter_mut().for_each(|row| row[term] = 0.0);
                matrix[term] = [0.0; TERMS];
                matrix[term][term] = 1.0;
                side[term] = 0.0;
            }
            let found = gauss(matrix, side);
            let Some(worst) =
                (0..TERMS).filter(|term| found[*term] < 0.0).min_by(|a, b| found[*a].total_cmp(&found[*b]))
            else {
                return found;
            };
            left_out[worst] = true;
        }
    }
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves a symmetric, positive definite system.
fn gauss(mut matrix: [Vector; TERMS], mut side: Vector) -> Vector {
    for pivot in 0..TERMS {
        let (from, value) = (matrix[pivot], side[pivot]);
        for row in pivot + 1..TERMS {
            let factor = matrix[row][pivot] / from[pivot];
            matrix[row].iter_mut().zip(from).for_each(|(cell, from)| *cell -= factor * from);
            side[row] -= factor * value;
        }
    }
    for row in (0..TERMS).rev() {
        let known: f64 = matrix[row].iter().zip(&side).skip(row + 1).map(|(cell, found)| cell * found).sum();
        side[row] = (side[row] - known) / matrix[row][row];
    }
    side
}
