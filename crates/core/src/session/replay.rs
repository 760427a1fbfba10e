//! The bytes of an answer that may have to be sent, or sent again: from what the hub has surely passed on to what was taken.

use std::collections::VecDeque;

use bytes::Bytes;

/// Pieces of an answer by their positions in it, without gaps.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pieces: VecDeque<(u64, Bytes)>,
    end: u64,
}

impl Replay {
    /// Position after the last byte.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let from = self.end;
            self.end += bytes.len() as u64;
            self.pieces.push_back((from, bytes));
        }
    }

    /// Bytes at `from`, at most `most` of them and of one piece; nothing where there are none any more, or not yet.
    pub(super) fn at(&self, from: u64, most: usize) -> Bytes {
        let after = self.pieces.partition_point(|(start, _)| *start <= from);
        let piece = after.checked_sub(1).and_then(|at| self.pieces.get(at));
        let Some((start, bytes)) = piece else { return Bytes::new() };
        let skip = usize::try_from(from - start).unwrap_or(usize::MAX).min(bytes.len());
        bytes.slice(skip..bytes.len().min(skip.saturating_add(most)))
    }

    /// Pieces that end at or before `until` are not asked for any more.
    pub(super) fn forget(&mut self, until: u64) {
        while self.pieces.front().is_some_and(|(start, bytes)| start + bytes.len() as u64 <= until) {
            self.pieces.pop_front();
        }
    }
}
