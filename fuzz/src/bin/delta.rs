//! Runs `lockstep_fuzz::delta` on what libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lockstep_fuzz::delta::run(data));
