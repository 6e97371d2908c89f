//! Makes every kind of patch of two images, and prints what each costs, a line each:
//! `cargo run --release -p lockstep-delta --example measure -- OLD NEW CONTROLS`
//!
//! `NAME BYTES MADE-SECONDS APPLIED-SECONDS`, and `memory BYTES`. What bsdiff says is written to
//! CONTROLS, uncompressed, for others to compress.

use std::time::Instant;
use std::{env, fs};

use lockstep_delta::Apply;
use lockstep_delta::encode::{self, EncodeError, Image};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<String> = env::args().skip(1).collect();
    let [old, new, controls] = paths.as_slice() else {
        return Err("usage: measure OLD NEW CONTROLS".into());
    };
    let (old, new) = (fs::read(old)?, fs::read(new)?);
    let image = |bytes| Image { bytes, id: [0; _] };
    let (from, to) = (image(&old), image(&new));
    println!("memory {}", size_of::<Apply>());
    let measure = |name: &str, make: &dyn Fn() -> Result<Option<Vec<u8>>, EncodeError>| {
        let start = Instant::now();
        let Some(patch) = make()? else { return Ok(()) };
        let made_s = start.elapsed().as_secs_f64();
        let old = if name == "full" { &[][..] } else { &old };
        let start = Instant::now();
        let made = encode::apply(&patch, old)?;
        let applied_s = start.elapsed().as_secs_f64();
        assert!(made == new, "`{name}` makes another image");
        println!("{name} {} {made_s} {applied_s}", patch.len());
        Ok::<(), Box<dyn std::error::Error>>(())
    };
    measure("full", &|| encode::full(&to).map(Some))?;
    measure("plain", &|| encode::plain(&from, &to).map(Some))?;
    measure("address-aware", &|| encode::address_aware(&from, &to))?;
    measure("smallest", &|| encode::smallest(&from, &to).map(Some))?;
    let mut said = Vec::new();
    bsdiff::diff(&old, &new, &mut said)?;
    fs::write(controls, said)?;
    Ok(())
}
