//! How long an image takes over ESP-NOW, beside the least possible and beside what others do.
//!
//! `cargo bench -p lockstep-sim --bench air`; fails when a ratio is worse than what was reached.

use std::process::ExitCode;

use lockstep_sim::channel::{Loss, Rate, Rival, Row, Setup, Table};

/// Times the least possible that no row may take.
const RATIO_MAX: f64 = 1.40;
const SIZE_BYTES: u32 = 1_400_000;

fn main() -> ExitCode {
    println!(
        "{:>7} {:>6} {:>6} {:>8} {:>8} {:>5}  others, times ours",
        "members", "lost", "blocks", "least", "ours", "×"
    );
    let mut worst: f64 = 0.0;
    for takes_large in [false, true] {
        for setup in Table::setups(SIZE_BYTES, Rate::Dsss1, takes_large, 1) {
            worst = worst.max(show(setup, ""));
        }
        for members in [1, 10, 50] {
            let loss = Loss::Bursts { share: 0.2, mean_frames: 4.0 };
            let (size_bytes, rate, data_every_ms, seed) = (SIZE_BYTES, Rate::Dsss1, 0, 1);
            let setup = Setup { members, size_bytes, rate, loss, takes_large, data_every_ms, seed };
            worst = worst.max(show(setup, ", bursts of 4 frames"));
        }
    }
    println!("worst: {worst:.2} times the least possible, at most {RATIO_MAX} allowed");
    if worst <= RATIO_MAX { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(setup: Setup, note: &str) -> f64 {
    let row = Row::run(setup, true);
    let others: Vec<String> = row
        .rivals
        .iter()
        .map(|cell| {
            let name: &str = Rival::as_str(cell.rival);
            format!("{name} {:.2}", cell.seconds / row.ours.transfer_s)
        })
        .collect();
    println!(
        "{:>7} {:>4.0} % {:>6} {:>6.1} s {:>6.1} s {:>5.2}  {}{note}",
        setup.members,
        setup.loss.share() * 100.0,
        row.ours.shape.block_bytes(),
        row.bound_s,
        row.ours.transfer_s,
        row.ratio(),
        others.join(", "),
    );
    row.ratio()
}
