//! The values of `coracle run`'s options on any text.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| engine::options::fuzz_options(text));
