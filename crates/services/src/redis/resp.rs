//! Replies as bytes, in both versions of the protocol.

/// The version of the protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, with which every connection begins.
    #[default]
    V2,
    /// RESP3, chosen by `HELLO 3`: with a null and with maps.
    V3,
}

impl Protocol {
    /// Its number.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// Appends replies to a buffer.
#[derive(Debug)]
pub(super) struct RespWriter<'o> {
    out: &'o mut Vec<u8>,
    protocol: Protocol,
}

impl<'o> RespWriter<'o> {
    pub(super) fn new(out: &'o mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    pub(super) fn status(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error; `text` begins with its code, as `ERR`. Line ends in it become spaces.
    pub(super) fn error(&mut self, text: &str) {
        self.out.push(b'-');
        self.out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.out.extend_from_slice(b"\r\n");
    }

    pub(super) fn integer(&mut self, number: i64) {
        self.number(b':', number);
    }

    pub(super) fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Text for people to read.
    pub(super) fn text(&mut self, text: &str) {
        match self.protocol {
            Protocol::V2 => self.bulk(text.as_bytes()),
            Protocol::V3 => {
                self.length(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    pub(super) fn nil(&mut self) {
        match self.protocol {
            Protocol::V2 => self.out.extend_from_slice(b"$-1\r\n"),
            Protocol::V3 => self.out.extend_from_slice(b"_\r\n"),
        }
    }

    /// In place of an array: the reply to a transaction that was not executed.
    pub(super) fn nil_array(&mut self) {
        match self.protocol {
            Protocol::V2 => self.out.extend_from_slice(b"*-1\r\n"),
            Protocol::V3 => self.nil(),
        }
    }

    /// The head of an array; its elements follow.
    pub(super) fn array(&mut self, elements: usize) {
        self.length(b'*', elements);
    }

    /// The head of a set, an array in RESP2; its elements follow.
    pub(super) fn set(&mut self, elements: usize) {
        match self.protocol {
            Protocol::V2 => self.length(b'*', elements),
            Protocol::V3 => self.length(b'~', elements),
        }
    }

    /// The head of a map, an array in RESP2; its keys and values follow in turn.
    pub(super) fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::V2 => self.length(b'*', pairs * 2),
            Protocol::V3 => self.length(b'%', pairs),
        }
    }

    /// What has already been written elsewhere.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    fn length(&mut self, kind: u8, length: usize) {
        self.number(kind, i64::try_from(length).unwrap_or(i64::MAX));
    }

    fn number(&mut self, kind: u8, number: i64) {
        // Digits from the right: formatting machinery would be the largest cost of a short reply.
        let mut digits = [0; 20];
        let (mut place, mut rest) = (digits.len(), number.unsigned_abs());
        loop {
            place -= 1;
            if let (Some(digit), Ok(value)) = (digits.get_mut(place), u8::try_from(rest % 10)) {
                *digit = b'0' + value;
            }
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.out.push(kind);
        if number < 0 {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(digits.get(place..).unwrap_or_default());
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::decode::decode as decode2;
    use redis_protocol::resp2::types::OwnedFrame as Frame2;
    use redis_protocol::resp3::decode::complete::decode as decode3;
    use redis_protocol::resp3::types::OwnedFrame as Frame3;

    use super::*;

    fn written(protocol: Protocol, write: impl Fn(&mut RespWriter<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut RespWriter::new(&mut out, protocol));
        out
    }

    fn frame2(write: impl Fn(&mut RespWriter<'_>)) -> Frame2 {
        let out = written(Protocol::V2, write);
        let (frame, length) = decode2(&out).unwrap().unwrap();
        assert_eq!(length, out.len());
        frame
    }

    fn frame3(write: impl Fn(&mut RespWriter<'_>)) -> Frame3 {
        let out = written(Protocol::V3, write);
        let (frame, length) = decode3(&out).unwrap().unwrap();
        assert_eq!(length, out.len());
        frame
    }

    #[test]
    fn an_independent_decoder_reads_what_is_written() {
        for number in [0, 7, -7, 10, i64::MAX, i64::MIN] {
            assert_eq!(frame2(|resp| resp.integer(number)), Frame2::Integer(number));
            let Frame3::Number { data, .. } = frame3(|resp| resp.integer(number)) else {
                panic!("no number")
            };
            assert_eq!(data, number);
        }
        assert_eq!(frame2(|resp| resp.bulk(b"a\r\nb")), Frame2::BulkString(b"a\r\nb".to_vec()));
        assert_eq!(frame2(|resp| resp.nil()), Frame2::Null);
        assert_eq!(frame2(|resp| resp.nil_array()), Frame2::Null);
        assert_eq!(frame3(|resp| resp.nil()), Frame3::Null);
        assert_eq!(frame3(|resp| resp.nil_array()), Frame3::Null);
        assert_eq!(frame2(|resp| resp.error("ERR a\r\nb")), Frame2::Error("ERR a  b".to_owned()));
        let pair = |resp: &mut RespWriter<'_>| {
            resp.map(1);
            resp.bulk(b"k");
            resp.integer(1);
        };
        let expected = vec![Frame2::BulkString(b"k".to_vec()), Frame2::Integer(1)];
        assert_eq!(frame2(pair), Frame2::Array(expected));
        assert!(matches!(frame3(pair), Frame3::Map { data, .. } if data.len() == 1));
        assert_eq!(frame2(|resp| resp.text("info")), Frame2::BulkString(b"info".to_vec()));
        let Frame3::VerbatimString { data, .. } = frame3(|resp| resp.text("info")) else { panic!("no text") };
        assert_eq!(data, b"info");
    }
}
