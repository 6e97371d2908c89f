//! Where a build has its place: on a bench, at the end of a wire, or on the air.

#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "radio")]
mod radio;

#[cfg(feature = "bench")]
pub(crate) use bench::{TAKES_LARGE, begin, channels, duty};
#[cfg(feature = "radio")]
pub(crate) use radio::{TAKES_LARGE, begin, channels, duty};
