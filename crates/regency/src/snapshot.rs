//! What a service hands out at a checkpoint, and why one cannot be restored [CKPT-1].
//!
//! [`Service::snapshot`](crate::Service::snapshot) makes a [`Snapshot`] on the executor's thread, at once; another
//! thread writes it while operations go on. Equal states have equal images, byte for byte, whatever led to them:
//! replicas sign the hash of the image.

use std::io::{self, Read, Write};

use bytes::Bytes;
use thiserror::Error;

/// A service's state as it was at one point of the order: later operations do not change it.
pub trait Snapshot: Send {
    /// Writes the image, on a thread of its own; what it holds is dropped there too.
    ///
    /// The image is a function of the state alone. Errors are those of `sink`.
    fn write(self: Box<Self>, sink: &mut dyn Write) -> io::Result<()>;
}

/// The snapshot of a service whose whole state is small: the image itself, made at once.
///
/// ```
/// use regency::{Frozen, RestoreError};
///
/// let mut image = Vec::new();
/// Frozen::image(7_u64.to_le_bytes()).write(&mut image)?;
/// assert_eq!(u64::from_le_bytes(Frozen::read(&mut &image[..])?), 7);
/// assert!(matches!(Frozen::read::<9>(&mut &image[..]), Err(RestoreError::Truncated)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen(
    /// The image.
    pub Bytes,
);

impl Frozen {
    /// A snapshot of which `image` is the image.
    #[must_use]
    pub fn image(image: impl Into<Vec<u8>>) -> Box<dyn Snapshot> {
        Box::new(Self(Bytes::from(image.into())))
    }

    /// Reads an image of exactly `N` bytes.
    pub fn read<const N: usize>(source: &mut dyn Read) -> Result<[u8; N], RestoreError> {
        let mut image = [0; N];
        source.read_exact(&mut image)?;
        RestoreError::at_end(source)?;
        Ok(image)
    }

    /// Reads an image of any length up to `bytes_max`. Memory is taken as bytes come.
    pub fn read_up_to(source: &mut dyn Read, bytes_max: usize) -> Result<Vec<u8>, RestoreError> {
        let mut image = Vec::new();
        let most = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        source.take(most).read_to_end(&mut image)?;
        RestoreError::at_end(source)?;
        Ok(image)
    }
}

impl Snapshot for Frozen {
    fn write(self: Box<Self>, sink: &mut dyn Write) -> io::Result<()> {
        sink.write_all(&self.0)
    }
}

/// Why a service could not take over an image.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The source failed.
    #[error("the image cannot be read")]
    Read(#[source] io::Error),
    /// It ends in the middle.
    #[error("the image ends too early")]
    Truncated,
    /// Something follows the end.
    #[error("bytes follow the image's end")]
    TrailingBytes,
    /// It is the image of another service, or has a format that this version does not know.
    #[error("the image does not begin as one of this service does")]
    UnknownFormat,
    /// No state of this service has such an image.
    #[error("the image is none of this service: {0}")]
    Invalid(&'static str),
}

impl RestoreError {
    /// Checks that an image ends here.
    pub fn at_end(source: &mut dyn Read) -> Result<(), Self> {
        match source.read_exact(&mut [0]) {
            Ok(()) => Err(Self::TrailingBytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(Self::Read(error)),
        }
    }
}

/// An end that comes too early is the image's fault, everything else the source's.
impl From<io::Error> for RestoreError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Truncated } else { Self::Read(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk that fails.
    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no disk"))
        }
    }

    #[test]
    fn a_frozen_image_is_written_as_it_is() {
        let mut image = Vec::new();
        Frozen::image(*b"state").write(&mut image).unwrap();
        assert_eq!(image, b"state");
    }

    #[test]
    fn an_image_of_another_length_is_refused() {
        assert_eq!(Frozen::read(&mut &b"1234"[..]).unwrap(), *b"1234");
        assert!(matches!(Frozen::read::<4>(&mut &b"123"[..]), Err(RestoreError::Truncated)));
        assert!(matches!(Frozen::read::<4>(&mut &b"12345"[..]), Err(RestoreError::TrailingBytes)));
        assert_eq!(Frozen::read_up_to(&mut &b"1234"[..], 4).unwrap(), b"1234");
        assert!(matches!(Frozen::read_up_to(&mut &b"12345"[..], 4), Err(RestoreError::TrailingBytes)));
    }

    #[test]
    fn a_source_that_fails_is_told_from_an_image_that_ends() {
        assert!(matches!(Frozen::read::<4>(&mut Broken), Err(RestoreError::Read(_))));
        assert!(matches!(Frozen::read_up_to(&mut Broken, 4), Err(RestoreError::Read(_))));
        assert!(matches!(RestoreError::at_end(&mut Broken), Err(RestoreError::Read(_))));
    }
}
