//! The shape of the JSON that commands print: which fields, of which kind.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What a field must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number.
    Number,
    /// A number without a fraction.
    Integer,
    /// Text.
    Text,
    /// `true` or `false`.
    Truth,
    /// A list of numbers.
    Numbers,
    /// A list of text.
    Texts,
}

/// Checks that every field is there; names are dotted for nested objects.
pub(crate) fn check(value: &Value, fields: &[(&str, Kind)]) -> Result<()> {
    for (name, kind) in fields {
        let field = name
            .split('.')
            .try_fold(value, |value, part| value.get(part))
            .with_context(|| format!("field {name} is missing in {value}"))?;
        ensure!(is(field, *kind), "field {name} is {field}, not of kind {kind:?}");
    }
    Ok(())
}

fn is(value: &Value, kind: Kind) -> bool {
    let all = |test: fn(&Value) -> bool| value.as_array().is_some_and(|items| items.iter().all(test));
    match kind {
        Kind::Number => value.is_number(),
        Kind::Integer => value.is_u64() || value.is_i64(),
        Kind::Text => value.is_string(),
        Kind::Truth => value.is_boolean(),
        Kind::Numbers => all(Value::is_number),
        Kind::Texts => all(Value::is_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_wrong_fields_are_refused() {
        let value = serde_json::json!({"a": 1, "b": {"c": [1, 2.5]}, "d": "x"});
        let fields = [("a", Kind::Integer), ("b.c", Kind::Numbers), ("d", Kind::Text)];
        assert!(check(&value, &fields).is_ok());
        assert!(check(&value, &[("b.x", Kind::Number)]).is_err());
        assert!(check(&value, &[("d", Kind::Number)]).is_err());
    }
}
