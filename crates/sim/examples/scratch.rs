//! scratch
#![allow(missing_docs)]
use lockstep_sim::world::*;
fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let mut library = Library::default();
    if args.len() == 1 {
        let o = run_seed(
            args[0],
            if std::env::var("FRAMES").is_ok() { Detail::Frames } else { Detail::Events },
            &mut library,
        );
        for l in o.timeline.lines() {
            println!("{l}");
        }
        println!("{:?}", o.violation);
        return;
    }
    let start = std::time::Instant::now();
    let mut census = Census::default();
    let mut bad = 0;
    for seed in args[0]..args[1] {
        let t = std::time::Instant::now();
        let o = run_seed(seed, Detail::Nothing, &mut library);
        if t.elapsed().as_millis() > 200 {
            println!("slow {seed} {:?}", t.elapsed());
        }
        census.merge(&o.census);
        if let Some(v) = o.violation {
            bad += 1;
            if bad < 40 {
                println!("seed {seed}: {v:?}");
            }
        }
    }
    for (n, c) in census.iter() {
        println!("{c:>8} {n}");
    }
    let s = start.elapsed().as_secs_f64();
    println!(
        "{bad} bad; {s:.2} s, {:.0} worlds/s {:.0} rollouts/s",
        (args[1] - args[0]) as f64 / s,
        census.of_all("verdict") as f64 / s
    );
}
