//! Power loss, complete.

#![allow(dead_code)]
mod bench;
mod lead;
mod member;
mod places;
mod scene;
mod search;
mod world;

use lockstep_proto::frame::report::Rollback;
use lead::Lead;
use member::Member;
use scene::{Scene, Task};
use search::{Search, Second};

fn go<W: world::World>(name: &str, rollback: Rollback, size: u32, tasks: &[Task]) {
    let scene = Scene::new("x", rollback, &[4096, size, 4128]).with_tasks(tasks);
    let mut search = Search::<W>::new(scene);
    let t = std::time::Instant::now();
    search.cut_once();
    search.once.print(name);
    println!("{name} {rollback:?} {size} once {:?}", t.elapsed());
    search.cut_twice(Second::BooksOnly);
    search.twice.print("twice");
    println!("{name} {rollback:?} {size} twice {:?}", t.elapsed());
}

#[test]
fn first() {
    for rollback in [Rollback::Bootloader, Rollback::Agent] {
        for tasks in [
            &[Task::Update(1), Task::Update(2)][..],
            &[Task::UpdateAborted(1), Task::Update(2)],
            &[Task::Update(1), Task::Back, Task::Update(2)],
        ] {
            go::<Lead>("lead", rollback, 4816, tasks);
            go::<Member>("member", rollback, 4816, tasks);
        }
    }
}
