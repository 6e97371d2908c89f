//! Entry points of `lockstep-agent`: what a member calls.

use core::hint::black_box;

use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use lockstep_agent::{Agent, Health, Identity, Setup};
use lockstep_proto::compat::Announced;
use lockstep_proto::frame::block::BlockFrame;
use lockstep_proto::frame::order::{Order, Ticket};
use lockstep_proto::frame::report::{Rollback, View};
use lockstep_proto::id::{DeviceId, RolloutId, Sha256};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::time::Instant;
use lockstep_proto::version::ProtocolRange;
use lockstep_proto::wire::Label;

/// Everything here, with bytes that the compiler knows nothing about.
pub fn run(bytes: &[u8]) {
    let mut flash = Chip;
    let Ok((mut agent, _)) = Agent::boot(now(), setup(), &mut flash) else { return };
    follow(&mut agent, &mut flash);
    lead(&mut agent, bytes, &mut flash);
}

#[inline(never)]
fn follow(agent: &mut Agent, flash: &mut Chip) {
    let order: Option<(Ticket, Order)> = black_box(None);
    if let Some((ticket, order)) = order {
        let _ = black_box(agent.handle_order(now(), &ticket, &order, flash));
    }
    let block: Option<BlockFrame<'_>> = black_box(None);
    if let Some(block) = block {
        let _ = black_box(agent.handle_block(now(), DeviceId::BROADCAST, &block, flash));
    }
    agent.note_frame_of(now(), RolloutId(black_box(1)));
    agent.application_at_rest(now());
    agent.application_not_now(now());
    let health =
        Health { checks_ok: black_box(true), link_ok: true, linked: 1, view: View([0; 8]) };
    agent.observe(now(), health);
    agent.tick(now(), flash);
    let _ = black_box((agent.next_wake(now()), agent.poll_effect(), agent.take_wants(now())));
    let _ = black_box((agent.report(), agent.facts(black_box(1), black_box(1))));
}

#[inline(never)]
fn lead(agent: &mut Agent, bytes: &[u8], flash: &mut Chip) {
    let _ = black_box(agent.install_package(now(), bytes, flash));
    let _ = black_box(agent.push_local(now(), black_box(0), bytes, flash));
    let _ = black_box(agent.spool_begin(Sha256([0; 32]), black_box(1), flash));
    let _ = black_box(agent.spool_push(now(), black_box(0), bytes, flash));
    let _ = black_box(agent.spool_verify(flash));
    let _ = black_box(agent.raise_epoch(black_box(1), flash));
    let _ = black_box(agent.set_trust(Trust::anybody(), flash));
}

fn setup() -> Setup {
    let protocol = ProtocolRange::single(black_box(1));
    Setup {
        identity: Identity {
            role: Label::EMPTY,
            chip: ChipId(black_box(5)),
            board: Label::EMPTY,
            announced: Announced { number: black_box(1), min_compatible: 0, protocol },
            config_schema: 0,
        },
        rollback: black_box(Rollback::Bootloader),
        running_slot: black_box(0),
        reset_reason: black_box(1),
        trust: Trust::anybody(),
        takes_large: true,
    }
}

fn now() -> Instant {
    Instant::from_ms(black_box(0))
}

/// A chip's flash, as far as the compiler can tell.
struct Chip;

#[derive(Debug)]
struct Failed;

impl NorFlashError for Failed {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl ErrorType for Chip {
    type Error = Failed;
}

impl ReadNorFlash for Chip {
    const READ_SIZE: usize = 4;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Failed> {
        let _ = black_box((offset, bytes));
        if black_box(true) { Ok(()) } else { Err(Failed) }
    }

    fn capacity(&self) -> usize {
        black_box(4 << 20)
    }
}

impl NorFlash for Chip {
    const WRITE_SIZE: usize = 4;
    const ERASE_SIZE: usize = 4096;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Failed> {
        let _ = black_box((from, to));
        if black_box(true) { Ok(()) } else { Err(Failed) }
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Failed> {
        let _ = black_box((offset, bytes));
        if black_box(true) { Ok(()) } else { Err(Failed) }
    }
}
