//! `regency kv DIR` without an operation: reads operations from stdin, one a line, until its end.

use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write};

use clap::Parser;
use clap::error::ErrorKind;

use super::{Action, Store};
use crate::failure::{self, ExitStatus, Outcome};

/// One line: an operation, as on the command line.
#[derive(Debug, Parser)]
#[command(multicall = true, disable_version_flag = true)]
struct Line {
    #[command(subcommand)]
    action: LineAction,
}

#[derive(Debug, clap::Subcommand)]
enum LineAction {
    #[command(flatten)]
    Store(Action),
    /// Leave
    #[command(visible_alias = "exit")]
    Quit,
}

/// Reads and runs lines. In a script the status is that of the first line that failed.
pub(super) fn run(store: &mut Store) -> Outcome {
    let input = std::io::stdin();
    let is_terminal = input.is_terminal();
    if is_terminal {
        eprintln!(
            "get K, put K V, delete K, increment K [N], cas K OLD NEW, scan [PREFIX], count, load FILE, quit"
        );
    }
    let mut status = ExitStatus::Done;
    let mut lines = input.lock().lines();
    loop {
        if is_terminal {
            eprint!("> ");
            // A prompt that cannot be shown is no reason to stop.
            let _ = std::io::stderr().flush();
        }
        let Some(line) = lines.next() else { return Ok(status) };
        let line = line.map_err(|error| failure::system("reading stdin", &error))?;
        let outcome = match words(&line).map(|words| (words.is_empty(), Line::try_parse_from(words))) {
            Ok((true, _)) => continue,
            Ok((false, Ok(Line { action: LineAction::Quit }))) => return Ok(status),
            Ok((false, Ok(Line { action: LineAction::Store(action) }))) => store.run(&action),
            Ok((false, Err(error))) if error.kind() == ErrorKind::DisplayHelp => {
                eprint!("{}", error.render());
                continue;
            }
            Ok((false, Err(error))) => Err(crate::parse_failure(&error)),
            Err(cause) => Err(failure::usage(cause, "close the quote")),
        };
        let own = match outcome {
            Ok(own) => {
                if is_terminal && own == ExitStatus::Failed {
                    eprintln!("(absent)");
                }
                own
            }
            Err(failure) => {
                eprintln!("{}", failure::line(&failure));
                failure.exit_status()
            }
        };
        if !is_terminal && status == ExitStatus::Done {
            status = own;
        }
    }
}

/// The words of a line: separated by blanks, which quotes keep together; a backslash keeps the next character.
fn words(line: &str) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (None, _) if character.is_whitespace() => words.extend(word.take().map(OsString::from)),
            (_, _) => word.get_or_insert_default().push(character),
        }
    }
    match quote {
        Some(open) => Err(format!("a quote {open} is not closed")),
        None => {
            words.extend(word.map(OsString::from));
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = |line: &str| words(line).map(|words| words.join(std::ffi::OsStr::new("|")));
        assert_eq!(words("put  a b"), Ok("put|a|b".into()));
        assert_eq!(words(r#"put "a b" 'c "d"' e\ f "" x"y"z"#), Ok(r#"put|a b|c "d"|e f||xyz"#.into()));
        assert_eq!(words(r#"'a\b' "a\"b""#), Ok(r#"a\b|a"b"#.into()));
        assert_eq!(words("  "), Ok("".into()));
        assert!(words("put \"a").is_err());
    }

    #[test]
    fn a_line_is_an_operation() {
        let parse = |line: &str| Line::try_parse_from(words(line).unwrap());
        assert!(matches!(parse("get k").unwrap().action, LineAction::Store(Action::Get { .. })));
        assert!(matches!(
            parse("increment k -5").unwrap().action,
            LineAction::Store(Action::Increment { by: -5, .. })
        ));
        assert!(matches!(parse("exit").unwrap().action, LineAction::Quit));
        assert!(parse("got k").is_err());
    }
}
