//! Frames: a length of four bytes, little-endian, and that many bytes.
//!
//! The parser takes a stream in pieces of any size. It never allocates on the word of a length field: what it
//! holds grows with what has arrived.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

/// Bytes of a frame's length field.
pub const LENGTH_BYTES: usize = 4;
/// What is reserved for a frame before its bytes arrive.
const RESERVE_MAX: usize = 64 << 10;

/// A stream that is no sequence of frames.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// A length field above the limit of this connection.
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong {
        /// What the length field says.
        length: usize,
        /// What it may say.
        limit: usize,
    },
    /// A frame without content.
    #[error("an empty frame")]
    Empty,
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub struct FrameParser {
    /// Of the frame that is on its way, or comes next.
    limit: usize,
    /// Of all frames after that one.
    limit_later: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many bytes of the length field are there.
    Length { field: [u8; LENGTH_BYTES], filled: usize },
    /// The body is on its way; it has `length` bytes.
    Body { length: usize, body: BytesMut },
}

const START: State = State::Length { field: [0; LENGTH_BYTES], filled: 0 };

impl FrameParser {
    /// A parser at the start of a stream whose frames have at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self::with_first(limit, limit)
    }

    /// A parser whose first frame, sent by somebody unknown yet, has at most `first` bytes.
    #[must_use]
    pub fn with_first(first: usize, limit: usize) -> Self {
        Self { limit: first, limit_later: limit, state: START }
    }

    /// Changes the limit for all frames but the first.
    pub fn set_limit(&mut self, limit: usize) {
        if self.limit == self.limit_later {
            self.limit = limit;
        }
        self.limit_later = limit;
    }

    /// Takes the next piece of the stream and appends the frames that it completes.
    ///
    /// Each frame has an allocation of its own, so that who keeps a part of one keeps no other alive.
    /// After an error the stream is lost: close the connection.
    pub fn feed(&mut self, mut piece: &[u8], frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
        while !piece.is_empty() {
            match &mut self.state {
                State::Length { field, filled } => {
                    let (head, rest) = piece.split_at(piece.len().min(LENGTH_BYTES - *filled));
                    field[*filled..*filled + head.len()].copy_from_slice(head);
                    *filled += head.len();
                    piece = rest;
                    if *filled < LENGTH_BYTES {
                        return Ok(());
                    }
                    let length = checked_length(u32::from_le_bytes(*field), self.limit)?;
                    if let Some((whole, rest)) = piece.split_at_checked(length) {
                        frames.push(Bytes::copy_from_slice(whole));
                        piece = rest;
                        self.begin_next();
                    } else {
                        let body = BytesMut::with_capacity(length.min(RESERVE_MAX));
                        self.state = State::Body { length, body };
                    }
                }
                State::Body { length, body } => {
                    let (head, rest) = piece.split_at(piece.len().min(*length - body.len()));
                    body.extend_from_slice(head);
                    piece = rest;
                    if body.len() == *length {
                        frames.push(std::mem::take(body).freeze());
                        self.begin_next();
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether the stream stands between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Length { filled: 0, .. })
    }

    fn begin_next(&mut self) {
        self.state = START;
        self.limit = self.limit_later;
    }
}

fn checked_length(field: u32, limit: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(field).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn frames_come_out_whole_whatever_the_pieces() {
        let bodies: Vec<Vec<u8>> = [1, 3, 4, 5, 70_000, 2].iter().map(|n| vec![7; *n]).collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for piece in [1, 2, 3, 5, 1000, stream.len()] {
            let mut parser = FrameParser::new(70_000);
            let mut frames = Vec::new();
            for chunk in stream.chunks(piece) {
                parser.feed(chunk, &mut frames).unwrap();
            }
            assert_eq!(frames, bodies);
            assert!(parser.is_between_frames());
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_its_body() {
        let mut parser = FrameParser::new(100);
        let mut frames = Vec::new();
        parser.feed(&101_u32.to_le_bytes()[..3], &mut frames).unwrap();
        let refused = parser.feed(&101_u32.to_le_bytes()[3..], &mut frames);
        assert_eq!(refused, Err(FrameError::TooLong { length: 101, limit: 100 }));
        assert!(frames.is_empty());
        assert_eq!(FrameParser::new(100).feed(&[0; 4], &mut frames), Err(FrameError::Empty));
    }

    #[test]
    fn the_first_frame_has_a_limit_of_its_own() {
        let mut frames = Vec::new();
        let mut parser = FrameParser::with_first(10, 100);
        parser.feed(&[framed(&[1; 10]), framed(&[2; 100])].concat(), &mut frames).unwrap();
        parser.set_limit(200);
        parser.feed(&framed(&[3; 200]), &mut frames).unwrap();
        assert_eq!(frames.len(), 3);
        let refused = FrameParser::with_first(10, 100).feed(&framed(&[1; 11]), &mut frames);
        assert_eq!(refused, Err(FrameError::TooLong { length: 11, limit: 10 }));
    }

    #[test]
    fn a_length_field_alone_reserves_little() {
        let mut parser = FrameParser::new(usize::MAX);
        parser.feed(&u32::MAX.to_le_bytes(), &mut Vec::new()).unwrap();
        parser.feed(&[1], &mut Vec::new()).unwrap();
        let State::Body { body, .. } = &parser.state else { panic!("a body is due") };
        assert!(body.capacity() <= 2 * RESERVE_MAX);
        assert!(!parser.is_between_frames());
    }

    #[test]
    fn frames_share_no_memory() {
        let stream: Vec<u8> = (0..10_u8).flat_map(|n| framed(&[n; 50])).collect();
        let mut frames = Vec::new();
        FrameParser::new(100).feed(&stream, &mut frames).unwrap();
        assert!(frames.into_iter().all(|frame| frame.try_into_mut().is_ok()));
    }
}
