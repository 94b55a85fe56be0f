//! Takes a frame apart from front to back; every step checks what is left.

use bytes::Bytes;

use super::{DecodeError, PROTOCOL_VERSION};
use crate::ids::{Digest, Signature};

/// Shorter pieces are copied out of the frame: a small request that waits must not hold a large buffer.
const SHARED_BYTES_MIN: usize = 4096;

/// A frame and how far it has been read.
pub(crate) struct Reader {
    frame: Bytes,
    position: usize,
}

impl Reader {
    /// Checks the frame's length and version; the kind is next.
    pub(crate) fn open(frame: Bytes, bytes_max: usize) -> Result<Self, DecodeError> {
        if frame.len() > bytes_max {
            return Err(DecodeError::OverLimit { what: "frame", value: frame.len(), limit: bytes_max });
        }
        let mut reader = Self { frame, position: 0 };
        match reader.u8()? {
            PROTOCOL_VERSION => Ok(reader),
            other => Err(DecodeError::UnknownVersion(other)),
        }
    }

    /// Checks that nothing is left.
    pub(crate) fn close(self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            trailing => Err(DecodeError::TrailingBytes(trailing)),
        }
    }

    /// How many bytes have been read.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    fn remaining(&self) -> usize {
        self.frame.len().saturating_sub(self.position)
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Result<&[u8], DecodeError> {
        let start = self.position;
        let truncated = DecodeError::Truncated { needed: length, remaining: self.remaining() };
        let end = start.checked_add(length).ok_or(truncated)?;
        let taken = self.frame.get(start..end).ok_or(truncated)?;
        self.position = end;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Two bytes.
    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A digest.
    pub(crate) fn digest(&mut self) -> Result<Digest, DecodeError> {
        Ok(Digest(self.array()?))
    }

    /// A signature.
    pub(crate) fn signature(&mut self) -> Result<Signature, DecodeError> {
        Ok(Signature(self.array()?))
    }

    /// A truth value: 0 or 1.
    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::NonCanonical("a truth value other than 0 and 1")),
        }
    }

    /// How many items of at least `bytes_each` follow: at most `limit`, and all of them may still be there.
    pub(crate) fn count(
        &mut self,
        what: &'static str,
        limit: usize,
        bytes_each: usize,
    ) -> Result<usize, DecodeError> {
        let value = usize::try_from(u32::from_le_bytes(self.array()?)).unwrap_or(usize::MAX);
        if value > limit {
            return Err(DecodeError::OverLimit { what, value, limit });
        }
        let needed = value.saturating_mul(bytes_each);
        if needed > self.remaining() {
            return Err(DecodeError::Truncated { needed, remaining: self.remaining() });
        }
        Ok(value)
    }

    /// A list of digests.
    pub(crate) fn digests(&mut self, what: &'static str, limit: usize) -> Result<Vec<Digest>, DecodeError> {
        let count = self.count(what, limit, 32)?;
        (0..count).map(|_| self.digest()).collect()
    }

    /// What was read since `start`, to be kept: shared with the frame where it makes up most of it.
    pub(crate) fn since(&self, start: usize) -> Bytes {
        let piece = self.frame.get(start..self.position).unwrap_or_default();
        if piece.len() >= SHARED_BYTES_MIN && piece.len() >= self.frame.len() / 2 {
            self.frame.slice_ref(piece)
        } else {
            Bytes::copy_from_slice(piece)
        }
    }
}
