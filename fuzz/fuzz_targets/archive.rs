//! The tar reader on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| image::fuzz_archive(data));
