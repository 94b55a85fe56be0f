//! Delta debugging over a list of numbers: as few of them as are enough.

/// What became of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// These numbers are enough.
    Enough,
    /// They are not.
    TooFew,
    /// Nothing more may be tried.
    Over,
}

/// Tries to do without ever smaller parts of `numbers`, which are enough; the last ones first: what comes later
/// depends on what was before. Ends at once when nothing more may be tried.
pub(super) fn leave_out(mut numbers: Vec<u64>, mut attempt: impl FnMut(&[u64]) -> Tried) {
    let mut part = numbers.len().div_ceil(2);
    while part > 0 {
        let mut end = numbers.len();
        while end > 0 {
            let begin = end.saturating_sub(part);
            let rest = [&numbers[..begin], &numbers[end..]].concat();
            match attempt(&rest) {
                Tried::Enough => numbers = rest,
                Tried::TooFew => {}
                Tried::Over => return,
            }
            end = begin;
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stays_and_all_else_goes() {
        let mut fewest = Vec::new();
        leave_out((0..100).collect(), |numbers| {
            if [3, 50, 99].iter().all(|needed| numbers.contains(needed)) {
                fewest = numbers.to_vec();
                Tried::Enough
            } else {
                Tried::TooFew
            }
        });
        assert_eq!(fewest, [3, 50, 99]);
    }

    #[test]
    fn nothing_is_tried_once_it_is_over() {
        let mut tries = 0;
        leave_out((0..100_000).collect(), |_| {
            tries += 1;
            if tries == 3 { Tried::Over } else { Tried::TooFew }
        });
        assert_eq!(tries, 3);
    }
}
