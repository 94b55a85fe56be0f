//! Redis' glob patterns over keys: `*`, `?`, `[a-z]`, `[^a-z]` and `\` before a literal byte.

/// A pattern, matched in at most (bytes of the pattern) x (bytes of the text) steps.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'a>(&'a [u8]);

impl<'a> Pattern<'a> {
    /// Every sequence of bytes is a pattern.
    #[must_use]
    pub fn new(pattern: &'a [u8]) -> Self {
        Self(pattern)
    }

    /// The bytes with which every text that matches begins: a scan need not look elsewhere.
    #[must_use]
    pub fn literal_prefix(&self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'));
        self.0.get(..end.unwrap_or(self.0.len())).unwrap_or_default()
    }

    /// Whether `text` matches, and how many steps it took to know.
    ///
    /// On a mismatch only the last `*` may take one byte more: an earlier one cannot help, since whatever it
    /// would skip the last one can skip as well.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> (bool, u64) {
        let (mut pattern, mut rest) = (self.0, text);
        let mut retry: Option<(&[u8], &[u8])> = None;
        let mut steps = 0;
        loop {
            steps += 1;
            if let [b'*', after @ ..] = pattern {
                retry = Some((after, rest));
                pattern = after;
                continue;
            }
            if pattern.is_empty() && rest.is_empty() {
                return (true, steps);
            }
            let matched = rest
                .split_first()
                .and_then(|(byte, later)| match_one(pattern, *byte).map(|after| (after, later)));
            if let Some((after, later)) = matched {
                (pattern, rest) = (after, later);
                continue;
            }
            match retry {
                Some((after, [_, later @ ..])) => {
                    retry = Some((after, later));
                    pattern = after;
                    rest = later;
                }
                Some((_, [])) | None => return (false, steps),
            }
        }
    }
}

/// The pattern after its first element, if that matches `byte`.
fn match_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', after @ ..] => Some(after),
        [b'[', after @ ..] => match_class(after, byte),
        [b'\\', literal, after @ ..] => (*literal == byte).then_some(after),
        [literal, after @ ..] => (*literal == byte).then_some(after),
    }
}

/// The pattern after a class whose `[` was read, if the class holds `byte`. An unclosed class ends the pattern.
fn match_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut class) = match class {
        [b'^', class @ ..] => (true, class),
        class => (false, class),
    };
    let mut found = false;
    loop {
        class = match class {
            [] => break,
            [b']', after @ ..] => {
                class = after;
                break;
            }
            [b'\\', literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
            [first, b'-', last, after @ ..] => {
                let (low, high) = if first <= last { (first, last) } else { (last, first) };
                found |= (*low..=*high).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
    (found != negated).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern.as_bytes()).matches(text.as_bytes()).0
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "anything"),
            ("h?llo", "hello"),
            ("h*llo", "heeeello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hbllo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("a[\\]]b", "a]b"),
            ("*a*b*c", "xxaxxbxxabc"),
            ("a[b", "ab"),
            ("**", "a"),
            ("\\", "\\"),
        ] {
            assert!(matches(pattern, text), "{pattern} should match {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("h?llo", "hllo"),
            ("h[ae]llo", "hillo"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("*a*b*c", "xxaxxbxxab"),
            ("abc", "ab"),
            ("ab", "abc"),
        ] {
            assert!(!matches(pattern, text), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn the_literal_prefix_ends_at_the_first_special_byte() {
        assert_eq!(Pattern::new(b"user:*").literal_prefix(), b"user:");
        assert_eq!(Pattern::new(b"user").literal_prefix(), b"user");
        assert_eq!(Pattern::new(b"[u]ser").literal_prefix(), b"");
        assert_eq!(Pattern::new(b"a\\*").literal_prefix(), b"a");
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_the_product_of_the_lengths() {
        let pattern = "a*".repeat(100) + "b";
        let text = "a".repeat(1000);
        let (found, steps) = Pattern::new(pattern.as_bytes()).matches(text.as_bytes());
        assert!(!found);
        assert!(steps <= 201 * 1001, "{steps} steps");
    }
}
