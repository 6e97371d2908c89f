//! How many whole rollouts with faults a core lives through in a second, hashing included, and what
//! one costs in hashes of an image. `cargo bench -p lockstep-sim --bench worlds`
//!
//! Time is the thread's own where the system tells it, so that other work on the machine counts
//! less. The cost in hashes is a ratio within one run and depends little on the machine.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fastrand::Rng;
use lockstep_proto::image::ImageReader;
use lockstep_sim::world::{Census, Detail, IMAGE_BYTES, Library, any_image, draw, run_seed};

fn main() {
    let mut library = Library::default();
    let hash = hash_of_an_image(&mut library).as_secs_f64();
    println!("images of {} KiB, hashed and checked in {:.3} ms", IMAGE_BYTES / 1024, hash * 1e3);
    let boards = |seed: &u64| draw(&mut Rng::with_seed(*seed)).boards.len();
    let pairs: Vec<u64> = (0..).filter(|seed| boards(seed) == 2).take(WORLDS).collect();
    measure("pairs", &pairs, hash, &mut library);
    let all: Vec<u64> = (0..).take(WORLDS).collect();
    measure("groups of 2 to 5", &all, hash, &mut library);
}

fn measure(what: &str, seeds: &[u64], hash: f64, library: &mut Library) {
    // Images are made once, and that is not measured.
    live_through(seeds, library);
    let start = Clock::now();
    let census = live_through(seeds, library);
    let taken = start.elapsed();
    let rollouts = census.of_all("verdict: ");
    let each = taken.as_secs_f64() / f64::from(u32::try_from(rollouts).unwrap_or(u32::MAX));
    println!(
        "{what}: {rollouts} rollouts, {:.0} a second on one core, {:.2} ms or {:.0} hashes each",
        1.0 / each,
        each * 1e3,
        each / hash
    );
}

fn live_through(seeds: &[u64], library: &mut Library) -> Census {
    let mut census = Census::default();
    for &seed in seeds {
        let outcome = run_seed(seed, Detail::Nothing, library);
        assert_eq!(outcome.violation, None, "seed {seed}");
        census.merge(&outcome.census);
    }
    census
}

/// As devices do it: with all checks of an image.
fn hash_of_an_image(library: &mut Library) -> Duration {
    let image = any_image(library);
    let start = Clock::now();
    for _ in 0..HASHES {
        let mut reader = ImageReader::new();
        image.bytes.chunks(1024).try_for_each(|piece| reader.push(piece)).expect("an image");
        black_box(reader.finish().expect("a whole image"));
    }
    start.elapsed() / HASHES
}

/// The time that this thread has had, else the time of day.
struct Clock {
    thread: Option<Duration>,
    wall: Instant,
}

impl Clock {
    fn now() -> Self {
        Self { thread: thread_time(), wall: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        let thread = thread_time().zip(self.thread).map(|(now, then)| now.saturating_sub(then));
        thread.unwrap_or_else(|| self.wall.elapsed())
    }
}

/// Linux tells it in nanoseconds.
fn thread_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

const WORLDS: usize = 400;
const HASHES: u32 = 500;
