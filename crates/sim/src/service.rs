//! The service that simulated clusters run: append-only lists, whose results tell histories apart.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use regency_protocol::digest::{Domain, Hasher};
use regency_protocol::ids::Digest;

/// Lists by key; each keeps its length and a digest over all that was ever appended.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Lists(BTreeMap<u8, (u64, Digest)>);

/// The payload that appends `value` to the list of `key` and wants at least `result_bytes` back.
pub(crate) fn append(key: u8, value: u64, result_bytes: u16) -> Vec<u8> {
    let mut payload = vec![key];
    payload.extend_from_slice(&value.to_le_bytes());
    payload.extend_from_slice(&result_bytes.to_le_bytes());
    payload
}

impl Lists {
    /// Appends; the result is the list's new length, and what names the history of this list.
    pub(crate) fn execute(&mut self, payload: &[u8]) -> Bytes {
        let key = payload.first().copied().unwrap_or_default();
        let (length, history) = self.0.entry(key).or_default();
        *length += 1;
        *history = Hasher::new(Domain::Randomness).bytes(&history.0).bytes(payload).finish();
        let mut result = BytesMut::new();
        result.put_u64_le(*length);
        result.put_slice(&history.0);
        let padding: [u8; 2] = payload.get(9..11).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let wanted = usize::from(u16::from_le_bytes(padding)).max(result.len());
        result.resize(wanted, key);
        result.freeze()
    }

    /// The lists as bytes: equal lists, equal bytes.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        for (key, (length, history)) in &self.0 {
            bytes.put_u8(*key);
            bytes.put_u64_le(*length);
            bytes.put_slice(&history.0);
        }
        bytes.freeze()
    }

    /// What [`Self::encode`] wrote; `None` for anything else.
    pub(crate) fn restore(bytes: &[u8]) -> Option<Self> {
        let mut lists = BTreeMap::new();
        let entries = bytes.chunks_exact(1 + 8 + 32);
        if !entries.remainder().is_empty() {
            return None;
        }
        for entry in entries {
            let length = u64::from_le_bytes(entry[1..9].try_into().ok()?);
            lists.insert(entry[0], (length, Digest(entry[9..].try_into().ok()?)));
        }
        Some(Self(lists))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_tells_the_whole_history_of_its_list() {
        let run = |payloads: &[Vec<u8>]| {
            let mut lists = Lists::default();
            payloads.iter().map(|payload| lists.execute(payload)).collect::<Vec<_>>()
        };
        let [a, b] = [append(1, 10, 0), append(1, 11, 600)];
        assert_eq!(run(&[a.clone(), b.clone()]), run(&[a.clone(), b.clone()]));
        assert_ne!(run(&[a.clone(), b.clone()])[1], run(&[b.clone(), a])[1]);
        assert_eq!(run(&[b])[0].len(), 600);
    }

    #[test]
    fn lists_come_back_from_their_bytes() {
        let mut lists = Lists::default();
        lists.execute(&append(1, 10, 0));
        lists.execute(&append(2, 11, 600));
        assert_eq!(Lists::restore(&lists.encode()), Some(lists));
        assert_eq!(Lists::restore(&[1]), None);
    }
}
