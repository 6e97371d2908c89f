//! The way to the other devices: frames to one of them, or to all. A build has one.

#[cfg(feature = "radio")]
mod air;
#[cfg(feature = "bench")]
mod wire;

#[cfg(feature = "radio")]
pub(crate) use air::Air as Link;
#[cfg(feature = "bench")]
pub(crate) use wire::Wire as Link;

#[cfg(all(feature = "bench", feature = "radio"))]
compile_error!("a build has one link: `bench`, which is a UART, or `radio`");
#[cfg(not(any(feature = "bench", feature = "radio")))]
compile_error!("a build has a link: `bench`, which is a UART, or `radio`");

/// The link takes no more at the moment.
pub(crate) struct Full;
