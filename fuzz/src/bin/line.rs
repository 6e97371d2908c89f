//! Runs `lockstep_fuzz::line` on what libFuzzer makes up.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| lockstep_fuzz::line::run(data));
