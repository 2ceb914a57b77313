#![no_main]

#[path = "../targets.rs"]
mod targets;

// Each binary is the target of its name.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = targets::TARGETS.iter().find(|target| target.name == env!("CARGO_BIN_NAME")).expect("the list has them all");
    (target.run)(bytes);
});
