#![no_main]
#![allow(clippy::unwrap_used)]
#[path = "../bodies.rs"]
#[allow(dead_code)]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::pack_files(data));
