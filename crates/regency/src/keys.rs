//! Key files: an Ed25519 seed as one line of hex, readable by its owner alone.
//!
//! Written by `init` and `keys generate`, read at start-up. A seed never appears in a log, an error or `Debug`.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use regency_protocol::digest;
use regency_protocol::ids::{ClientId, PublicKey};

use crate::failure::{ErrorCode, Failure};

/// Longest key file that is read: a line of hex and some white space.
const KEY_FILE_BYTES_MAX: u64 = 1024;
/// Bits of a file's mode that let others than its owner in.
const MODE_OTHERS: u32 = 0o077;

/// The secret half of an Ed25519 key pair.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// A new one, from the operating system's randomness.
    pub fn generate() -> Result<Self, Failure> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| {
            Failure::new(
                ErrorCode::System,
                format!("no randomness for a key ({error})"),
                "check /dev/urandom and try again",
            )
        })?;
        Ok(Self(seed))
    }

    /// A known one, for tests and for keys that are kept elsewhere.
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(seed)
    }

    /// The bytes, for whoever signs with them.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        let signing = ed25519_zebra::SigningKey::from(self.0);
        PublicKey(ed25519_zebra::VerificationKeyBytes::from(&signing).into())
    }

    /// The id that a client with this key has.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        digest::client_id(&self.public_key())
    }

    /// Reads a key file that nobody but its owner may read.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let unreadable = |error: io::Error| {
            Failure::new(
                ErrorCode::KeyUnreadable,
                format!("key {shown} cannot be read ({error})"),
                "create it with `regency keys generate`, or check the path and its owner",
            )
        };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & MODE_OTHERS != 0 {
            return Err(Failure::new(
                ErrorCode::KeyMode,
                format!("key {shown} has mode {mode:04o}"),
                format!("run chmod 600 {shown}"),
            ));
        }
        let malformed = || {
            Failure::new(
                ErrorCode::KeyUnreadable,
                format!("key {shown} is not one line of 64 hex digits"),
                "create it with `regency keys generate`",
            )
        };
        if !metadata.is_file() || metadata.len() > KEY_FILE_BYTES_MAX {
            return Err(malformed());
        }
        let text = fs::read_to_string(path).map_err(unreadable)?;
        parse_hex(text.trim()).map(Self).ok_or_else(malformed)
    }

    /// Writes a key file with mode 0600; one that exists is an error.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut line = hex(&self.0);
        line.push('\n');
        let written =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).and_then(|mut file| {
                file.write_all(line.as_bytes())?;
                file.sync_all()
            });
        written.map_err(|error| {
            let shown = path.display();
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Failure::new(
                    ErrorCode::Exists,
                    format!("key {shown} exists"),
                    "move it away first: a key that is overwritten is lost",
                );
            }
            Failure::new(
                ErrorCode::Disk,
                format!("key {shown} cannot be written ({error})"),
                "check the directory",
            )
        })
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed(of {:?})", self.public_key())
    }
}

/// 32 bytes from 64 hex digits, of either case.
#[must_use]
pub fn parse_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(*pair.first()?).to_digit(16)?;
        let low = char::from(*pair.get(1)?).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(out)
}

/// Lower-case hex digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let dir = std::env::temp_dir().join(format!("regency-keys-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_written_key_is_read_again() {
        let path = scratch("roundtrip").join("key");
        let seed = Seed::generate().unwrap();
        seed.write(&path).unwrap();
        assert_eq!(Seed::read(&path).unwrap(), seed);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(seed.write(&path).unwrap_err().code(), ErrorCode::Exists);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let path = scratch("mode").join("key");
        Seed::from_bytes([3; 32]).write(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let refused = Seed::read(&path).unwrap_err().to_string();
        let shown = path.display();
        assert_eq!(refused, format!("E101 key {shown} has mode 0644: run chmod 600 {shown}"));
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused() {
        let dir = scratch("malformed");
        for (name, content) in
            [("short", "ab"), ("letters", &"zz".repeat(32)), ("long", &"a".repeat(4000)), ("empty", "")]
        {
            let path = dir.join(name);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(Seed::read(&path).unwrap_err().code(), ErrorCode::KeyUnreadable, "{name}");
        }
        assert_eq!(Seed::read(&dir.join("absent")).unwrap_err().code(), ErrorCode::KeyUnreadable);
        fs::create_dir_all(dir.join("directory")).unwrap();
        fs::set_permissions(dir.join("directory"), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(Seed::read(&dir.join("directory")).unwrap_err().code(), ErrorCode::KeyUnreadable);
    }

    #[test]
    fn a_seed_does_not_show_itself() {
        let seed = Seed::from_bytes([0xab; 32]);
        assert!(!format!("{seed:?}").contains("abab"));
    }
}
