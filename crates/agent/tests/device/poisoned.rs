//! Wrong blocks with a right tag: somebody has the group's key, or a bug. With the hashes of its
//! generations in the manifest an image is judged piece by piece, and a wrong block costs a piece.

use lockstep_agent::receiver::Dropped;
use lockstep_agent::{POISONED_MAX, Trace};
use lockstep_proto::frame::block::{Ask, Block, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::{Cut, Shape};
use lockstep_proto::frame::order::Order;
use lockstep_proto::frame::report::{MemberState, Readiness, Refusal, Wants};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::{GENERATION_BYTES, GenerationHash};
use lockstep_sim::firmware::FirmwareSpec;

use crate::fixture::{
    Firmware, ME, Release, SLOTS, TestDevice, build, descriptor, list_of, ticket,
};

/// Four generations and a short one.
const SIZE_BYTES: u32 = 120_000;
const GENERATIONS: u16 = 5;

fn big() -> Firmware {
    let spec = FirmwareSpec::new(descriptor(), ChipId::ESP32_S3);
    build(&FirmwareSpec { size_bytes: SIZE_BYTES, ..spec })
}

/// A member that is sent an image, as a lead would, and what that costs.
struct Transfer {
    device: TestDevice,
    release: Release,
    shape: Shape,
    /// Bytes of the image that were sent.
    sent_bytes: u32,
    /// Blocks that are forged when they are sent next.
    forged: Vec<u16>,
}

impl Transfer {
    fn begin(release: Release, shape: Shape) -> Self {
        let mut device = TestDevice::new();
        device.takes_large = shape == Shape::Large;
        device.power_cycle();
        let mut transfer = Self { device, release, shape, sent_bytes: 0, forged: Vec::new() };
        transfer.stage();
        transfer
    }

    /// Until blocks of the image are taken. The head comes on the way.
    fn stage(&mut self) {
        self.device.order(&ticket(1, 0), &Order::Stage(self.release.stage()));
        let package = self.release.package();
        while let Some(wants) = self.device.wanted() {
            if wants.session != self.session() {
                self.device.feed_some(&wants, &package, &self.release.firmware.file);
                continue;
            }
            match wants.readiness {
                Readiness::Head => (0..self.shape.head_blocks()).for_each(|index| {
                    self.send(index).unwrap();
                }),
                Readiness::Busy => self.device.pass(1),
                Readiness::Open | Readiness::Done => return,
            }
        }
    }

    fn session(&self) -> Session {
        Session::of(&self.release.sha256.0)
    }

    fn cut(&self) -> Cut {
        Cut { shape: self.shape, size_bytes: SIZE_BYTES }
    }

    fn send(&mut self, index: u16) -> Result<(), Dropped> {
        let (offset, len) = self.cut().block(index.into()).unwrap();
        let mut payload =
            self.release.firmware.file[offset as usize..(offset + len) as usize].to_vec();
        if let Some(at) = self.forged.iter().position(|&forged| forged == index) {
            self.forged.remove(at);
            payload[7] ^= 0x40;
        }
        self.sent_bytes += len;
        let (session, shape) = (self.session(), self.shape);
        self.device.hear(&BlockFrame::Block(Block { session, shape, index, payload: &payload }))
    }

    fn repair(&mut self, generation: u16, named: u32) -> Result<(), Dropped> {
        let (session, shape) = (self.session(), Shape::Small);
        let mut sum = [0; 224];
        let mix = self.cut().mix(session, generation, named);
        for place in (0..128).filter(|place| mix >> place & 1 == 1) {
            let at = (usize::from(generation) * 128 + place) * 224;
            let block = &self.release.firmware.file[at..at + 224];
            sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
        }
        let repair = Repair { session, shape, generation, named, payload: &sum };
        self.device.hear(&BlockFrame::Repair(repair))
    }

    /// Whatever is lacking of these generations, in their order.
    fn send_generations(&mut self, generations: core::ops::Range<u16>) {
        let whole = self.shape.generation_blocks();
        for generation in generations {
            for place in 0..self.cut().blocks_of(generation) {
                match self.send(generation * whole + place) {
                    Ok(()) => {}
                    // A lead would not have sent it.
                    Err(Dropped::Known) => {
                        self.sent_bytes -=
                            self.cut().block((generation * whole + place).into()).unwrap().1;
                    }
                    Err(why) => panic!("block {place} of generation {generation}: {why:?}"),
                }
            }
        }
    }

    /// A round is over: what does the member say?
    fn ask(&mut self) -> Wants {
        const ASKED: [lockstep_proto::id::DeviceId; 1] = [ME];
        let ask = Ask::new(self.session(), None, 2, &ASKED);
        self.device.hear(&BlockFrame::Ask(ask)).unwrap();
        self.device.pass(2);
        let now = self.device.now;
        self.device.agent().take_wants(now).unwrap()
    }

    /// Rounds as a lead sends them, until the member is staged or refuses.
    fn run(&mut self) {
        for _ in 0..100 {
            let Some(wants) = self.device.wanted() else { return };
            match wants.readiness {
                Readiness::Open => {
                    let lacking = wants.lacking.counts().to_vec();
                    for (generation, lacking) in (wants.first..).zip(lacking) {
                        let comes = self.device.wanted().is_some() && lacking > 0;
                        self.send_generations(generation..generation + u16::from(comes));
                    }
                    if self.device.wanted().is_some() {
                        self.ask();
                    }
                }
                _ => self.device.pass(1),
            }
        }
        panic!("the transfer does not end");
    }

    fn poisoned(&self) -> usize {
        let is_poisoned = |trace: &&Trace| matches!(trace, Trace::GenerationPoisoned { .. });
        self.device.traces.iter().filter(is_poisoned).count()
    }

    fn sector_erases(&self) -> Vec<u32> {
        let first = SLOTS[1] as usize / 4096;
        let erases = &self.device.flash.statistics.sector_erases;
        erases[first..first + SIZE_BYTES.div_ceil(4096) as usize].to_vec()
    }

    fn assert_staged(&mut self) {
        let (state, refusal) = (self.device.state(), self.device.refusal());
        assert_eq!((state, refusal), (MemberState::Staged, None));
        assert!(self.device.report().observed.staged);
    }
}

#[test]
fn a_forged_block_costs_its_generation_and_not_the_image() {
    for (shape, forged) in [(Shape::Small, 128 + 60), (Shape::Large, 28 + 13)] {
        let mut transfer = Transfer::begin(Release::listed(big()), shape);
        transfer.forged.push(forged);
        transfer.run();
        transfer.assert_staged();
        assert_eq!(transfer.sent_bytes, SIZE_BYTES + GENERATION_BYTES, "{shape:?}");
        assert!(transfer.device.saw(Trace::GenerationPoisoned { generation: 1 }));
        assert_eq!(transfer.poisoned(), 1);
        let expected = (0..30).map(|sector| 1 + u32::from((7..14).contains(&sector)));
        assert_eq!(transfer.sector_erases(), expected.collect::<Vec<_>>());
    }
}

#[test]
fn the_last_and_shorter_generation_is_judged_like_the_others() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    transfer.forged.push(535);
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.sent_bytes, SIZE_BYTES + SIZE_BYTES % GENERATION_BYTES);
}

#[test]
fn each_of_several_forged_blocks_costs_its_generation() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    // The first generation is poisoned twice, two others at the same time as the first.
    transfer.forged.extend([50, 51, 200, 450]);
    transfer.send_generations(0..GENERATIONS);
    assert_eq!(transfer.poisoned(), 3);
    transfer.forged.push(52);
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.poisoned(), 4);
    assert_eq!(transfer.sent_bytes, SIZE_BYTES + 4 * GENERATION_BYTES);
}

// L16 again: a chip that erases hears nothing, and would lose more than the one generation.
#[test]
fn a_poisoned_generation_is_erased_when_the_sender_asks_and_not_while_blocks_come() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    transfer.forged.push(5);
    transfer.send_generations(0..1);
    assert_eq!(transfer.poisoned(), 1);
    let erases = transfer.sector_erases();
    assert_eq!(transfer.send(7), Err(Dropped::Busy), "until it is erased");
    let wants = transfer.device.wanted().unwrap();
    assert_eq!((wants.readiness, wants.first), (Readiness::Open, 0));
    assert_eq!(wants.lacking.counts(), [0, 128, 128, 128, 24], "what would be taken");
    transfer.send_generations(1..2);
    transfer.device.pass(50);
    assert_eq!(transfer.sector_erases(), erases);
    assert_eq!(transfer.ask().readiness, Readiness::Busy, "said before it hears nothing");
    assert_eq!(transfer.sector_erases(), erases);
    transfer.device.pass(1);
    while transfer.device.wanted().unwrap().readiness == Readiness::Busy {
        transfer.device.pass(1);
    }
    assert_ne!(transfer.sector_erases(), erases);
    transfer.device.pass(1);
    let now = transfer.device.now;
    let wants = transfer.device.agent().take_wants(now).expect("it speaks when it is done");
    assert_eq!((wants.readiness, wants.first), (Readiness::Open, 0));
    assert_eq!(wants.lacking.counts(), [128, 0, 128, 128, 24]);
    let before = transfer.sent_bytes;
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.sent_bytes - before, SIZE_BYTES - GENERATION_BYTES);
}

// Repair frames mix what is there with what is lacking: from a wrong block come more wrong ones.
#[test]
fn what_was_mended_with_a_forged_block_is_fetched_again_too() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    transfer.forged.push(4);
    (3..128).filter(|index| index % 20 != 19).for_each(|index| transfer.send(index).unwrap());
    for named in 1.. {
        if transfer.repair(0, named) == Err(Dropped::Busy) {
            break;
        }
        assert!(named < 30);
    }
    assert_eq!(transfer.poisoned(), 1);
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.poisoned(), 1);
}

#[test]
fn a_generation_stays_poisoned_while_those_before_it_become_whole() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    transfer.forged.push(300);
    transfer.send_generations(2..3);
    transfer.send_generations(0..2);
    let wants = transfer.device.wanted().unwrap();
    assert_eq!((wants.first, wants.lacking.counts()), (2, &[0, 128, 24][..]));
    assert_eq!(transfer.send(256), Err(Dropped::Busy));
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.poisoned(), 1);
    let expected = (0..30).map(|sector| 1 + u32::from((14..21).contains(&sector)));
    assert_eq!(transfer.sector_erases(), expected.collect::<Vec<_>>());
}

// They were made of a wrong block, and would be missing in what is asked for.
#[test]
fn repair_frames_of_a_poisoned_generation_are_given_up() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    (3..118).for_each(|index| transfer.send(index).unwrap());
    (1..4).for_each(|named| transfer.repair(0, named).unwrap());
    assert_eq!(transfer.device.wanted().unwrap().lacking.counts()[0], 7);
    transfer.forged.push(120);
    (118..128).for_each(|index| transfer.send(index).unwrap());
    assert_eq!(transfer.poisoned(), 1);
    transfer.ask();
    while transfer.device.wanted().unwrap().readiness == Readiness::Busy {
        transfer.device.pass(1);
    }
    assert_eq!(transfer.device.wanted().unwrap().lacking.counts()[0], 128);
    transfer.run();
    transfer.assert_staged();
}

// What is durable is right, whatever was sent: after a reboot nothing of it is looked at again.
#[test]
fn progress_counts_no_generation_that_was_not_verified() {
    let mut transfer = Transfer::begin(Release::listed(big()), Shape::Small);
    transfer.forged.push(130);
    transfer.send_generations(0..GENERATIONS);
    assert_eq!(transfer.device.wanted().unwrap().first, 1);
    transfer.device.power_cycle();
    transfer.stage();
    assert_eq!(transfer.device.wanted().unwrap().first, 0, "the second half of a step is wrong");
    transfer.forged.push(260);
    transfer.send_generations(0..GENERATIONS);
    assert_eq!(transfer.device.wanted().unwrap().first, 2);
    transfer.device.power_cycle();
    transfer.stage();
    assert!(transfer.device.saw(Trace::Resumed { done_bytes: 57_344 }));
    let before = transfer.sent_bytes;
    transfer.forged.push(500);
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.poisoned(), 3, "judged after a reboot too");
    let again = SIZE_BYTES - 57_344 + GENERATION_BYTES;
    assert_eq!(transfer.sent_bytes - before, again);
}

#[test]
fn a_power_cut_anywhere_around_a_poisoned_generation_costs_no_more_than_a_reboot() {
    let mut start = Transfer::begin(Release::listed(big()), Shape::Small);
    start.forged.push(300);
    start.send_generations(0..2);
    (256..383).for_each(|index| start.send(index).unwrap());
    // The block that makes the third generation whole, the answer, and erasing seven sectors.
    for budget in (0..600).step_by(37).chain((600..7 * 4096 + 600).step_by(1021)) {
        let Transfer { device, release, shape, .. } = &start;
        let (device, firmware, shape) = (device.clone(), release.firmware.clone(), *shape);
        let release = Release::listed(firmware);
        let mut transfer = Transfer { device, release, shape, sent_bytes: 0, forged: Vec::new() };
        transfer.device.flash.power_budget_bytes = Some(budget);
        let _ = transfer.send(383);
        let ask = Ask::new(transfer.session(), None, 2, &[ME]);
        let _ = transfer.device.hear(&BlockFrame::Ask(ask));
        for _ in 0..12 {
            transfer.device.pass(2);
            let now = transfer.device.now;
            let _ = transfer.device.agent().take_wants(now);
        }
        transfer.device.flash.power_on();
        transfer.device.power_cycle();
        transfer.stage();
        assert_eq!(transfer.device.wanted().unwrap().first, 2, "cut after {budget}");
        transfer.run();
        transfer.assert_staged();
    }
}

#[test]
fn without_a_list_a_forged_block_is_found_in_the_end_and_costs_the_image() {
    let mut transfer = Transfer::begin(Release::of(big()), Shape::Small);
    transfer.forged.push(200);
    transfer.run();
    assert_eq!((transfer.device.state(), transfer.poisoned()), (MemberState::Staging, 0));
    assert!(transfer.device.refusal().is_some());
    transfer.stage();
    transfer.run();
    transfer.assert_staged();
    assert_eq!(transfer.sent_bytes, 2 * SIZE_BYTES);
}

// Nobody but its signers can make a list lie, but then nothing would ever be right.
#[test]
fn a_manifest_whose_list_lies_ends_with_what_a_wrong_image_is_refused_with() {
    let firmware = big();
    let lies = list_of(&vec![0x11; SIZE_BYTES as usize]);
    let release = Release { generations: Some(lies), ..Release::of(firmware.clone()) };
    let mut transfer = Transfer::begin(release, Shape::Small);
    transfer.run();
    assert_eq!(transfer.poisoned(), usize::from(POISONED_MAX) + 1);
    let Some(Refusal::SlotDiffers { found, expected }) = transfer.device.refusal() else {
        panic!("{:?}", transfer.device.refusal());
    };
    // The last of them was the second generation.
    let hash = |bytes: &[u8]| GenerationHash::of(bytes).first4();
    let second = GENERATION_BYTES as usize..2 * GENERATION_BYTES as usize;
    assert_eq!(found, hash(&firmware.file[second.clone()]));
    assert_eq!(expected, hash(&vec![0x11; SIZE_BYTES as usize][second]));
    assert_eq!(transfer.device.state(), MemberState::Staging);
    // As with any image that comes out wrong: three times anew, and no more.
    for restart in 1..5 {
        transfer.stage();
        assert_eq!(transfer.device.wanted().is_some(), restart <= 3, "{restart}");
        transfer.run();
    }
    assert_eq!(transfer.poisoned(), 4 * (usize::from(POISONED_MAX) + 1));
}

// What comes in order from an upload was hashed on its way in, and is judged in the end.
#[test]
fn an_upload_is_judged_as_a_whole_whatever_the_list_says() {
    let lies = list_of(&vec![0x11; SIZE_BYTES as usize]);
    let release = Release { generations: Some(lies), ..Release::of(big()) };
    let mut device = TestDevice::new();
    crate::lead::install(&mut device, &release.package());
    device.order(&ticket(1, 0), &Order::Stage(release.stage()));
    let mut at = 0;
    while at < release.firmware.file.len() {
        let now = device.now;
        let (agent, flash) = device.parts();
        let piece = &release.firmware.file[at..];
        let piece = &piece[..piece.len().min(1460)];
        let offset = u32::try_from(at).unwrap();
        at = agent.push_local(now, offset, piece, flash).unwrap() as usize;
        device.pass(1);
    }
    assert_eq!((device.state(), device.refusal()), (MemberState::Staged, None));
}
