#![no_main]

use cluster::mesh::ca::JoinToken;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = JoinToken::from_text(text);
        let _ = text.parse::<cluster::Token>();
    }
});
