//! Entry points of `lockstep-agent`: what a member calls.

/// Everything here, with bytes that the compiler knows nothing about.
pub fn run(_bytes: &[u8]) {}
