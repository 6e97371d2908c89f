//! Power loss, complete.

#![allow(dead_code)]
mod bench;
mod member;
mod places;
mod scene;
mod search;
mod world;

use lockstep_proto::frame::report::Rollback;
use member::Member;
use scene::{Scene, Task};
use search::{Search, Second};

#[test]
fn first() {
    for rollback in [Rollback::Bootloader, Rollback::Agent] {
        let scene = Scene::new("x", rollback, &[4096, 4816, 4128])
            .with_tasks(&[Task::Update(1), Task::Update(2)]);
        let mut search = Search::<Member>::new(scene);
        let t = std::time::Instant::now();
        search.cut_once();
        search.once.print("once");
        println!("{:?}", t.elapsed());
        search.cut_twice(Second::BooksOnly);
        search.twice.print("twice");
        println!("{:?}", t.elapsed());
    }
}
