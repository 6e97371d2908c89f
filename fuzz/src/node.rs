//! A pair of whole nodes between which anything happens: frames of any kind and in any order, said
//! with the group's key or without it, lost frames, cut power, time.
//!
//! An input is a script of commands; see [`Command`]. Hashes and tickets are chosen from what the
//! pair knows, so that orders get further than to their first check.
//!
//! Promises: nothing panics, no loop is endless, memory stays bounded; whatever was said and
//! wherever the power went, both boards boot a complete image that was released (invariants 4
//! and 6), start, and are never woken in the past. The other invariants of a rollout are not
//! judged here: whoever has the key may break them, and the simulator tries those who have not.

use lockstep_device::Node;
use lockstep_proto::frame::block::{Ask, Block, BlockFrame, Repair, Session};
use lockstep_proto::frame::coding::Shape;
use lockstep_proto::frame::control::{CONTROL, Message};
use lockstep_proto::frame::order::{Detail, Order, Source, Stage, Terms, Ticket};
use lockstep_proto::frame::report::{Echo, Lacking, MemberState, Probe, Readiness, Wants};
use lockstep_proto::frame::{FRAME_BYTES_MAX, LANE_VERSION, LARGE_FRAME_BYTES_MAX};
use lockstep_proto::id::{DeviceId, Generation, ImageHash, RolloutId, Sha256};
use lockstep_proto::wire::{Label, Reader, TooShort};

use crate::frames::{CONTROL_TAG_BYTES, KEY, sign};
use crate::memory;
use crate::world::{LEAD, MEMBER, World, id_of, releases};

/// What the first byte of a command means; its arguments follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Command {
    /// `n`: time passes, a hundredth of a second and `n` more of them.
    Wait,
    /// `n`: time passes, `n` quarters of a second.
    Rest,
    /// `bits`: which of eight frames in a row are lost from here on.
    Lose,
    /// `to from length bytes`: a frame as it is.
    Frame,
    /// `to from length bytes`: a control frame; the bytes begin with its kind.
    Say,
    /// `to from kind ticket hashes number number`: an order.
    Order,
    /// `to from what choice number number`: what a member says.
    Answer,
    /// `to object index how`: a block of the package or of an image, a repair frame, a question.
    Block,
    /// The new release's bundle is uploaded.
    Upload,
    /// The upload's sender says that there is no more.
    End,
    /// The open rollout is aborted.
    Abort,
    /// The last rollout is reversed.
    Revert,
    /// `to`: the power of a board is cut.
    Cut,
    /// `to low high`: the power of a board goes after so many more units of flash work.
    Tear,
    /// `id`: a member is removed from the lead's list.
    Remove,
}

/// All of them, in the order of their numbers.
pub const COMMANDS: [Command; 15] = [
    Command::Wait,
    Command::Rest,
    Command::Lose,
    Command::Frame,
    Command::Say,
    Command::Order,
    Command::Answer,
    Command::Block,
    Command::Upload,
    Command::End,
    Command::Abort,
    Command::Revert,
    Command::Cut,
    Command::Tear,
    Command::Remove,
];

/// One input.
pub fn run(data: &[u8]) {
    let _ = releases();
    let _ = World::new(0);
    memory::within(MEMORY_BYTES_MAX, || play(data).check());
}

fn play(script: &[u8]) -> World {
    let mut world = World::new(STEPS_MAX);
    let mut script = Reader::new(script);
    for _ in 0..COMMANDS_MAX {
        if obey(&mut world, &mut script).is_err() {
            break;
        }
    }
    world
}

/// Carries out one command; fails at the end of the script.
fn obey(world: &mut World, script: &mut Reader<'_>) -> Result<(), TooShort> {
    let now = world.now;
    let number = usize::from(script.u8()?) % COMMANDS.len();
    match COMMANDS[number] {
        Command::Wait => world.run_ms(u64::from(script.u8()?) * 10 + 10),
        Command::Rest => world.run_ms(u64::from(script.u8()?) * 250),
        Command::Lose => world.loss = script.u8()?,
        Command::Frame => {
            let (to, from) = parties(script)?;
            let length = usize::from(script.u8()?);
            world.inject(to, from, script.take(length)?.to_vec());
        }
        Command::Say => say(world, script)?,
        Command::Order => order(world, script)?,
        Command::Answer => answer(world, script)?,
        Command::Block => block(world, script)?,
        Command::Upload => world.begin_upload(),
        Command::End => {
            world.boards[LEAD].with(now, |now, node, flash| node.upload_end(now, flash));
        }
        Command::Abort => {
            let _ = world.boards[LEAD].with(now, |now, node, flash| node.abort(now, flash));
        }
        Command::Revert => {
            let _ = world.boards[LEAD].with(now, |now, node, flash| node.revert(now, flash));
        }
        Command::Cut => world.boards[usize::from(script.u8()? % 2)].cut_power(now),
        Command::Tear => {
            let board = usize::from(script.u8()? % 2);
            let budget = u64::from(script.u16()?);
            world.boards[board].flash.power_budget_bytes = Some(budget);
        }
        Command::Remove => {
            let id = id_of(usize::from(script.u8()? % 4));
            let remove =
                world.boards[LEAD].with(now, |now, node, flash| node.remove_member(now, id, flash));
            let _ = remove;
        }
    }
    Ok(())
}

/// To which board, and who says it: the lead, the member, or one of two strangers.
fn parties(script: &mut Reader<'_>) -> Result<(usize, DeviceId), TooShort> {
    let to = usize::from(script.u8()? % 2);
    Ok((to, id_of(usize::from(script.u8()? % 4))))
}

fn say(world: &mut World, script: &mut Reader<'_>) -> Result<(), TooShort> {
    let (to, from) = parties(script)?;
    let length = usize::from(script.u8()?);
    let body = script.take(length)?;
    let mut frame = vec![CONTROL, LANE_VERSION];
    frame.extend(KEY.group().0.to_le_bytes());
    frame.extend(world.header(to, from));
    let room = FRAME_BYTES_MAX - frame.len() - CONTROL_TAG_BYTES;
    frame.extend(&body[..body.len().min(room)]);
    world.inject(to, from, sign(&KEY, frame, CONTROL_TAG_BYTES));
    Ok(())
}

fn order(world: &mut World, script: &mut Reader<'_>) -> Result<(), TooShort> {
    let (to, from) = parties(script)?;
    let (kind, ticket, hashes, number) = (script.u8()?, script.u8()?, script.u8()?, script.u16()?);
    let ticket = ticket_of(world, to, ticket);
    let (image, running) = (hash_of(world, to, hashes), hash_of(world, to, hashes >> 4));
    let order = match kind % 10 {
        0 => Order::Inspect(Detail::Report),
        1 => Order::Inspect(Detail::Facts),
        2 => Order::Stage(stage(image, number)),
        3 => Order::Rest,
        4 => Order::Arm { image, running },
        5 => Order::Fire { in_ms: number },
        6 => Order::Activate { image, running },
        7 => Order::Confirm { image },
        8 => Order::Revert,
        _ => Order::Settled,
    };
    world.speak(to, from, Message::Order(ticket, order));
    Ok(())
}

/// The low byte changes what is staged, the high byte how long a member protects itself.
fn stage(image: ImageHash, number: u16) -> Stage {
    let all = releases();
    let [low, high] = number.to_le_bytes();
    let artifact = all.new.iter().find(|artifact| artifact.hash == image);
    let size_bytes = artifact.map_or(0, |artifact| artifact.bytes.len());
    let odd = |bit: u8| u32::from(low >> bit & 1);
    Stage {
        image,
        size_bytes: u32::try_from(size_bytes).unwrap_or_default() + odd(0) * 0xFFF0_0000,
        package: if odd(1) == 0 { all.package_sha256 } else { Sha256([3; 32]) },
        package_size_bytes: u16::try_from(all.package.len()).unwrap_or_default()
            + u16::from(low >> 2 & 1) * 0x4000,
        source: if odd(3) == 0 { Source::Blocks } else { Source::OtherSlot },
        terms: Terms {
            lease_ms: u32::from(high) * 200 + odd(4) * (u32::MAX - 60_000),
            trial_limit_ms: u32::from(high) * 100 + odd(5) * (u32::MAX - 60_000),
            rest_lease_ms: u32::from(high) * 100 + odd(6) * (u32::MAX - 60_000),
        },
        sender: None,
    }
}

/// The ticket that a board knows, and what is near it.
fn ticket_of(world: &World, to: usize, choice: u8) -> Ticket {
    let member = |index: usize| world.boards[index].node.as_ref();
    let known = match choice & 3 {
        0 => member(to).map(|node| node.agent().member().ticket),
        1 => member(LEAD).and_then(Node::conducting).map(|rollout| Ticket {
            rollout: rollout.record.id,
            generation: rollout.record.generation,
            attempt: rollout.record.seats.first().map_or(0, |seat| seat.attempt),
        }),
        2 => member(MEMBER).map(|node| node.agent().member().ticket),
        _ => None,
    };
    let mut ticket = known.unwrap_or(Ticket {
        rollout: RolloutId(7),
        generation: Generation { term: 1, counter: 9 },
        attempt: 1,
    });
    ticket.attempt = ticket.attempt.wrapping_add(choice >> 2 & 3);
    match choice >> 4 & 3 {
        1 => ticket.generation.counter = ticket.generation.counter.wrapping_add(1),
        2 => ticket.generation.term = ticket.generation.term.wrapping_add(1),
        3 => ticket.generation.counter = u32::MAX,
        _ => (),
    }
    ticket.rollout.0 = ticket.rollout.0.wrapping_add(u64::from(choice >> 6));
    ticket
}

fn hash_of(world: &World, to: usize, choice: u8) -> ImageHash {
    let node = world.boards[to].node.as_ref();
    match choice & 7 {
        0 => node.map(|node| node.agent().running()),
        1 => node.and_then(|node| node.agent().other()),
        2 => Some(releases().new[to].hash),
        3 => Some(releases().new[1 - to].hash),
        4 => node.map(|node| node.agent().member().target),
        5 => node.map(|node| node.agent().member().previous),
        6 => Some(ImageHash([0; 32])),
        _ => None,
    }
    .unwrap_or(ImageHash([0xAB; 32]))
}

/// What a member says, after its own words and changed a little.
fn answer(world: &mut World, script: &mut Reader<'_>) -> Result<(), TooShort> {
    let (to, from) = parties(script)?;
    let (what, choice, number) = (script.u8()?, script.u8()?, script.u16()?);
    let running = hash_of(world, MEMBER, choice);
    let role = Label::new("transmitter").unwrap_or(Label::EMPTY);
    let Some(node) = &world.boards[MEMBER].node else { return Ok(()) };
    let mut report = node.agent().report();
    let mut facts = node.agent().facts(150_000, 0);
    let message = match what % 5 {
        0 => {
            report.ticket = ticket_of(world, to, choice);
            report.state = MemberState::from_code(choice & 7).unwrap_or(report.state);
            report.running = running;
            report.observed.healthy = number & 1 == 1;
            report.observed.staged = number & 2 == 2;
            report.observed.at_rest = number & 4 == 4;
            report.observed.not_now = number & 8 == 8;
            report.observed.on_trial = number & 16 == 16;
            report.staged_bytes = u32::from(number) << (choice & 31);
            Message::Report(report)
        }
        1 => {
            facts.running = running;
            facts.generation.counter = u32::from(number) << (choice & 31);
            facts.slot_size_bytes >>= number & 31;
            facts.link_loss_percent = choice;
            Message::Facts(facts)
        }
        2 => Message::Wants(Wants {
            session: session_of(choice),
            readiness: [Readiness::Busy, Readiness::Head, Readiness::Open, Readiness::Done]
                [usize::from(choice & 3)],
            shape: if choice & 4 == 0 { Shape::Small } else { Shape::Large },
            takes_large: choice & 8 == 0,
            interval_ms: u16::from(choice) << 4,
            staged_bytes: u32::from(number) << (choice & 15),
            erased_bytes: number.into(),
            first: number >> 12,
            lacking: Lacking::of((0..choice & 31).map(|at| choice.wrapping_mul(at))),
        }),
        3 => Message::Probe(Probe { nonce: number.into(), role, running }),
        _ => Message::Echo(Echo { nonce: number.into(), role, running }),
    };
    world.speak(to, from, message);
    Ok(())
}

fn session_of(object: u8) -> Session {
    let all = releases();
    Session::of(match object % 3 {
        0 => &all.package_sha256.0,
        1 => &all.new[LEAD].file_sha256.0,
        _ => &all.new[MEMBER].file_sha256.0,
    })
}

fn block(world: &mut World, script: &mut Reader<'_>) -> Result<(), TooShort> {
    let (to, object, index, how) =
        (usize::from(script.u8()? % 2), script.u8()?, script.u8()?, script.u8()?);
    let all = releases();
    let bytes = match object % 3 {
        0 => &all.package,
        1 => &all.new[LEAD].bytes,
        _ => &all.new[MEMBER].bytes,
    };
    let shape = if object & 0x40 == 0 { Shape::Small } else { Shape::Large };
    let session = session_of(object);
    let size = usize::try_from(shape.block_bytes()).expect("1024 fits");
    let mut payload = bytes.chunks(size).nth(index.into()).unwrap_or(b"x").to_vec();
    if object >= 0x80 {
        payload[0] ^= how;
    }
    let members = [id_of(MEMBER), id_of(LEAD)];
    let generation = u16::from(how >> 6);
    let frame = match how % 4 {
        0 | 1 => {
            BlockFrame::Block(Block { session, shape, index: index.into(), payload: &payload })
        }
        2 => {
            payload.resize(size, 0);
            let named = index.into();
            BlockFrame::Repair(Repair { session, shape, generation, named, payload: &payload })
        }
        _ => {
            let generation = (how & 8 == 0).then_some(generation);
            BlockFrame::Ask(Ask::new(session, generation, how >> 4, &members))
        }
    };
    let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
    let len = frame.encode(&KEY, &mut buffer).expect("a block fits");
    world.inject(to, id_of(LEAD), buffer[..len].to_vec());
    Ok(())
}

/// Commands of one script.
const COMMANDS_MAX: usize = 200;
/// Steps of time of one script: a rollout and a half.
const STEPS_MAX: u32 = 1_500;
/// Two flashes, two nodes with full journals, and what is in the air.
const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use lockstep_rollout::{Phase, Verdict};

    use super::*;

    const UPLOAD: u8 = 8;
    const REST: u8 = 1;
    const ABORT: u8 = 10;

    fn phase(world: &World) -> Option<Phase> {
        Some(world.boards[LEAD].node.as_ref()?.conducting()?.record.phase)
    }

    // A fuzzer that never gets past preflight would find nothing behind it.
    #[test]
    fn a_script_brings_the_pair_to_the_new_release() {
        let world = play(&[UPLOAD, REST, 60]);
        assert_eq!(phase(&world), Some(Phase::Settled(Verdict::Keep)));
        for (board, image) in world.boards.iter().zip(&releases().new) {
            let running = board.node.as_ref().map(|node| node.agent().running());
            assert_eq!(running, Some(image.hash));
        }
    }

    #[test]
    fn a_script_ends_a_rollout_on_trial() {
        for rests in 0..20 {
            let mut script = vec![UPLOAD, 0, 100];
            script.extend([0, 10].repeat(rests));
            if matches!(phase(&play(&script)), Some(Phase::Trial)) {
                script.extend([ABORT, REST, 60]);
                let phase = phase(&play(&script));
                assert!(matches!(phase, Some(Phase::Settled(Verdict::Revert(_)))), "{phase:?}");
                return;
            }
        }
        panic!("never on trial");
    }

    // The fuzzer speaks as a lead that is none: the member stages what nobody uploaded.
    #[test]
    fn a_stranger_with_the_key_brings_a_member_to_a_trial() {
        let seed = crate::seeds::all().into_iter().filter(|seed| seed.target == "node").nth(8);
        let script = seed.expect("a script").bytes;
        let reached = (0..script.len()).any(|cut| {
            let world = play(&script[..cut]);
            world.boards[MEMBER].node.as_ref().is_some_and(|node| node.agent().on_trial())
        });
        assert!(reached, "the member never was on trial");
    }
}
