//! The first frame each way: who comes, and whether it is let in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use regency::transport::{Answer, Hello};

fuzz_target!(|data: &[u8]| {
    if let Ok(hello) = Hello::decode(data) {
        assert_eq!(hello.encode(), data, "a second encoding of one HELLO");
    }
    // The text of a refusal is cut and cleaned for terminals, so that only what was encoded here comes back as it was.
    if let Ok(answer) = Answer::decode(data).and_then(|answer| Answer::decode(&answer.encode())) {
        assert_eq!(Answer::decode(&answer.encode()).as_ref(), Ok(&answer));
    }
});
