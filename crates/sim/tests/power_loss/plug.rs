//! The plug, pulled for real: a run with a power budget, against the journal of the run without.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use lockstep_sim::flash::MemFlash;

use crate::bench::{Cursor, What};
use crate::scene::Scene;
use crate::search::Search;
use crate::world::{Marks, World};

/// In every change of the first rollout: every shape of an erase, the first, a middle and the last
/// byte of a write. Returns how often.
pub(crate) fn compare<W: World>(scene: impl Fn() -> Scene) -> u32 {
    let (journal, _) = Search::<W>::new(scene()).run();
    let scene = Rc::new(scene());
    let mut cursor = Cursor::new(journal.start.clone());
    let (mut spent, mut compared) = (0, 0);
    for change in &journal.changes {
        let looked_at = match &change.what {
            What::Erase => (0..MemFlash::ERASE_COST).collect(),
            What::Write(bytes) => {
                let last = bytes.len() as u64 - 1;
                vec![0, last / 2, last]
            }
        };
        let mut units = 0;
        cursor.pass(change, |cursor| {
            if looked_at.contains(&units) {
                let left = run_with_power_for::<W>(&scene, journal.start.clone(), spent + units);
                assert!(left == cursor.bytes, "after {units} units of {:?}", change.place);
                compared += 1;
            }
            units += 1;
        });
        spent += units;
    }
    compared
}

/// The flash that a device leaves whose power lasts so long.
fn run_with_power_for<W: World>(scene: &Rc<Scene>, start: Vec<u8>, budget: u64) -> Vec<u8> {
    let mut bench = scene.bench(start);
    bench.flash.power_budget_bytes = Some(budget);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let outside = W::outside(scene);
        let mut marks = Marks::new(outside.clone());
        W::power_on(scene, outside, &mut bench).run(&mut bench, &mut marks)
    }));
    assert!(ended.is_err() && bench.flash.power_lost(), "the power lasted to the end");
    bench.flash.bytes
}
