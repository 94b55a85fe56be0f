//! The binary form of requests and replies: little-endian, bounded, one encoding for each value.
//!
//! Decoding checks every length against what is left, and against its limit, before it allocates.

use bytes::BufMut;
use thiserror::Error;

use super::limits::{KEY_BYTES_MAX, OPERATION_KEYS_MAX, VALUE_BYTES_MAX};

/// The first byte of every request and reply.
pub(super) const FORMAT: u8 = 1;

/// Why bytes are no request or reply.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Another version of the format, or something else altogether.
    #[error("the first byte is not that of this format")]
    UnknownFormat,
    /// It ends in the middle.
    #[error("it ends too early")]
    Truncated,
    /// Something follows the end.
    #[error("bytes follow its end")]
    TrailingBytes,
    /// A tag or truth value that does not exist.
    #[error("unknown tag")]
    UnknownTag,
    /// A key above [`KEY_BYTES_MAX`].
    #[error("a key is longer than {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// A value above [`VALUE_BYTES_MAX`].
    #[error("a value is longer than {VALUE_BYTES_MAX} bytes")]
    ValueTooLong,
    /// A pattern above its limit.
    #[error("a pattern is longer than {} bytes", super::limits::PATTERN_BYTES_MAX)]
    PatternTooLong,
    /// More operations, keys or preconditions than their limit.
    #[error("it holds too many parts")]
    TooManyParts,
}

/// What is left to decode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(encoded: &'a [u8]) -> Self {
        Self(encoded)
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }

    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::UnknownTag),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(super) fn key(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(self.u16()?);
        if length > KEY_BYTES_MAX {
            return Err(DecodeError::KeyTooLong);
        }
        self.take(length)
    }

    pub(super) fn keys(&mut self) -> Result<Vec<&'a [u8]>, DecodeError> {
        self.list(OPERATION_KEYS_MAX, Reader::key)
    }

    pub(super) fn value(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > VALUE_BYTES_MAX {
            return Err(DecodeError::ValueTooLong);
        }
        self.take(length)
    }

    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A list of at most `most` elements, each at least one byte long.
    pub(super) fn list<T>(
        &mut self,
        most: usize,
        read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.elements(count, most, read)
    }

    /// `count` elements, each at least one byte long.
    pub(super) fn elements<T>(
        &mut self,
        count: usize,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        if count > most {
            return Err(DecodeError::TooManyParts);
        }
        if count > self.left() {
            return Err(DecodeError::Truncated);
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }
}

/// Appends a key. One that is too long gets a length that no decoder accepts.
pub(super) fn put_key(out: &mut Vec<u8>, key: &[u8]) {
    out.put_u16_le(u16::try_from(key.len()).unwrap_or(u16::MAX));
    out.put_slice(key);
}

pub(super) fn put_keys(out: &mut Vec<u8>, keys: &[&[u8]]) {
    out.put_u32_le(u32::try_from(keys.len()).unwrap_or(u32::MAX));
    for key in keys {
        put_key(out, key);
    }
}

/// Appends a value. One that is too long gets a length that no decoder accepts.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_le(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.put_slice(bytes);
}

pub(super) fn put_option<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.put_u8(0),
        Some(value) => {
            out.put_u8(1);
            put(out, value);
        }
    }
}
