//! The session table's bytes in a snapshot: canonical, checked on the way in.

use super::{Entry, Session, Sessions};
use crate::codec::reader::Reader;
use crate::codec::{DecodeError, put_count, put_outcome, put_u64, take_outcome};
use crate::ids::{ClientId, Sequence, SessionId};
use crate::time::Timestamp;

/// More sessions, or entries of one, than any settings allow.
const COUNT_MAX: usize = 1 << 24;
/// Bytes of a session without entries: id, client, floor, time, count.
const SESSION_BYTES_MIN: usize = 8 + 32 + 8 + 8 + 4;
/// Bytes of an OPEN that is remembered: client, nonce, validity, session.
const OPENED_BYTES: usize = 32 + 8 + 8 + 8;

impl Sessions {
    /// Appends the table's bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.sessions.len());
        for (id, session) in &self.sessions {
            put_u64(out, id.0);
            out.extend_from_slice(&session.client.0);
            put_u64(out, session.floor.0);
            put_u64(out, session.last_used.0);
            put_count(out, session.entries.len());
            for entry in &session.entries {
                put_entry(out, entry.as_ref());
            }
        }
        // The expiries hold every OPEN that is remembered, once.
        put_count(out, self.expiries.len());
        for (until, client, nonce) in &self.expiries {
            put_u64(out, until.0);
            out.extend_from_slice(&client.0);
            put_u64(out, nonce.0);
            // Of a session that was evicted, the nonce stays refused by its time alone.
            put_u64(out, self.opened.get(&(*client, *nonce)).copied().unwrap_or(SessionId::NONE).0);
        }
    }

    /// Reads a table.
    pub(crate) fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut table = Self::default();
        let count = reader.count("sessions", COUNT_MAX, SESSION_BYTES_MIN)?;
        for _ in 0..count {
            let id = SessionId(reader.u64()?);
            if table.sessions.last_key_value().is_some_and(|(previous, _)| *previous >= id) {
                return Err(DecodeError::NonCanonical("sessions out of order"));
            }
            let mut session = Session {
                client: ClientId(reader.array()?),
                floor: Sequence(reader.u64()?),
                last_used: Timestamp(reader.u64()?),
                ..Session::default()
            };
            for _ in 0..reader.count("entries of a session", COUNT_MAX, 1)? {
                let entry = take_entry(reader)?;
                session.result_bytes =
                    session.result_bytes.saturating_add(super::result_bytes(entry.as_ref()));
                session.entries.push_back(entry);
            }
            let own = table.per_client.entry(session.client).or_default();
            *own = own.saturating_add(1);
            table.sessions.insert(id, session);
        }
        for _ in 0..reader.count("remembered OPENs", COUNT_MAX, OPENED_BYTES)? {
            let until = Timestamp(reader.u64()?);
            let (client, nonce) = (ClientId(reader.array()?), Sequence(reader.u64()?));
            if table.expiries.last().is_some_and(|previous| *previous >= (until, client, nonce)) {
                return Err(DecodeError::NonCanonical("remembered OPENs out of order"));
            }
            table.expiries.insert((until, client, nonce));
            let session = SessionId(reader.u64()?);
            if session != SessionId::NONE {
                table.opened.insert((client, nonce), session);
            }
        }
        Ok(table)
    }
}

fn put_entry(out: &mut Vec<u8>, entry: Option<&Entry>) {
    match entry {
        None => out.push(0),
        Some(Entry { digest, outcome: None }) => {
            out.push(1);
            out.extend_from_slice(&digest.0);
        }
        Some(Entry { digest, outcome: Some(outcome) }) => {
            out.push(2);
            out.extend_from_slice(&digest.0);
            put_outcome(out, outcome);
        }
    }
}

fn take_entry(reader: &mut Reader) -> Result<Option<Entry>, DecodeError> {
    Ok(match reader.u8()? {
        0 => None,
        1 => Some(Entry { digest: reader.digest()?, outcome: None }),
        2 => Some(Entry { digest: reader.digest()?, outcome: Some(take_outcome(reader)?) }),
        _ => return Err(DecodeError::NonCanonical("unknown kind of entry")),
    })
}
