//! Long messages in pieces: STOPDATA, SYNC and what donors give may be larger than a frame, and votes have to pass
//! between them.
//!
//! A piece is a frame of a kind of its own: version, kind, the whole message's length, the place of this piece in
//! it, and its bytes. A message's pieces come in order, and those of one message at a time; all but the last are
//! full. The transport splits and assembles; the core sees whole messages only. What an [`Assembler`] holds grows
//! with what has arrived, never with what is announced.

use bytes::Bytes;
use thiserror::Error;

use super::peer::{PIECE, is_long_kind};
use super::{PROTOCOL_VERSION, put_count, put_header};
use crate::limits::{LONG_MESSAGE_BYTES_MAX, PIECE_BYTES};

/// Version, kind, total and place.
const HEADER_BYTES: usize = 2 + 4 + 4;

/// A frame that is no piece, or not the next one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PieceError {
    /// It ends before its header does, or is of another version or kind.
    #[error("no piece of a message")]
    NoPiece,
    /// A message of this length does not travel in pieces.
    #[error("a message of {0} bytes in pieces")]
    Total(usize),
    /// A message of this kind does not travel in pieces.
    #[error("a message of kind {0} in pieces")]
    Kind(u8),
    /// Another piece is due.
    #[error("a piece at {place} of {total} bytes, where {expected} of {expected_total} is due")]
    OutOfOrder {
        /// Where it says that it belongs.
        place: usize,
        /// The message's length, as it says.
        total: usize,
        /// Where the next one belongs.
        expected: usize,
        /// The length of the message that has begun; what it says itself if none has.
        expected_total: usize,
    },
    /// It is not full, or longer than the rest of the message.
    #[error("a piece of {length} bytes, where {expected} are due")]
    Length {
        /// Its bytes.
        length: usize,
        /// What they should be.
        expected: usize,
    },
}

/// Whether an encoded message is sent in pieces.
#[must_use]
pub fn is_long(message: &[u8]) -> bool {
    message.len() > PIECE_BYTES && message.get(1).is_some_and(|kind| is_long_kind(*kind))
}

/// Whether a frame holds a piece.
#[must_use]
pub fn is_piece(frame: &[u8]) -> bool {
    frame.get(1) == Some(&PIECE)
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    message: Bytes,
    sent: usize,
}

impl Pieces {
    /// An encoded message before its first piece; `None` for one that nobody would take.
    #[must_use]
    pub fn new(message: Bytes) -> Option<Self> {
        (is_long(&message) && message.len() <= LONG_MESSAGE_BYTES_MAX).then_some(Self { message, sent: 0 })
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// Whether nothing of it is left.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.sent >= self.message.len()
    }

    /// Appends the frame of the next piece.
    pub fn put_next(&mut self, out: &mut Vec<u8>) {
        let end = self.sent.saturating_add(PIECE_BYTES).min(self.message.len());
        let Some(piece) = self.message.get(self.sent..end) else { return };
        put_header(out, PIECE);
        put_count(out, self.message.len());
        put_count(out, self.sent);
        out.extend_from_slice(piece);
        self.sent = end;
    }
}

/// The message that one peer is sending in pieces, as far as it is here.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Its announced length, and what has arrived; empty between messages.
    total: usize,
    arrived: Vec<u8>,
}

impl Assembler {
    /// Takes the next piece; returns the message that it completes.
    ///
    /// # Errors
    ///
    /// Whatever is not the next piece. The stream is lost then: close the connection.
    pub fn take(&mut self, frame: &[u8]) -> Result<Option<Bytes>, PieceError> {
        let (header, piece) = frame.split_at_checked(HEADER_BYTES).ok_or(PieceError::NoPiece)?;
        let [PROTOCOL_VERSION, PIECE, t0, t1, t2, t3, p0, p1, p2, p3] = *header else {
            return Err(PieceError::NoPiece);
        };
        let number = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (total, place) = (number([t0, t1, t2, t3]), number([p0, p1, p2, p3]));
        let has_begun = !self.arrived.is_empty();
        let expected_total = if has_begun { self.total } else { total };
        if place != self.arrived.len() || total != expected_total {
            let expected = self.arrived.len();
            return Err(PieceError::OutOfOrder { place, total, expected, expected_total });
        }
        if total <= PIECE_BYTES || total > LONG_MESSAGE_BYTES_MAX {
            return Err(PieceError::Total(total));
        }
        let expected = total.saturating_sub(place).min(PIECE_BYTES);
        if piece.len() != expected {
            return Err(PieceError::Length { length: piece.len(), expected });
        }
        match piece {
            [_, kind, ..] if !has_begun && !is_long_kind(*kind) => return Err(PieceError::Kind(*kind)),
            _ => {}
        }
        self.total = total;
        self.arrived.extend_from_slice(piece);
        Ok((self.arrived.len() == total).then(|| Bytes::from(std::mem::take(&mut self.arrived))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Wire;
    use crate::ids::{Digest, InstanceId, Regency, ReplicaId, Signature, ViewId};
    use crate::leader_change::stop_data::{Claim, Lock, SignedStopData, StopData};
    use crate::message::Message;

    /// A STOPDATA of many claims.
    fn long_message(claims: u64) -> Message {
        let digest = Digest([7; 32]);
        let claim = |instance: u64| Claim {
            instance: InstanceId(instance),
            lock: Lock::At { epoch: Regency(1), digest },
            write_set: (1..=60).map(|epoch| (Regency(epoch), digest)).collect(),
        };
        let data = StopData {
            view: ViewId(0),
            regency: Regency(90),
            base: None,
            claims: (1..=claims).map(claim).collect(),
        };
        Message::StopData(SignedStopData {
            sender: ReplicaId(2),
            data: std::sync::Arc::new(data),
            signature: Signature([9; 64]),
        })
    }

    #[test]
    fn no_message_is_taken_for_a_piece() {
        let empty: [Message; 3] =
            [Message::Forward(Vec::new()), Message::Announce(Vec::new()), Message::Lack(Vec::new())];
        assert!(empty.iter().all(|message| !is_piece(&message.to_frame())));
        let frame = Bytes::from_static(&[PROTOCOL_VERSION, PIECE]);
        assert_eq!(Message::decode(frame), Err(crate::codec::DecodeError::UnknownKind(PIECE)));
    }

    fn frames(message: &Bytes) -> Vec<Vec<u8>> {
        let mut pieces = Pieces::new(message.clone()).unwrap();
        let mut frames = Vec::new();
        while !pieces.is_over() {
            let mut frame = Vec::new();
            pieces.put_next(&mut frame);
            assert!(is_piece(&frame) && frame.len() <= HEADER_BYTES + PIECE_BYTES);
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn a_message_larger_than_a_frame_arrives_as_it_was_sent() {
        let message = long_message(4000);
        let bytes = message.to_frame();
        assert!(bytes.len() > crate::limits::PEER_FRAME_BYTES_MAX);
        let mut assembler = Assembler::default();
        // Twice: one message after the other.
        for _ in 0..2 {
            let frames = frames(&bytes);
            let (last, rest) = frames.split_last().unwrap();
            for frame in rest {
                assert_eq!(assembler.take(frame), Ok(None));
                assert!(assembler.arrived.capacity() <= 2 * assembler.arrived.len().max(PIECE_BYTES));
            }
            let whole = assembler.take(last).unwrap().unwrap();
            assert_eq!(Message::decode(whole), Ok(message.clone()));
        }
    }

    #[test]
    fn only_long_messages_of_a_leader_change_are_split() {
        assert!(!is_long(&long_message(1).to_frame()));
        let mut other = vec![0; PIECE_BYTES + 1];
        other[..2].copy_from_slice(&[PROTOCOL_VERSION, 1]);
        assert!(!is_long(&other) && Pieces::new(other.into()).is_none());
        let mut over = vec![0; LONG_MESSAGE_BYTES_MAX + 1];
        over[..2].copy_from_slice(&long_message(1).to_frame()[..2]);
        assert!(Pieces::new(over.into()).is_none());
    }

    #[test]
    fn a_wrong_piece_is_refused() {
        let bytes = long_message(400).to_frame();
        let sent = frames(&bytes);
        let take = |frame: &[u8]| Assembler::default().take(frame);
        let changed = |at: usize, to: u32| {
            let mut frame = sent[0].clone();
            frame[at..at + 4].copy_from_slice(&to.to_le_bytes());
            frame
        };
        assert_eq!(take(&sent[0][..9]), Err(PieceError::NoPiece));
        assert_eq!(take(&bytes), Err(PieceError::NoPiece));
        let over = u32::try_from(LONG_MESSAGE_BYTES_MAX).unwrap() + 1;
        assert_eq!(take(&changed(2, over)), Err(PieceError::Total(over as usize)));
        let short = u32::try_from(PIECE_BYTES).unwrap();
        assert_eq!(take(&changed(2, short)), Err(PieceError::Total(PIECE_BYTES)));
        assert_eq!(take(&changed(2, 0)), Err(PieceError::Total(0)));
        assert!(matches!(take(&sent[1]), Err(PieceError::OutOfOrder { expected: 0, .. })));
        assert!(matches!(take(&changed(6, 1)), Err(PieceError::OutOfOrder { place: 1, .. })));
        assert!(matches!(take(&sent[0][..100]), Err(PieceError::Length { length: 90, .. })));
        let mut vote = sent[0].clone();
        vote[HEADER_BYTES + 1] = 2;
        assert_eq!(take(&vote), Err(PieceError::Kind(2)));

        let mut begun = Assembler::default();
        begun.take(&sent[0]).unwrap();
        assert!(matches!(begun.take(&sent[0]), Err(PieceError::OutOfOrder { place: 0, .. })));
        let mut longer = sent[1].clone();
        longer.push(0);
        assert!(matches!(begun.take(&longer), Err(PieceError::Length { .. })));
        let mut relabelled = sent[1].clone();
        relabelled[2] ^= 1;
        assert!(matches!(begun.take(&relabelled), Err(PieceError::OutOfOrder { .. })));
        assert!(begun.take(&sent[1]).is_ok(), "nothing of those was kept");
    }
}
