//! The commands whose replies must be those of a real Redis.

/// One connection's commands, in order, on an empty database. A line is one command; words in double quotes may
/// hold spaces and `\xNN`. A line that begins with `~` has a reply whose elements come in any order.
pub(super) const SCRIPTS: [(&str, &str); 16] = [
    ("connection", "PING\nPING hello\nECHO \"two words\"\nSELECT 0\nSELECT x\nECHO\nPING a b"),
    (
        "get and set",
        "GET a\nSET a 1\nGET a\nSET a 2 NX\nSET b 2 NX\nSET c 3 XX\nSET b 3 XX\nSET b 4 GET\nGET b\nGET",
    ),
    (
        "set with wrong options",
        "SET a\nSET a 1 NX XX\nSET a 1 EX\nSET a 1 EX x\nSET a 1 EX 0\nSET a 1 EX -1\nSET a 1 NOPE\nGET a",
    ),
    ("set get", "SET a 1 GET\nSET a 2 GET\nSET a 3 XX GET\nSET z 3 XX GET\nGET a\nEXISTS z"),
    (
        "old forms of set",
        "SETNX a 1\nSETNX a 2\nGETSET a 3\nGETSET n 1\nGETDEL n\nGETDEL n\nSETEX e 100 v\nTTL e\nPSETEX p 100000 v\nTTL p\nSETEX e 0 v\nSETEX e x v",
    ),
    (
        "many keys",
        "MSET a 1 b 2 c 3\nMGET a b c d\nMSET a\nMSET a 1 b\nMGET\nEXISTS a b c d a\nDEL a b x\nUNLINK c\nDBSIZE",
    ),
    (
        "integers",
        "INCR n\nINCR n\nINCRBY n 10\nDECR n\nDECRBY n 5\nINCRBY n x\nINCRBY n 9223372036854775807\nGET n\nSET s text\nINCR s\nSET m -9223372036854775808\nDECR m\nDECRBY m -9223372036854775808\nSET w \" 1\"\nINCR w\nSET z 01\nINCR z",
    ),
    (
        "strings",
        "APPEND a hello\nAPPEND a \" world\"\nGET a\nSTRLEN a\nSTRLEN none\nTYPE a\nTYPE none\nAPPEND a",
    ),
    (
        "binary",
        "SET \"k\\x00\\xff\" \"v\\x0d\\x0a\\x00\"\nGET \"k\\x00\\xff\"\nSTRLEN \"k\\x00\\xff\"\nSET e \"\"\nGET e\nSTRLEN e\nEXISTS \"\"\nSET \"\" x\nGET \"\"",
    ),
    (
        "expiry",
        "SET a 1\nTTL a\nEXPIRE a 100\nTTL a\nPERSIST a\nPERSIST a\nTTL a\nTTL none\nPTTL none\nPTTL a\nEXPIRE none 1\nPEXPIRE a 200000\nTTL a\nEXPIRE a -1\nEXISTS a\nEXPIRE a x\nSET b 1 EX 50\nSET b 2\nTTL b\nSET b 3 PX 90000\nSET b 4 KEEPTTL\nTTL b",
    ),
    (
        "keys",
        "MSET user:1 a user:2 b other c\n~KEYS user:*\n~KEYS *\nKEYS nothing*\n~KEYS user:[12]\n~KEYS ?ther\nKEYS\nSCAN 0 MATCH nothing*\nSCAN x\nSCAN 0 COUNT 0\nSCAN 0 NOPE 1",
    ),
    (
        "transactions",
        "MULTI\nSET a 1\nINCR a\nGET a\nEXEC\nGET a\nEXEC\nDISCARD\nMULTI\nMULTI\nDISCARD\nMULTI\nEXEC",
    ),
    (
        "transactions with errors",
        "SET s text\nMULTI\nINCR s\nSET a 1\nEXEC\nGET a\nMULTI\nSET\nSET b 1\nEXEC\nGET b\nMULTI\nWATCH a\nDISCARD",
    ),
    (
        "watch",
        "SET a 1\nWATCH a\nMULTI\nSET a 2\nEXEC\nWATCH a\nSET a 3\nMULTI\nSET a 4\nEXEC\nGET a\nWATCH a\nSET a 5\nUNWATCH\nMULTI\nSET a 6\nEXEC\nGET a\nWATCH",
    ),
    (
        "wrong arity",
        "GET a b\nSETNX a\nINCR\nINCRBY a\nDEL\nEXISTS\nEXPIRE a\nSTRLEN\nTYPE\nECHO a b\nGETSET a\nDBSIZE x",
    ),
    ("flush", "MSET a 1 b 2\nDBSIZE\nFLUSHALL\nDBSIZE\nFLUSHALL NOPE\nFLUSHALL ASYNC"),
];

/// Bytes that are no array of words: the inline form, pipelines, and what Redis calls protocol errors. The
/// number says how many replies there are.
pub(super) const RAW: [(&str, &[u8], usize); 8] = [
    ("inline", b"PING\r\n", 1),
    ("inline with words", b"SET inline \"two words\"\r\nGET inline\r\n", 2),
    ("inline with a bare line feed", b"ECHO x\n", 1),
    ("empty lines", b"\r\n\r\nPING\r\n", 1),
    ("pipeline", b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\nPING\r\n", 3),
    ("an odd count of words", b"*x\r\n", 1),
    ("a word without its length", b"*1\r\nPING\r\n", 1),
    ("a word of negative length", b"*1\r\n$-5\r\n", 1),
];

/// The words of a line.
pub(super) fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            '\\' if quoted => {
                let digits: String = characters.by_ref().skip(1).take(2).collect();
                word.get_or_insert_default().push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            c => word.get_or_insert_default().extend(c.to_string().into_bytes()),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_and_unescaped() {
        let expected: Vec<Vec<u8>> = vec![b"SET".to_vec(), b"a b\x00".to_vec(), Vec::new()];
        assert_eq!(words("SET \"a b\\x00\" \"\""), expected);
    }
}
