#![no_main]

use cluster::replica::Replica;
use cluster::wire::Message;

// A message of a peer is decoded, and answered if it is a question.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::decode(bytes) {
        let _ = cluster::repair::answer(&Replica::default(), true, &message);
    }
});
