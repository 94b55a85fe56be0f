//! What tells the children of a branch apart: short byte strings in increasing order, in one piece of memory.
//!
//! Owned by a branch of the [`Tree`](super::tree::Tree). A search among them looks at a few neighbouring cache
//! lines, and a copy of them is a copy of bytes.

/// Byte strings in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Separators {
    bytes: Vec<u8>,
    /// Where each one ends.
    ends: Vec<u32>,
}

impl Separators {
    /// The shortest string above all that are at most `lower`, and not above `upper`; `lower` is less than `upper`.
    pub(super) fn between<'a>(lower: &[u8], upper: &'a [u8]) -> &'a [u8] {
        let shared = lower.iter().zip(upper).take_while(|(lower, upper)| lower == upper).count();
        upper.get(..=shared).unwrap_or(upper)
    }

    /// How many are at most `key`.
    pub(super) fn count_up_to(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.ends.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.bytes[self.begin(middle)..self.begin(middle + 1)] <= *key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    pub(super) fn insert(&mut self, place: usize, separator: &[u8]) {
        let begin = self.begin(place);
        let added = u32::try_from(separator.len()).expect("a part of a key");
        self.bytes.splice(begin..begin, separator.iter().copied());
        self.ends.insert(place, self.begin(place) as u32);
        self.ends[place..].iter_mut().for_each(|end| *end += added);
    }

    pub(super) fn remove(&mut self, place: usize) -> Vec<u8> {
        let removed: Vec<u8> = self.bytes.drain(self.begin(place)..self.begin(place + 1)).collect();
        self.ends.remove(place);
        self.ends[place..].iter_mut().for_each(|end| *end -= removed.len() as u32);
        removed
    }

    /// Takes those from `place` on.
    pub(super) fn split_off(&mut self, place: usize) -> Self {
        let begin = self.begin(place);
        let mut ends = self.ends.split_off(place);
        ends.iter_mut().for_each(|end| *end -= begin as u32);
        Self { bytes: self.bytes.split_off(begin), ends }
    }

    pub(super) fn append(&mut self, separator: &[u8], upper: &Self) {
        self.insert(self.ends.len(), separator);
        let begin = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&upper.bytes);
        self.ends.extend(upper.ends.iter().map(|end| end + begin));
    }

    fn begin(&self, place: usize) -> usize {
        place.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(separators: &Separators) -> Vec<&[u8]> {
        (0..separators.ends.len())
            .map(|place| &separators.bytes[separators.begin(place)..separators.begin(place + 1)])
            .collect()
    }

    #[test]
    fn a_separator_is_as_short_as_it_can_be() {
        for (lower, upper, separator) in [
            ("abc", "abd", "abd"),
            ("abc", "b", "b"),
            ("", "xyz", "x"),
            ("ab", "abcd", "abc"),
            ("a", "c", "c"),
        ] {
            assert_eq!(Separators::between(lower.as_bytes(), upper.as_bytes()), separator.as_bytes());
        }
    }

    #[test]
    fn they_stay_in_their_places() {
        let mut lower = Separators::default();
        for (place, separator) in [(0, "mm"), (0, "b"), (2, "x"), (1, "defg"), (4, "z")] {
            lower.insert(place, separator.as_bytes());
        }
        assert_eq!(list(&lower), [&b"b"[..], b"defg", b"mm", b"x", b"z"]);
        for (key, count) in [("a", 0), ("b", 1), ("defa", 1), ("defg", 2), ("n", 3), ("zz", 5)] {
            assert_eq!(lower.count_up_to(key.as_bytes()), count, "{key}");
        }
        assert_eq!(lower.remove(1), b"defg");
        let upper = lower.split_off(2);
        assert_eq!((list(&lower), list(&upper)), (vec![&b"b"[..], b"mm"], vec![&b"x"[..], b"z"]));
        lower.append(b"n", &upper);
        assert_eq!(list(&lower), [&b"b"[..], b"mm", b"n", b"x", b"z"]);
    }
}
