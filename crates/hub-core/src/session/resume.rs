//! A session that goes on over a new socket: from absolute positions alone, because any message may have been lost with
//! the old one.

use std::collections::HashMap;
use std::time::Instant;

use idlewatt_protocol::limits::MAX_STREAMS;
use idlewatt_protocol::message::{HubMessage, ResumeStream, Resumed};

use super::heartbeat::Heartbeat;
use super::{Breach, Outgoing, Session, body_frames, breach};

/// How a session goes on.
#[derive(Debug)]
pub struct Resumption<T> {
    /// What the node is told in the welcome.
    pub resumed: Vec<Resumed>,
    /// What it is sent after the welcome: the rest of bodies, and cancels again.
    pub out: Vec<Outgoing>,
    /// Who waits for streams that the node no longer has.
    pub lost: Vec<T>,
}

impl<T> Session<T> {
    /// The node is back on a new socket, with these streams.
    ///
    /// # Errors
    /// When it names too many, one twice, or more of a body than there is.
    pub fn resume(&mut self, now: Instant, named: &[ResumeStream]) -> Result<Resumption<T>, Breach> {
        if named.len() > MAX_STREAMS {
            return breach(format!("{} streams named, the limit is {MAX_STREAMS}", named.len()));
        }
        let named: HashMap<u32, u64> = {
            let count = named.len();
            let by_stream: HashMap<_, _> = named.iter().map(|it| (it.stream, it.body)).collect();
            if by_stream.len() < count {
                return breach("a stream named twice in one hello");
            }
            by_stream
        };
        // Checked before anything changes: after a breach everyone who waits is still in the table.
        for (id, open) in &self.streams {
            if let Some(have) = named.get(id) {
                if *have > open.body_bytes {
                    return breach(format!("stream {id} has {have} bytes of a body of {}", open.body_bytes));
                }
                if open.has_head && *have < open.body_bytes {
                    return breach(format!("stream {id} began its answer before it had the body"));
                }
            }
        }
        let lost =
            self.streams.extract_if(|id, _| !named.contains_key(id)).map(|(_, open)| open.owner).collect();
        let mut resumed = Vec::with_capacity(self.streams.len());
        let mut out = Vec::new();
        for (id, open) in &mut self.streams {
            let have = named.get(id).copied().unwrap_or_default();
            resumed.push(Resumed {
                stream: *id,
                has_head: open.has_head,
                offset: open.received,
                credit: open.credit,
            });
            if have < open.body_bytes {
                out.extend(body_frames(*id, &open.body, have));
            }
            if let Some(cancelled) = &mut open.cancelled {
                cancelled.at = now;
                let (delivered, reason) = (cancelled.delivered, cancelled.reason);
                out.push(Outgoing::Control(HubMessage::Cancel { stream: *id, delivered, reason }));
            }
        }
        resumed.sort_unstable_by_key(|it| it.stream);
        self.heartbeat = Heartbeat::new(now, !self.streams.is_empty());
        Ok(Resumption { resumed, out, lost })
    }
}

#[cfg(test)]
mod tests;
