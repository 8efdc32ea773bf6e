//! The reader and the checks of `config.json` on any bytes, and on any damage to the structure of one that is good.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| runtime::config::fuzz_config(data));
