//! The calls. Each finds its instance, reads what it was given, and asks the node.
//!
//! None of them waits. All but `lockstep_error_text` are for one task at a time.

use alloc::boxed::Box;
use core::ffi::{CStr, c_char, c_void};
use core::ptr;

use lockstep_agent::Booted;
use lockstep_device::channel::Channel;
use lockstep_device::setup::{RestAnswer, StagingPace};
use lockstep_device::{Node, password};
use lockstep_proto::frame::report::MemberState;
use lockstep_proto::frame::{FRAME_BYTES_MAX, FrameType, LARGE_FRAME_BYTES_MAX, frame_type};
use lockstep_proto::id::DeviceId;
use lockstep_proto::time::Instant;
use lockstep_proto::wire::Role;

use crate::application::CApplication;
use crate::callbacks::{LockstepCallbacks, PortFlash};
use crate::device::{self, Device};
use crate::result::LockstepResult;
use crate::setup::{self, LockstepDuty, LockstepSetup};
use crate::shown::{
    LockstepEffect, LockstepFrame, LockstepGate, LockstepLevel, LockstepMemory, LockstepPeer,
    LockstepRest, LockstepState, LockstepStep, c_text,
};

pub use crate::device::Lockstep;

/// Memory that is enough for a member, in bytes: what was measured, and half of it once more.
pub const LOCKSTEP_MEMORY_BYTES: usize = 65_536;

/// Memory that is enough for a lead, in bytes, which holds a release's manifest in it twice while
/// it begins a rollout: what was measured, and half of it once more. With less it is not started.
pub const LOCKSTEP_LEAD_MEMORY_BYTES: usize = 98_304;

/// Starts a device: first thing at start, before anything that a bad release could have broken.
/// `memory` is the library's until `lockstep_end`; any alignment will do. Everything else may be
/// gone when this comes back. `out` is set to the instance, or to null.
///
/// Poll for effects right after it: a trial that must end has ordered its reboot.
///
/// # Safety
///
/// `memory` must have `size_bytes` that nobody else uses; `setup` and `callbacks` must be as their
/// fields say, `out` writable; each may be null, which is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_init(
    memory: *mut c_void,
    size_bytes: usize,
    now_ms: u64,
    setup: *const LockstepSetup,
    callbacks: *const LockstepCallbacks,
    out: *mut *mut Lockstep,
) -> LockstepResult {
    if out.is_null() {
        return LockstepResult::ErrorNull;
    }
    // SAFETY: writable, as said above.
    unsafe { out.write(ptr::null_mut()) };
    if memory.is_null() || setup.is_null() || callbacks.is_null() {
        return LockstepResult::ErrorNull;
    }
    // SAFETY: readable, as said above.
    let (setup, callbacks) = unsafe { (&*setup, *callbacks) };
    let Some(flash) = PortFlash::new(callbacks, setup.flash_bytes) else {
        return LockstepResult::ErrorNull;
    };
    let now = Instant::from_ms(now_ms);
    let is_lead = setup.duty == LockstepDuty::Lead as i32;
    let begin = || {
        // SAFETY: the setup is as its fields say.
        let device = unsafe { boot(now, setup, flash) }?;
        match is_lead && size_bytes < LOCKSTEP_LEAD_MEMORY_BYTES {
            true => Err(LockstepResult::ErrorMemory),
            false => Ok(device),
        }
    };
    // SAFETY: the memory is ours.
    let placed = unsafe { device::place(memory.cast(), size_bytes, begin) };
    match placed {
        Ok(lockstep) => {
            // SAFETY: writable, as said above.
            unsafe { out.write(lockstep) };
            LockstepResult::Ok
        }
        Err(result) => result,
    }
}

/// # Safety
///
/// `setup` must be as its fields say.
unsafe fn boot(
    now: Instant,
    setup: &LockstepSetup,
    mut flash: PortFlash,
) -> Result<Box<Device>, LockstepResult> {
    // SAFETY: as said above.
    let setup = match unsafe { setup::node_setup(setup, &mut flash) } {
        Ok(setup) => setup,
        Err((result, text)) => {
            device::log(&flash, LockstepLevel::Error, &text);
            return Err(result);
        }
    };
    let (node, booted) = match Node::boot(now, setup, CApplication::new(), &mut flash) {
        Ok(started) => started,
        Err(error) => {
            device::log(&flash, LockstepLevel::Error, &setup::with_causes(&error));
            return Err(LockstepResult::ErrorBoot);
        }
    };
    let mut device = Box::new(Device::new(node, flash, now));
    if let Booted::RebootNow(reason) = booted {
        device.reboot = Some(device::reboot(&reason));
    }
    device.hand_out_log();
    Ok(device)
}

/// Ends an instance without a reset; its memory is the caller's again. What is durable stays.
///
/// # Safety
///
/// `lockstep` must be null or an instance, or have been one whose memory is still there. So for
/// every call below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_end(lockstep: *mut Lockstep) -> LockstepResult {
    // SAFETY: as said above.
    unsafe { device::end(lockstep) }
}

/// One call for a device that is not about to be reset.
///
/// # Safety
///
/// As for [`device::with`].
pub(crate) unsafe fn running(
    lockstep: *mut Lockstep,
    act: impl FnOnce(&mut Device) -> LockstepResult,
) -> LockstepResult {
    // SAFETY: as said above.
    unsafe {
        device::with(lockstep, |device, _| match device.reboot {
            Some(_) => LockstepResult::ErrorReboot,
            None => act(device),
        })
    }
}

/// Time has passed. Call it when `lockstep_next_wake` says so; more often does no harm.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_tick(lockstep: *mut Lockstep, now_ms: u64) -> LockstepResult {
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        device.tick(now);
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// When `lockstep_tick` is due at the latest, in milliseconds of the caller's time. Frames bring it
/// forward: ask after every call.
///
/// # Safety
///
/// As for `lockstep_end`; `at_ms` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_next_wake(
    lockstep: *mut Lockstep,
    at_ms: *mut u64,
) -> LockstepResult {
    let act = |device: &mut Device| {
        // SAFETY: not null, and so writable.
        unsafe { at_ms.write(device.next_wake().ms) };
        LockstepResult::Ok
    };
    if at_ms.is_null() {
        return LockstepResult::ErrorNull;
    }
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// A frame that the radio has received, whoever it is for. `gate` is set to whose it is, and
/// whether the application may use it: a `LockstepGate`. Lockstep's own frames begin with 0x10 to
/// 0x13 or, now or in a later version, with 0x40 to 0x6F; all others are the application's.
///
/// # Safety
///
/// As for `lockstep_end`; `from` must have 6 bytes, `bytes` `length`; `gate` must be writable. Each
/// may be null, which is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_receive(
    lockstep: *mut Lockstep,
    now_ms: u64,
    from: *const u8,
    bytes: *const u8,
    length: usize,
    gate: *mut LockstepGate,
) -> LockstepResult {
    if from.is_null() || bytes.is_null() || gate.is_null() {
        return LockstepResult::ErrorNull;
    }
    if length > RADIO_FRAME_BYTES_MAX {
        return LockstepResult::ErrorLength;
    }
    // SAFETY: they have as many bytes, as said above.
    let (from, frame) =
        unsafe { (DeviceId(*from.cast::<[u8; 6]>()), core::slice::from_raw_parts(bytes, length)) };
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        let found = receive(device, now, from, frame);
        // SAFETY: not null, and so writable.
        unsafe { gate.write(found) };
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

fn receive(device: &mut Device, now: Instant, from: DeviceId, frame: &[u8]) -> LockstepGate {
    // Nothing is left of the frame before, also where this one is not looked at.
    device.node.application_mut().has_passed = false;
    // What a radio of version 1 could not have heard, a node need not look at.
    if frame.len() <= FRAME_BYTES_MAX || device.node.setup().takes_large {
        device.node.handle_frame(now, from, frame, &mut device.flash);
    }
    if !is_applications(frame) {
        return LockstepGate::Ours;
    }
    let passes = if frame_type(frame) == Some(FrameType::Data) {
        device.node.application().has_passed
    } else {
        // The node leaves alone what it does not know: the application has types of its own.
        let peer = device.node.peers().get(from);
        peer.is_some_and(|peer| peer.gate == Some(Ok(())))
    };
    if passes { LockstepGate::Passes } else { LockstepGate::Dropped }
}

/// Whether a frame is of a type that is the application's; 0x40 to 0x6F are of later versions of
/// Lockstep where they are not of this one.
fn is_applications(frame: &[u8]) -> bool {
    match frame_type(frame) {
        Some(FrameType::Data) => true,
        Some(FrameType::Other(first)) => !(0x40..=0x6F).contains(&first),
        _ => false,
    }
}

/// The next frame to send. `None`: there is none. One that the radio has no room for is kept by the
/// caller, and sent before the next is taken.
///
/// # Safety
///
/// As for `lockstep_end`; `frame` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_poll_frame(
    lockstep: *mut Lockstep,
    now_ms: u64,
    frame: *mut LockstepFrame,
) -> LockstepResult {
    if frame.is_null() {
        return LockstepResult::ErrorNull;
    }
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        let mut buffer = [0; LARGE_FRAME_BYTES_MAX];
        let polled = device.node.poll_frame(now, &mut buffer, &mut device.flash);
        let Some((to, length)) = polled else { return LockstepResult::None };
        let length = u16::try_from(length).unwrap_or(u16::MAX);
        // SAFETY: not null, and so writable.
        unsafe { frame.write(LockstepFrame { to: to.0, length, bytes: buffer }) };
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// What the caller is to do next. `None`: nothing. A reboot is told again until the chip is reset.
///
/// # Safety
///
/// As for `lockstep_end`; `effect` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_poll_effect(
    lockstep: *mut Lockstep,
    effect: *mut LockstepEffect,
) -> LockstepResult {
    if effect.is_null() {
        return LockstepResult::ErrorNull;
    }
    let act = |device: &mut Device, _| match device.poll_effect() {
        Some(found) => {
            // SAFETY: not null, and so writable.
            unsafe { effect.write(found) };
            LockstepResult::Ok
        }
        None => LockstepResult::None,
    };
    // SAFETY: as said above.
    unsafe { device::with(lockstep, act) }
}

/// How far the application is on its way to rest: a `LockstepRest`. It counts once the application
/// has polled the effect that asks for it, and until one that releases it: what was said before
/// is about something else.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_answer_rest(
    lockstep: *mut Lockstep,
    answer: i32,
) -> LockstepResult {
    const PENDING: i32 = LockstepRest::Pending as i32;
    const AT_REST: i32 = LockstepRest::AtRest as i32;
    const NOT_NOW: i32 = LockstepRest::NotNow as i32;
    let answer = match answer {
        PENDING => RestAnswer::Pending,
        AT_REST => RestAnswer::AtRest,
        NOT_NOW => RestAnswer::NotNow,
        _ => return LockstepResult::ErrorValue,
    };
    let act = |device: &mut Device| {
        device.node.application_mut().answer_rest(answer);
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// Whether all checks of the application pass. Say it again and again: it counts for ten seconds,
/// since an application that hangs says nothing. Until it was said once the device is not healthy.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_set_health(
    lockstep: *mut Lockstep,
    now_ms: u64,
    is_ok: bool,
) -> LockstepResult {
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        device.node.application_mut().say_healthy(now, is_ok);
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// How much of the flash's time staging may take. An erase stops a chip for tens of milliseconds,
/// which a control loop feels: with a pause it erases one sector or writes one page, and then
/// leaves the flash alone for so long. 0: the application is idle, everything at once. It is 10 ms
/// until somebody says otherwise.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_set_pause(
    lockstep: *mut Lockstep,
    pause_ms: u32,
) -> LockstepResult {
    let act = |device: &mut Device| {
        device.node.application_mut().pace = match pause_ms {
            0 => StagingPace::Fast,
            ms_between => StagingPace::Background { ms_between },
        };
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// Sends a data frame of the application, of 1 to 250 bytes, to everybody: it goes out with the
/// next ticks. It must not begin with what Lockstep's own begin with. The application may as well
/// send its frames itself.
///
/// # Safety
///
/// As for `lockstep_end`; `bytes` must be null or have `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_send(
    lockstep: *mut Lockstep,
    bytes: *const u8,
    length: usize,
) -> LockstepResult {
    if bytes.is_null() {
        return LockstepResult::ErrorNull;
    }
    if length == 0 || length > FRAME_BYTES_MAX {
        return LockstepResult::ErrorLength;
    }
    // SAFETY: it has as many bytes, as said above.
    let frame = unsafe { core::slice::from_raw_parts(bytes, length) };
    if !is_applications(frame) {
        return LockstepResult::ErrorValue;
    }
    let act = |device: &mut Device| {
        let has_room = device.node.application_mut().send(frame);
        if has_room { LockstepResult::Ok } else { LockstepResult::ErrorLength }
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// Sets the device's password, durably: 8 to 64 characters. Who knows it may adopt the device, and
/// on a lead order rollouts. Without one nobody may.
///
/// # Safety
///
/// As for `lockstep_end`; `password` must be null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_set_password(
    lockstep: *mut Lockstep,
    now_ms: u64,
    password: *const c_char,
) -> LockstepResult {
    if password.is_null() {
        return LockstepResult::ErrorNull;
    }
    // SAFETY: a C string, as said above.
    let password = unsafe { CStr::from_ptr(password) };
    let Some(password) = password.to_str().ok().filter(|it| password::check(it).is_ok()) else {
        return LockstepResult::ErrorText;
    };
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        let is_stored = device.node.change_password(now, password, &mut device.flash);
        if is_stored { LockstepResult::Ok } else { LockstepResult::ErrorFlash }
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// How this device stands, for its screen.
///
/// # Safety
///
/// As for `lockstep_end`; `state` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_state(
    lockstep: *mut Lockstep,
    state: *mut LockstepState,
) -> LockstepResult {
    if state.is_null() {
        return LockstepResult::ErrorNull;
    }
    let act = |device: &mut Device, _| {
        // SAFETY: not null, and so writable.
        unsafe { state.write(state_of(device)) };
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { device::with(lockstep, act) }
}

fn state_of(device: &Device) -> LockstepState {
    let (node, agent) = (&device.node, device.node.agent());
    let report = agent.report();
    LockstepState {
        step: match report.state {
            MemberState::Idle => LockstepStep::Idle,
            MemberState::Staging => LockstepStep::Staging,
            MemberState::Staged => LockstepStep::Staged,
            MemberState::Activating => LockstepStep::Activating,
            MemberState::Confirming => LockstepStep::Confirming,
            MemberState::Kept => LockstepStep::Kept,
            MemberState::Reverted => LockstepStep::Reverted,
        },
        staged_bytes: report.staged_bytes,
        version: node.announced().number,
        boot_number: agent.boot_number(),
        trial_left_s: report.trial_left_s,
        channel_good: node.last_good_channel().map_or(0, Channel::number),
        on_trial: agent.on_trial(),
        linked: node.link_holds(device.last_time()),
        has_password: node.has_password(),
        image: agent.running().0,
    }
}

/// The other device of this index, from 0 on. `None`: there is none; there are at most 64.
///
/// # Safety
///
/// As for `lockstep_end`; `peer` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_peer(
    lockstep: *mut Lockstep,
    index: usize,
    peer: *mut LockstepPeer,
) -> LockstepResult {
    if peer.is_null() {
        return LockstepResult::ErrorNull;
    }
    let act = |device: &mut Device, _| match peer_of(device, index) {
        Some(found) => {
            // SAFETY: not null, and so writable.
            unsafe { peer.write(found) };
            LockstepResult::Ok
        }
        None => LockstepResult::None,
    };
    // SAFETY: as said above.
    unsafe { device::with(lockstep, act) }
}

fn peer_of(device: &Device, index: usize) -> Option<LockstepPeer> {
    let peer = device.node.peers().all().get(index)?;
    let fresh_ms = device.node.setup().pace.link_fresh_ms;
    let warning = match peer.gate {
        Some(Err(why)) => c_text(&alloc::format!("{why}")),
        Some(Ok(())) | None => c_text(""),
    };
    Some(LockstepPeer {
        id: peer.id.0,
        role: c_text(peer.role.as_ref().map(Role::as_str).unwrap_or_default()),
        version: peer.announced.map_or(0, |announced| announced.number),
        linked: peer.is_linked(device.last_time(), fresh_ms),
        is_known: peer.announced.is_some(),
        is_compatible: peer.gate == Some(Ok(())),
        warning,
    })
}

/// What became of the memory that was handed in.
///
/// # Safety
///
/// As for `lockstep_end`; `memory` must be null or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_memory(
    lockstep: *mut Lockstep,
    memory: *mut LockstepMemory,
) -> LockstepResult {
    if memory.is_null() {
        return LockstepResult::ErrorNull;
    }
    let act = |_: &mut Device, found| {
        // SAFETY: not null, and so writable.
        unsafe { memory.write(found) };
        LockstepResult::Ok
    };
    // SAFETY: as said above.
    unsafe { device::with(lockstep, act) }
}

/// ESP-NOW version 2 carries so much.
const RADIO_FRAME_BYTES_MAX: usize = 1470;
