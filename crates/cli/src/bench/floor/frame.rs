//! What travels on the floor's sockets: frames as long as the real ones, with nothing in them but what the
//! counting needs.

/// Bytes of a frame's length field.
const LENGTH_BYTES: usize = 4;
/// Bytes of a request before its payload, as a real one has them: kind, header.
const REQUEST_BYTES: usize = 1 + regency::protocol::message::REQUEST_HEADER_BYTES;
/// Bytes of a reply before its result: kind, view, instance, session, sequence, length.
const REPLY_BYTES: usize = 1 + 8 + 8 + 8 + 8 + 4;
/// Bytes of a proposal before its requests: kind, view, regency, instance, timestamp, count.
const PROPOSE_BYTES: usize = 1 + 8 + 8 + 8 + 8 + 4;
/// Bytes of a request's digest in a proposal.
const DIGEST_BYTES: usize = 32;
/// Bytes of a vote: kind, view, instance, regency, digest.
const VOTE_BYTES: usize = 1 + 8 + 8 + 8 + DIGEST_BYTES;
/// Bytes of a frame, its length field left out.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Which request: a client's number and the request's number at that client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    /// The client.
    pub(super) client: u32,
    /// Its request.
    pub(super) sequence: u64,
}

/// A message of the floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The first one between replicas: who connects.
    Hello(u16),
    /// From a client to every replica.
    Request(Place),
    /// From a replica to a client.
    Reply(Place),
    /// From the leader to the others.
    Propose {
        /// Which instance.
        instance: u64,
        /// What it orders.
        requests: Vec<Place>,
    },
    /// First vote, from each replica to all others.
    Write(u64),
    /// Second vote, from each replica to all others.
    Accept(u64),
}

/// The other side sent something else.
#[derive(Debug, thiserror::Error)]
#[error("what arrived is not a frame of the floor")]
pub(super) struct FrameError;

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 0,
            Self::Request(_) => 1,
            Self::Reply(_) => 2,
            Self::Propose { .. } => 3,
            Self::Write(_) => 4,
            Self::Accept(_) => 5,
        }
    }

    /// Bytes after the length field, the padding left out.
    fn body_bytes(&self) -> usize {
        match self {
            Self::Hello(_) => 3,
            Self::Request(_) => REQUEST_BYTES,
            Self::Reply(_) => REPLY_BYTES,
            Self::Propose { requests, .. } => PROPOSE_BYTES + requests.len() * DIGEST_BYTES,
            Self::Write(_) | Self::Accept(_) => VOTE_BYTES,
        }
    }

    /// Appends the frame, with `padding` zero bytes as its payload.
    pub(super) fn encode(&self, padding: usize, output: &mut Vec<u8>) {
        let body = self.body_bytes() + padding;
        let start = output.len();
        output.extend_from_slice(&u32::try_from(body).unwrap_or(u32::MAX).to_le_bytes());
        output.push(self.kind());
        match self {
            Self::Hello(id) => output.extend_from_slice(&id.to_le_bytes()),
            Self::Request(place) | Self::Reply(place) => put_place(*place, output),
            Self::Propose { instance, requests } => {
                output.extend_from_slice(&instance.to_le_bytes());
                output.extend_from_slice(&u32::try_from(requests.len()).unwrap_or(u32::MAX).to_le_bytes());
                output.resize(start + LENGTH_BYTES + PROPOSE_BYTES, 0);
                for place in requests {
                    let end = output.len() + DIGEST_BYTES;
                    put_place(*place, output);
                    output.resize(end, 0);
                }
            }
            Self::Write(instance) | Self::Accept(instance) => {
                output.extend_from_slice(&instance.to_le_bytes());
            }
        }
        output.resize(start + LENGTH_BYTES + body, 0);
    }

    /// The frame that `input` starts with and the bytes that it takes, or `None` if it is not whole yet.
    pub(super) fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(length) = input.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(FrameError);
        }
        let Some(body) = input.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(None) };
        let frame = match body[0] {
            0 => Self::Hello(u16::from_le_bytes(field(body, 1)?)),
            1 => Self::Request(place_at(body, 1)?),
            2 => Self::Reply(place_at(body, 1)?),
            3 => Self::Propose {
                instance: u64::from_le_bytes(field(body, 1)?),
                requests: proposed(body, u32::from_le_bytes(field(body, 9)?) as usize)?,
            },
            4 => Self::Write(u64::from_le_bytes(field(body, 1)?)),
            5 => Self::Accept(u64::from_le_bytes(field(body, 1)?)),
            _ => return Err(FrameError),
        };
        Ok(Some((frame, LENGTH_BYTES + length)))
    }
}

fn put_place(place: Place, output: &mut Vec<u8>) {
    output.extend_from_slice(&place.client.to_le_bytes());
    output.extend_from_slice(&place.sequence.to_le_bytes());
}

fn place_at(body: &[u8], at: usize) -> Result<Place, FrameError> {
    let client = u32::from_le_bytes(field(body, at)?);
    let sequence = u64::from_le_bytes(field(body, at + 4)?);
    Ok(Place { client, sequence })
}

fn proposed(body: &[u8], count: usize) -> Result<Vec<Place>, FrameError> {
    if body.len() < PROPOSE_BYTES.saturating_add(count.saturating_mul(DIGEST_BYTES)) {
        return Err(FrameError);
    }
    (0..count).map(|index| place_at(body, PROPOSE_BYTES + index * DIGEST_BYTES)).collect()
}

fn field<const N: usize>(body: &[u8], at: usize) -> Result<[u8; N], FrameError> {
    body.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(FrameError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let place = |client, sequence| Place { client, sequence };
        vec![
            Frame::Hello(3),
            Frame::Request(place(7, 1 << 40)),
            Frame::Reply(place(0, 9)),
            Frame::Propose { instance: 5, requests: vec![place(1, 2), place(3, 4)] },
            Frame::Propose { instance: 6, requests: Vec::new() },
            Frame::Write(8),
            Frame::Accept(u64::MAX),
        ]
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for padding in [0, 100] {
            for frame in frames() {
                let mut bytes = Vec::new();
                frame.encode(padding, &mut bytes);
                for cut in 0..bytes.len() {
                    assert_eq!(Frame::decode(&bytes[..cut]).unwrap(), None, "{frame:?} cut at {cut}");
                }
                let length = bytes.len();
                bytes.push(77);
                assert_eq!(Frame::decode(&bytes).unwrap(), Some((frame, length)));
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Frame::decode(&[0, 0, 0, 0, 1]).is_err());
        assert!(Frame::decode(&[255, 255, 255, 255, 1]).is_err());
        assert!(Frame::decode(&[1, 0, 0, 0, 9]).is_err());
        assert!(Frame::decode(&[2, 0, 0, 0, 4, 1]).is_err());
    }
}
