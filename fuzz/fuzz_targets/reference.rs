//! The parser of image names on any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| image::fuzz_reference(data));
