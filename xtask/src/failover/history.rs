//! What the clients of a counter were told, and whether one counter could have told them so.
//!
//! The record of `regency bench --workload counter` has a line for every acknowledged operation. An addition of 1 is
//! answered with the new value, so the values themselves say in which order everything took effect: the history is
//! linearizable exactly if that order contradicts no real time, and nothing ran twice exactly if the additions'
//! values are 1, 2, 3 … up to what the counter is in the end.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result as Outcome};
use serde_json::Value;

/// One acknowledged operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// When it was sent, in microseconds.
    pub(crate) begin: u64,
    /// When its result came.
    pub(crate) end: u64,
    /// Whether it added 1; else it read.
    pub(crate) is_addition: bool,
    /// The counter's value that the client was told.
    pub(crate) value: u64,
}

/// The operations of a record, a JSON object a line.
pub(crate) fn read(record: &Path) -> Outcome<Vec<Operation>> {
    let text = fs::read_to_string(record).with_context(|| format!("cannot read {}", record.display()))?;
    parse(&text).map_err(anyhow::Error::msg)
}

/// Checks what clients were told whose counter went from `base` to `last` meanwhile.
pub(crate) fn check_since(base: u64, mut operations: Vec<Operation>, last: u64) -> Outcome<()> {
    let lost = "a value from before the load: something was lost";
    for operation in &mut operations {
        operation.value = operation.value.checked_sub(base).context(lost)?;
    }
    check(&operations, last.checked_sub(base).context(lost)?)
        .map_err(|cause| anyhow::anyhow!("no counter answers so: {cause}"))
}

fn parse(record: &str) -> Result<Vec<Operation>, String> {
    record.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<Operation, String> {
    let bad = || format!("no recorded operation: {line}");
    let recorded: Value = serde_json::from_str(line).map_err(|_| bad())?;
    let number = |key: &str| recorded[key].as_u64().ok_or_else(bad);
    let is_addition = match recorded["operation"].as_str() {
        Some("add 1") => true,
        Some("get") => false,
        Some(_) | None => return Err(bad()),
    };
    let value = recorded["result"].as_str().and_then(|result| result.parse().ok()).ok_or_else(bad)?;
    Ok(Operation { begin: number("begin_us")?, end: number("end_us")?, is_addition, value })
}

/// Checks that one counter, which began at 0 and is `last` in the end, explains all operations.
fn check(operations: &[Operation], last: u64) -> Result<(), String> {
    check_once(operations, last)?;
    check_order(operations)
}

/// Every addition has a value of its own, and no addition took effect without its client being told.
fn check_once(operations: &[Operation], last: u64) -> Result<(), String> {
    let mut values = BTreeSet::new();
    for operation in operations.iter().filter(|operation| operation.is_addition) {
        if !values.insert(operation.value) {
            return Err(format!("two additions were answered with {}", operation.value));
        }
    }
    match (1..=last).find(|value| !values.contains(value)) {
        Some(missing) => Err(format!("something was added twice: nobody was answered with {missing}")),
        None if values.last().is_some_and(|highest| *highest > last) => {
            Err(format!("the counter is {last} after an addition was answered with more"))
        }
        None => Ok(()),
    }
}

/// Whoever begins after another has ended is told of at least as much.
fn check_order(operations: &[Operation]) -> Result<(), String> {
    // A read stands behind the addition whose value it returns.
    let place = |operation: &Operation| (operation.value, !operation.is_addition);
    let mut beginning: Vec<&Operation> = operations.iter().collect();
    beginning.sort_by_key(|operation| operation.begin);
    let mut ending: Vec<&Operation> = operations.iter().collect();
    ending.sort_by_key(|operation| operation.end);
    let mut ended = ending.into_iter().peekable();
    let mut highest: Option<&Operation> = None;
    for operation in beginning {
        while let Some(before) = ended.next_if(|before| before.end < operation.begin) {
            if highest.is_none_or(|highest| place(before) > place(highest)) {
                highest = Some(before);
            }
        }
        if let Some(before) = highest.filter(|before| place(before) > place(operation)) {
            return Err(format!("{operation:?} began after the end of {before:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(begin: u64, end: u64, value: u64) -> Operation {
        Operation { begin, end, is_addition: true, value }
    }

    fn get(begin: u64, end: u64, value: u64) -> Operation {
        Operation { is_addition: false, ..add(begin, end, value) }
    }

    #[test]
    fn concurrent_operations_may_take_effect_in_any_order() {
        assert_eq!(check(&[add(0, 10, 2), add(1, 9, 1), get(2, 20, 0), get(12, 13, 2)], 2), Ok(()));
    }

    #[test]
    fn a_value_of_the_past_is_found() {
        let stale_read = [add(0, 1, 1), add(2, 3, 2), get(4, 5, 1)];
        assert!(check(&stale_read, 2).unwrap_err().contains("began after"));
        let read_before_its_addition = [get(0, 1, 1), add(2, 3, 1)];
        assert!(check(&read_before_its_addition, 1).unwrap_err().contains("began after"));
        let swapped = [add(0, 1, 2), add(2, 3, 1)];
        assert!(check(&swapped, 2).unwrap_err().contains("began after"));
    }

    #[test]
    fn an_addition_that_ran_twice_or_never_is_found() {
        assert!(check(&[add(0, 1, 1), add(2, 3, 3)], 3).unwrap_err().contains("answered with 2"));
        assert!(check(&[add(0, 1, 1), add(2, 3, 2)], 3).unwrap_err().contains("answered with 3"));
        assert!(check(&[add(0, 1, 1), add(0, 1, 1)], 1).unwrap_err().contains("two additions"));
        assert!(check(&[add(0, 1, 1), add(2, 3, 2)], 1).unwrap_err().contains("with more"));
    }

    #[test]
    fn recorded_lines_are_read() {
        let line = "{\"client\":3,\"sequence\":1,\"begin_us\":5,\"end_us\":9,\"operation\":\"add 1\",\"result\":\"7\"}";
        assert_eq!(parse(line), Ok(vec![add(5, 9, 7)]));
        assert!(parse("{}").is_err());
    }
}
