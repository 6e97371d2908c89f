//! scratch
use lockstep_sim::channel::*;
use lockstep_proto::frame::coding::Shape;
fn main() {
    let seeds: u64 = std::env::args().nth(1).map_or(3, |a| a.parse().unwrap());
    let mut jobs = vec![];
    if only_trace() { return; }
    let only = std::env::args().nth(2);
    for members in [1usize, 2, 10, 50] { for (i, loss) in [Loss::Independent{share:0.0}, Loss::Independent{share:0.1}, Loss::Independent{share:0.2}, Loss::Independent{share:0.3}, Loss::Bursts{share:0.2, mean_frames:4.0}].into_iter().enumerate() {
        if only.as_deref() == Some("q") && (members < 10 || i < 2) { continue; }
        jobs.push((members, loss));
    }}
    let next = std::sync::atomic::AtomicUsize::new(0);
    let out = std::sync::Mutex::new(vec![String::new(); jobs.len()]);
    std::thread::scope(|s| for _ in 0..2 { s.spawn(|| loop {
        let k = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let Some(&(members, loss)) = jobs.get(k) else { break };
        let mut line = format!("{members:>3} {loss:?}\n     ");
        let mut sum = 0.0;
        for seed in 1..=seeds {
            let setup = Setup { members, size_bytes: 1_400_000, rate: Rate::Dsss1, loss, takes_large: false, data_every_ms: 0, seed };
            let o = run(&setup);
            let b = setup.bound_s(Shape::Small);
            let cyc = broadcast_cycle_ns(Rate::Dsss1, 237) as f64 / 1e9;
            sum += o.transfer_s / b;
            line += &format!(" {:.3}(fr {:.3} rep {} ctl {} col {})", o.transfer_s / b, f64::from(o.frames) * cyc / b, o.repairs, o.control_frames, o.collisions);
        }
        line += &format!(" mean {:.3}", sum / seeds as f64);
        out.lock().unwrap()[k] = line;
    });});
    for l in out.into_inner().unwrap() { println!("{l}"); }
}

fn only_trace() -> bool {
    if std::env::var_os("A50").is_none() { return false; }
    let share: f64 = std::env::args().nth(2).unwrap().parse().unwrap();
    let setup = Setup { members: 50, size_bytes: 1_400_000, rate: Rate::Dsss1, loss: Loss::Independent{share}, takes_large: false, data_every_ms: 0, seed: std::env::args().nth(1).unwrap().parse().unwrap() };
    run(&setup);
    true
}
