//! A service without state, for benchmarks: replies of a size that the request chooses.
//!
//! An operation is a little-endian `u32`, the size of the reply wanted, and any padding. One shorter than four
//! bytes gets the empty reply, so that the 0/0 benchmark sends and receives nothing but headers.

use std::io::Read;

use bytes::Bytes;
use regency::{Context, Frozen, RestoreError, Service, Snapshot};

/// Bytes of an operation that say how long the reply shall be.
pub const HEADER_BYTES: usize = 4;
/// Bytes of the longest reply; an operation that asks for more gets this many.
pub const REPLY_BYTES_MAX: usize = 1 << 20;

/// What replies are made of: shared, so that executing an operation copies nothing.
static ZEROS: [u8; REPLY_BYTES_MAX] = [0; REPLY_BYTES_MAX];

/// The service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Null;

impl Service for Null {
    fn execute(&mut self, _context: &Context, operation: &[u8]) -> Bytes {
        reply(reply_bytes(operation))
    }

    fn snapshot(&self) -> Box<dyn Snapshot> {
        Frozen::image([])
    }

    fn restore(&mut self, source: &mut dyn Read) -> Result<(), RestoreError> {
        Frozen::read(source).map(|[]| ())
    }
}

/// An operation of `request_bytes` that draws a reply of `reply_bytes`.
///
/// It is longer than `request_bytes` in one case: a reply that is not empty takes [`HEADER_BYTES`] to ask for.
///
/// ```
/// use regency_services::null;
///
/// assert_eq!(null::operation(1024, 100).len(), 1024);
/// assert_eq!(null::operation(0, 0).len(), 0);
/// assert_eq!(null::operation(0, 100).len(), null::HEADER_BYTES);
/// ```
#[must_use]
pub fn operation(request_bytes: usize, reply_bytes: usize) -> Bytes {
    let length = if reply_bytes == 0 { request_bytes } else { request_bytes.max(HEADER_BYTES) };
    let mut operation = vec![0; length];
    if let Some(header) = operation.first_chunk_mut::<HEADER_BYTES>() {
        *header = u32::try_from(reply_bytes).unwrap_or(u32::MAX).to_le_bytes();
    }
    Bytes::from(operation)
}

/// The bytes of the reply to `operation`, for a benchmark that checks what it got.
#[must_use]
pub fn reply_bytes(operation: &[u8]) -> usize {
    let asked = operation.first_chunk::<HEADER_BYTES>().map_or(0, |header| u32::from_le_bytes(*header));
    usize::try_from(asked).unwrap_or(REPLY_BYTES_MAX).min(REPLY_BYTES_MAX)
}

fn reply(length: usize) -> Bytes {
    Bytes::from_static(ZEROS.get(..length).unwrap_or(&ZEROS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_has_the_size_that_was_asked_for() {
        for (request, wanted) in [(0, 0), (100, 100), (1024, 1024), (0, 7), (3, 0), (8, REPLY_BYTES_MAX)] {
            let operation = operation(request, wanted);
            assert_eq!(reply(reply_bytes(&operation)).len(), wanted);
        }
    }

    #[test]
    fn the_operation_has_the_size_that_was_asked_for() {
        for (request, wanted) in [(0, 0), (3, 0), (4, 9), (1024, 0), (1024, 1024)] {
            assert_eq!(operation(request, wanted).len(), request);
        }
    }

    #[test]
    fn a_wish_beyond_the_limit_is_cut_to_it() {
        assert_eq!(reply_bytes(&operation(4, usize::MAX)), REPLY_BYTES_MAX);
        assert_eq!(reply_bytes(&[0xff; 100]), REPLY_BYTES_MAX);
    }
}
