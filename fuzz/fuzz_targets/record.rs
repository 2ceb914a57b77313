#![no_main]

use cluster::record::Record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes) {
        let again = Record::decode(&record.encode()).expect("what was read can be written");
        assert_eq!(again.hash(), record.hash());
    }
});
