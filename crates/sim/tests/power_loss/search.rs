//! The search: every cut of a run, what is found after it, and what becomes of it.
//!
//! After each cut the bootloader and the firmware start for real, on the flash that the cut left.
//! From there on the future is a function of three things: what the device has in memory, the
//! world outside, and the bytes of flash that it reads before it overwrites them. Two cuts that
//! agree in all three have the same future, so it is run once. Nothing is assumed about the code
//! but that it is deterministic: which bytes matter is watched, not known.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::rc::Rc;

use lockstep_proto::id::ImageHash;
use lockstep_rollout::Verdict;

use crate::bench::{Bench, Change, Cursor, Journal, Needs};
use crate::places::{Place, Step, What};
use crate::scene::{Scene, Task};
use crate::world::{Marks, World};

/// All that is known so far.
pub(crate) struct Search<W: World> {
    scene: Rc<Scene>,
    bench: Bench,
    futures: HashMap<u128, Vec<Future>>,
    /// By flash and world outside: what came of the cuts that left exactly these.
    known: HashMap<(u128, u128), Found>,
    roots: Vec<Root<W>>,
    promise: Promise,
    pub(crate) once: Table,
    pub(crate) twice: Table,
}

/// What a cut may do to the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Only a cut between activation and confirmation ends in a revert.
    OnlyTrialsEnd,
    /// An earlier cut has had its say, or somebody aborts.
    None,
}

/// A future that was run to its end.
struct Future {
    needs: Needs,
    kept: bool,
}

/// What was found after a cut, and what came of it.
#[derive(Debug, Clone, Copy)]
struct Found {
    running: ImageHash,
    kept: bool,
}

/// The first cut that led to some future: where a second cut is tried.
struct Root<W: World> {
    flash: Vec<u8>,
    outside: W::Outside,
}

/// Figures by step and place.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) rows: BTreeMap<Place, Row>,
    /// Flash contents that differ, each started once.
    pub(crate) states: u64,
    pub(crate) futures: u64,
}

/// What cuts at one place left behind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Erases of sectors.
    pub(crate) erases: u64,
    pub(crate) cuts: u64,
    /// The image from before the rollout booted.
    pub(crate) old: u64,
    /// The rollout's image booted.
    pub(crate) new: u64,
    /// The rollout ended with the new image.
    pub(crate) kept: u64,
    /// The rollout ended with the old image.
    pub(crate) reverted: u64,
}

/// Into which changes cuts fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cuts {
    /// All of them.
    Everywhere,
    /// All but the bytes of images and packages.
    BooksOnly,
}

impl Cuts {
    fn fall_into(self, what: What) -> bool {
        self == Self::Everywhere || !what.is_bulk()
    }
}

impl<W: World> Search<W> {
    pub(crate) fn new(scene: Scene) -> Self {
        let scene = Rc::new(scene);
        let bench = scene.bench(scene.factory_flash());
        let (futures, known, roots) = (HashMap::new(), HashMap::new(), Vec::new());
        let (once, twice) = (Table::default(), Table::default());
        let promise = match scene.tasks[scene.cut_task] {
            Task::Update(_) | Task::Back => Promise::OnlyTrialsEnd,
            Task::UpdateAborted(_) => Promise::None,
        };
        Self { scene, bench, futures, known, roots, promise, once, twice }
    }

    /// Carries out the tasks without a cut.
    pub(crate) fn run(&mut self) -> (Journal, Marks<W::Outside>) {
        let outside = W::outside(&self.scene);
        for _ in 0..self.scene.idle_starts {
            W::power_on(&self.scene, outside.clone(), &mut self.bench);
        }
        let mut marks = Marks::new(outside.clone());
        if self.scene.cut_task == 0 {
            self.bench.begin_journal();
        }
        let mut world = W::power_on(&self.scene, outside, &mut self.bench);
        let verdicts = world.run(&mut self.bench, &mut marks);
        assert_eq!(verdicts.len(), self.scene.tasks.len());
        (self.bench.take_journal().expect("the cut task was journaled"), marks)
    }

    /// Every cut of the cut task.
    pub(crate) fn cut_once(&mut self, cuts: Cuts) {
        let (journal, marks) = self.run();
        let mut table = std::mem::take(&mut self.once);
        self.cut_everywhere(&journal, &marks, cuts, &mut table);
        self.once = table;
    }

    /// For each future that the first cuts led to, every cut of it until its rollout is over.
    pub(crate) fn cut_twice(&mut self, cuts: Cuts) {
        self.promise = Promise::None;
        let mut table = std::mem::take(&mut self.twice);
        for root in std::mem::take(&mut self.roots) {
            let mut bench = self.scene.bench(root.flash);
            bench.begin_journal();
            let mut marks = Marks::new(root.outside.clone());
            let mut world = W::power_on(&self.scene, root.outside, &mut bench);
            world.run(&mut bench, &mut marks);
            let journal = bench.take_journal().expect("the journal was begun");
            self.cut_everywhere(&journal, &marks, cuts, &mut table);
        }
        self.roots.clear();
        self.twice = table;
    }

    fn cut_everywhere(
        &mut self,
        journal: &Journal,
        marks: &Marks<W::Outside>,
        cuts: Cuts,
        table: &mut Table,
    ) {
        let prints: Vec<u128> = marks.list.iter().map(fingerprint).collect();
        let mut cursor = Cursor::new(journal.start.clone());
        self.bench.touched.fill(true);
        for change in &journal.changes {
            if !cuts.fall_into(change.place.1) {
                cursor.skip(change);
                continue;
            }
            let (outside, print) = (&marks.list[change.mark], prints[change.mark]);
            let row = table.rows.entry(change.place).or_default();
            row.erases += u64::from(matches!(change.what, crate::bench::What::Erase));
            cursor.pass(change, |cursor| self.cut(cursor, outside, print, change, table));
        }
        // The last cut point: all was done.
        if let (Some(last), Some(print)) = (journal.changes.last(), prints.last()) {
            let outside = marks.list.last().expect("as many as prints");
            self.cut(&mut cursor, outside, *print, last, table);
        }
    }

    fn cut(
        &mut self,
        cursor: &mut Cursor,
        outside: &W::Outside,
        print: u128,
        change: &Change,
        table: &mut Table,
    ) {
        let key = (cursor.hash, print);
        let found = match self.known.get(&key) {
            Some(found) => *found,
            None => {
                table.states += 1;
                let found = self.start(cursor, outside, table);
                self.known.insert(key, found);
                found
            }
        };
        let (step, what) = change.place;
        let costs_only_time =
            matches!(step, Step::Before | Step::Stage | Step::Rest | Step::Confirm | Step::Kept);
        assert!(
            found.kept || !costs_only_time || self.promise == Promise::None,
            "a cut during `{}` ({}) ended in a revert",
            step.name(),
            what.name()
        );
        let row = table.rows.entry(change.place).or_default();
        let before = self.scene.before_cut();
        row.cuts += 1;
        row.old += u64::from(found.running == before);
        row.new += u64::from(found.running != before);
        row.kept += u64::from(found.kept);
        row.reverted += u64::from(!found.kept);
    }

    /// The power comes back.
    fn start(&mut self, cursor: &mut Cursor, outside: &W::Outside, table: &mut Table) -> Found {
        self.bench.follow(cursor);
        let mut world = W::power_on(&self.scene, outside.clone(), &mut self.bench);
        let running = world.report().running;
        let print = fingerprint(&world);
        let futures = self.futures.entry(print).or_default();
        let flash = &self.bench.flash.bytes;
        if let Some(future) = futures.iter().find(|future| future.needs.are_met_by(flash)) {
            return Found { running, kept: future.kept };
        }
        self.bench.watch_needs();
        let verdicts = world.run(&mut self.bench, &mut Marks::new(outside.clone()));
        // The cut rollout is never over for whoever conducts it: the last mark is before its end.
        let [cut, next] = verdicts[..] else { panic!("{} rollouts were left", verdicts.len()) };
        assert_eq!(next, Verdict::Keep, "the next rollout succeeds");
        let kept = cut == Verdict::Keep;
        let needs = self.bench.take_needs();
        futures.push(Future { needs, kept });
        table.futures += 1;
        self.roots.push(Root { flash: cursor.bytes.clone(), outside: outside.clone() });
        Found { running, kept }
    }
}

impl Table {
    /// Cut points of all rows.
    pub(crate) fn cuts(&self) -> u64 {
        self.rows.values().map(|row| row.cuts).sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (place, row) in &other.rows {
            let sum = self.rows.entry(*place).or_default();
            sum.erases += row.erases;
            sum.cuts += row.cuts;
            sum.old += row.old;
            sum.new += row.new;
            sum.kept += row.kept;
            sum.reverted += row.reverted;
        }
        self.states += other.states;
        self.futures += other.futures;
    }

    /// Figures of the rows that `wanted` names.
    pub(crate) fn sum(&self, wanted: impl Fn(Step, What) -> bool) -> Row {
        let mut sum = Row::default();
        for ((step, what), row) in &self.rows {
            if wanted(*step, *what) {
                sum.erases += row.erases;
                sum.cuts += row.cuts;
                sum.old += row.old;
                sum.new += row.new;
                sum.kept += row.kept;
                sum.reverted += row.reverted;
            }
        }
        sum
    }

    pub(crate) fn print(&self, title: &str) {
        let mut text = format!(
            "\n{title}\n{:11} {:20} {:>8} {:>7} {:>8} {:>8} {:>8} {:>8}\n",
            "step", "place", "cuts", "erases", "old runs", "new runs", "kept", "reverted"
        );
        for ((step, what), row) in &self.rows {
            let Row { erases, cuts, old, new, kept, reverted } = row;
            let (step, what) = (step.name(), what.name());
            let _ = writeln!(
                text,
                "{step:11} {what:20} {cuts:8} {erases:7} {old:8} {new:8} {kept:8} {reverted:8}"
            );
        }
        let (cuts, states, futures) = (self.cuts(), self.states, self.futures);
        let erases: u64 = self.rows.values().map(|row| row.erases).sum();
        println!("{text}{cuts} cut points, {erases} erases, {states} states, {futures} futures");
    }
}

/// A hash of everything that `Debug` shows.
fn fingerprint(value: &impl std::fmt::Debug) -> u128 {
    let mut text = String::with_capacity(0x4000);
    let _ = write!(text, "{value:?}");
    let (mut a, mut b) = (0x243F_6A88_85A3_08D3_u64, 0x1319_8A2E_0370_7344_u64);
    for piece in text.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..piece.len()].copy_from_slice(piece);
        let word = u64::from_le_bytes(word);
        a = (a.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
        b = (b.rotate_left(23) ^ word ^ a).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    u128::from(a) << 64 | u128::from(b)
}
