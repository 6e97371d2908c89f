//! Runs `lockstep_fuzz::http` on what libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lockstep_fuzz::http::run(data));
