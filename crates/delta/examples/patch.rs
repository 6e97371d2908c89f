//! Makes a patch of two images, and says how small it is and how long it took:
//! `cargo run --release -p lockstep-delta --example patch -- OLD NEW [PATCH]`

use std::time::Instant;
use std::{env, fs};

use lockstep_delta::encode::{self, Image};
use lockstep_delta::{Apply, HEADER_BYTES, Header, ID_BYTES};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut paths = env::args().skip(1);
    let (Some(old), Some(new)) = (paths.next(), paths.next()) else {
        return Err("usage: patch OLD NEW [PATCH]".into());
    };
    let (old, new) = (fs::read(old)?, fs::read(new)?);
    let image = |bytes| Image { bytes, id: [0; ID_BYTES] };
    let start = Instant::now();
    let patch = encode::smallest(&image(&old), &image(&new))?;
    let made_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let again = encode::apply(&patch, &old).map_err(|error| error.to_string())?;
    let applied_s = start.elapsed().as_secs_f64();
    assert!(again == new, "it makes another image");
    let full = encode::full(&image(&new))?;
    let header = Header::decode(&patch)?;
    let share = |bytes: usize| bytes as f64 * 100.0 / new.len() as f64;
    println!(
        "{} bytes: patch {} ({:.2} %), compressed {} ({:.2} %); made in {made_s:.2} s, applied in \
         {applied_s:.2} s with {} bytes of memory; slot at least {} (image + {})",
        new.len(),
        patch.len(),
        share(patch.len()),
        full.len(),
        share(full.len()),
        size_of::<Apply>(),
        header.room_bytes,
        header.room_bytes as usize - new.len(),
    );
    println!("header {HEADER_BYTES} bytes of it, stream {} bytes", header.stream_bytes);
    if let Some(path) = paths.next() {
        fs::write(path, patch)?;
    }
    Ok(())
}
