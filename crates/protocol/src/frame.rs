//! Binary frames: the bytes of request bodies and answers on a node session.
//!
//! ```text
//! kind u8 | flags u8 | reserved u16 | stream u32 | offset u64 | payload (≤ 64 KiB)      big endian
//! ```
//!
//! `offset` is the position of the payload's first byte in that stream and direction, so a duplicate is harmless and a
//! gap is visible. Control messages are text frames, see [`crate::message`].

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::MAX_FRAME_PAYLOAD;

/// Bytes of a frame's header.
pub const HEADER: usize = 16;

/// What a binary frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A piece of a request's body, hub to node.
    Body = 1,
    /// A piece of an answer's body, node to hub.
    Data = 2,
}

/// The last frame of its direction in its stream.
pub const FLAG_LAST: u8 = 0b0000_0001;

/// One binary frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// Whether nothing follows in this direction of the stream.
    pub last: bool,
    /// The stream, chosen by the hub, unique within a session.
    pub stream: u32,
    /// Position of the first payload byte in this direction of the stream.
    pub offset: u64,
    /// At most [`MAX_FRAME_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than a header.
    #[error("a frame of {0} bytes is shorter than its 16-byte header")]
    Short(usize),
    /// A kind that this version does not know.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// A flag that this version does not know.
    #[error("frame flags {0:#010b} hold an unknown flag")]
    Flags(u8),
    /// Reserved bits are set.
    #[error("the reserved bytes of a frame must be zero")]
    Reserved,
    /// The payload is over the limit.
    #[error("a payload of {0} bytes is over the limit of 65,536")]
    Long(usize),
    /// The offset would pass 2⁶⁴.
    #[error("offset {0} and the payload's length pass the end of the range")]
    Offset(u64),
}

impl Frame {
    /// The frame as bytes for the wire.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.payload.len());
        out.put_u8(self.kind as u8);
        out.put_u8(if self.last { FLAG_LAST } else { 0 });
        out.put_u16(0);
        out.put_u32(self.stream);
        out.put_u64(self.offset);
        out.extend_from_slice(&self.payload);
        out.freeze()
    }

    /// Reads one frame; the payload shares the memory of `bytes`.
    ///
    /// # Errors
    /// When the header is not one of this version's or the payload is over the limit.
    pub fn decode(bytes: &Bytes) -> Result<Self, FrameError> {
        let header: [u8; HEADER] = bytes
            .get(..HEADER)
            .and_then(|head| head.try_into().ok())
            .ok_or(FrameError::Short(bytes.len()))?;
        let [kind, flags, r0, r1, s0, s1, s2, s3, o0, o1, o2, o3, o4, o5, o6, o7] = header;
        let kind = match kind {
            1 => Kind::Body,
            2 => Kind::Data,
            other => return Err(FrameError::Kind(other)),
        };
        if flags & !FLAG_LAST != 0 {
            return Err(FrameError::Flags(flags));
        }
        if (r0, r1) != (0, 0) {
            return Err(FrameError::Reserved);
        }
        let payload = bytes.slice(HEADER..);
        if payload.len() > MAX_FRAME_PAYLOAD {
            return Err(FrameError::Long(payload.len()));
        }
        let offset = u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        if offset.checked_add(payload.len() as u64).is_none() {
            return Err(FrameError::Offset(offset));
        }
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        Ok(Self { kind, last: flags & FLAG_LAST != 0, stream, offset, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Golden bytes: a change here is a change of the wire, and needs a new version.
    #[test]
    fn the_header_is_these_sixteen_bytes() {
        let frame = Frame {
            kind: Kind::Data,
            last: true,
            stream: 0x0102_0304,
            offset: 5,
            payload: Bytes::from_static(b"hi"),
        };
        assert_eq!(
            &frame.encode()[..],
            b"\x02\x01\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00\x00\x00\x00\x05hi"
        );
    }

    proptest! {
        #[test]
        fn a_frame_reads_back(last: bool, stream: u32, offset in 0..u64::MAX / 2, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = Frame { kind: Kind::Body, last, stream, offset, payload: payload.into() };
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = Bytes::from(bytes);
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }
    }
}
