//! Server-sent events, cut into whole events without copying more than a partial one.
//!
//! The hub and the node forward whole events only, so that either can add an event of its own (an error, a comment)
//! between any two without tearing one. Follows the WHATWG event-stream grammar as far as OpenAI's API uses it:
//! `data:` lines and comments, lines ended by LF, CR LF or CR. `event:`, `id:` and `retry:` lines stay in the raw event
//! and are not interpreted.

use bytes::{Bytes, BytesMut};

/// Largest single event, bytes. A stream with a longer one is not an answer.
pub const MAX_EVENT: usize = 1024 * 1024;

/// An event grew past [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than 1 MiB")]
pub struct EventTooLong;

/// One whole event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event as it came, with the blank line that ends it.
    pub raw: Bytes,
    /// Its `data:` lines joined by LF; `None` for a comment or an event with no data.
    pub data: Option<Bytes>,
}

impl Event {
    /// Whether this is the `[DONE]` that ends OpenAI's streams.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.data.as_ref().is_some_and(|data| &data[..] == b"[DONE]")
    }
}

/// Writes one event that carries `json` as its data.
#[must_use]
pub fn event(json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + 8);
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
    out.freeze()
}

/// Cuts a byte stream into events. Feed it whatever the network gives.
#[derive(Debug, Default)]
pub struct Splitter {
    buffer: BytesMut,
    /// Bytes of `buffer` already searched for a blank line.
    searched: usize,
}

impl Splitter {
    /// Adds bytes as they came.
    ///
    /// # Errors
    /// When the unfinished event is longer than [`MAX_EVENT`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), EventTooLong> {
        self.buffer.extend_from_slice(bytes);
        // A push may hold many events at once; only an unfinished tail counts against the limit, and `next_event`
        // shrinks it. Guard against a stream that never ends its first event.
        if self.buffer.len() > MAX_EVENT && blank_line(&self.buffer, 0).is_none() {
            return Err(EventTooLong);
        }
        Ok(())
    }

    /// The next whole event, if one has come in full.
    pub fn next_event(&mut self) -> Option<Event> {
        let from = self.searched.saturating_sub(3);
        let Some(end) = blank_line(&self.buffer, from) else {
            self.searched = self.buffer.len();
            return None;
        };
        self.searched = 0;
        let raw = self.buffer.split_to(end).freeze();
        let data = data_of(&raw);
        Some(Event { raw, data })
    }

    /// Whether bytes of an unfinished event are left.
    #[must_use]
    pub fn has_partial(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// Position just past the first blank line at or after `from`: LF LF, CR LF CR LF, CR CR or LF CR LF.
fn blank_line(bytes: &[u8], from: usize) -> Option<usize> {
    let mut i = from;
    while let Some(step) = bytes.get(i..)?.iter().position(|b| *b == b'\n' || *b == b'\r') {
        i += step;
        let after_line = line_end(bytes, i)?;
        match bytes.get(after_line) {
            Some(b'\n') => return Some(after_line + 1),
            // A CR at the very end may be half of CR LF: wait for the next byte, unless the line end before it was a
            // bare CR too, in which case the stream uses CR alone.
            Some(b'\r') => match bytes.get(after_line + 1) {
                Some(b'\n') => return Some(after_line + 2),
                Some(_) => return Some(after_line + 1),
                None => {
                    return (bytes.get(i) == Some(&b'\r') && after_line == i + 1).then_some(after_line + 1);
                }
            },
            _ => i = after_line,
        }
    }
    None
}

/// Position just past the line end at `i`; `None` when a final CR may yet be followed by its LF.
fn line_end(bytes: &[u8], i: usize) -> Option<usize> {
    match (bytes.get(i)?, bytes.get(i + 1)) {
        (b'\r', Some(b'\n')) => Some(i + 2),
        (b'\r', None) => None,
        _ => Some(i + 1),
    }
}

fn data_of(raw: &Bytes) -> Option<Bytes> {
    let mut joined: Option<BytesMut> = None;
    let mut single: Option<Bytes> = None;
    for line in raw.split(|b| *b == b'\n' || *b == b'\r') {
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match (&mut joined, single.take()) {
            (None, None) => single = Some(raw.slice_ref(value)),
            (None, Some(first)) => {
                let mut all = BytesMut::from(&first[..]);
                all.extend_from_slice(b"\n");
                all.extend_from_slice(value);
                joined = Some(all);
            }
            (Some(all), _) => {
                all.extend_from_slice(b"\n");
                all.extend_from_slice(value);
            }
        }
    }
    joined.map(BytesMut::freeze).or(single)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<Event> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for chunk in chunks {
            splitter.push(chunk).unwrap();
            while let Some(event) = splitter.next_event() {
                events.push(event);
            }
        }
        events
    }

    fn datas(chunks: &[&[u8]]) -> Vec<String> {
        all(chunks)
            .into_iter()
            .filter_map(|event| event.data)
            .map(|data| String::from_utf8(data.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn cuts_events_at_every_kind_of_line_end() {
        assert_eq!(datas(&[b"data: a\n\ndata: b\n\n"]), ["a", "b"]);
        assert_eq!(datas(&[b"data: a\r\n\r\ndata: b\r\n\r\n"]), ["a", "b"]);
        assert_eq!(datas(&[b"data: a\r\rdata: b\r\r"]), ["a", "b"]);
        assert_eq!(datas(&[b": comment\n\ndata:a\ndata: b\n\n"]), ["a\nb"]);
    }

    #[test]
    fn knows_done_and_what_is_left() {
        let mut splitter = Splitter::default();
        splitter.push(b"data: [DONE]\n\ndata: half").unwrap();
        assert!(splitter.next_event().unwrap().is_done());
        assert_eq!(splitter.next_event(), None);
        assert!(splitter.has_partial());
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut splitter = Splitter::default();
        let chunk = vec![b'x'; 64 * 1024];
        let failed = (0..32).any(|_| splitter.push(&chunk).is_err());
        assert!(failed);
    }

    proptest! {
        /// However the bytes are cut on their way, the events and their raw bytes are the same.
        #[test]
        fn cutting_changes_nothing(
            lines in proptest::collection::vec("[a-z{}\"é]{0,12}", 1..8),
            end in prop_oneof![Just("\n"), Just("\r\n")],
            cuts in proptest::collection::vec(0usize..200, 0..6),
        ) {
            let text: String = lines.iter().map(|line| format!("data: {line}{end}{end}")).collect();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let events = all(&chunks);
            let raw: Vec<u8> = events.iter().flat_map(|event| event.raw.to_vec()).collect();
            prop_assert_eq!(raw, bytes);
            prop_assert_eq!(datas(&chunks), lines);
        }
    }
}
