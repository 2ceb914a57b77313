#![no_main]

use cluster::mesh::frame::Frame;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Frame::decode(bytes);
});
