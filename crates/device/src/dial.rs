//! How a device reaches others by name: the shell's part of every connection that it opens itself.

use core::fmt;
use core::future::Future;

use embedded_io_async::{Read, Write};

/// Makes connections.
pub trait Dial {
    /// A connection; it should gather what is written until it is flushed.
    type Link: Read + Write;
    /// Why there is none.
    type Error: fmt::Display;

    /// Connects.
    fn dial(&self, host: &str, port: u16) -> impl Future<Output = Result<Self::Link, Self::Error>>;
}
