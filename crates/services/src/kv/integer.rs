//! Numbers as Redis writes them.

/// Reads a decimal number in its only form: no sign but a leading `-`, no spaces, no leading zeros.
///
/// ```
/// use regency_services::kv::parse_integer;
///
/// assert_eq!(parse_integer(b"-12"), Some(-12));
/// assert_eq!(parse_integer(b"012"), None);
/// assert_eq!(parse_integer(b"+1"), None);
/// assert_eq!(parse_integer(b"9223372036854775808"), None);
/// ```
#[must_use]
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [] | [b'0', ..] => return None,
        [..] => {}
    }
    digits.iter().try_fold(0_i64, |number, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(digit - b'0');
        let shifted = number.checked_mul(10)?;
        if negative { shifted.checked_sub(digit) } else { shifted.checked_add(digit) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read_in_its_canonical_form_only() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(parse_integer(number.to_string().as_bytes()), Some(number));
        }
        for text in
            ["", "-", "-0", "00", "01", "-01", " 1", "1 ", "1.0", "1e3", "+1", "abc", "9223372036854775808"]
        {
            assert_eq!(parse_integer(text.as_bytes()), None, "{text:?}");
        }
    }
}
