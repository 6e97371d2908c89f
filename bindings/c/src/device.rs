//! An instance: what lies at the beginning of the caller's memory, and how a call gets at it.

use alloc::boxed::Box;
use alloc::ffi::CString;
use core::mem::{align_of, size_of};

use lockstep_device::journal::Level;
use lockstep_device::{Action, Node};
use lockstep_proto::time::Instant;

use crate::application::{CApplication, Told};
use crate::callbacks::PortFlash;
use crate::memory::{Arena, Serving};
use crate::result::LockstepResult;
use crate::shown::{LockstepEffect, LockstepEffectKind, LockstepLevel, LockstepMemory, c_text};

/// A device of a group. Lies in the caller's memory, and is used through its address alone.
pub struct Lockstep {
    /// Tells a running instance from memory that is none.
    mark: u64,
    arena: Arena,
    device: Option<Box<Device>>,
}

/// The node, and what a C caller has with it.
pub(crate) struct Device {
    pub(crate) node: Node<CApplication>,
    pub(crate) flash: PortFlash,
    /// Told before anything else, and again until the chip is reset.
    pub(crate) reboot: Option<LockstepEffect>,
    /// Time never goes back for a node, whatever its caller says.
    now: Instant,
    /// When the next tick is due, as seen in all calls since the last one.
    wake: Instant,
    /// The last line that was handed to the port.
    logged: u32,
}

impl Device {
    pub(crate) fn new(node: Node<CApplication>, flash: PortFlash, now: Instant) -> Self {
        Self { node, flash, reboot: None, now, wake: now, logged: 0 }
    }

    /// The caller's time, or the last one if that is later.
    pub(crate) fn time(&mut self, now_ms: u64) -> Instant {
        self.now = self.now.max(Instant::from_ms(now_ms));
        self.now
    }

    /// The time of the last call.
    pub(crate) const fn last_time(&self) -> Instant {
        self.now
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.node.tick(now, &mut self.flash);
        self.wake = Instant::from_ms(u64::MAX);
    }

    /// When the next tick is due.
    pub(crate) fn next_wake(&self) -> Instant {
        if self.node.application().has_to_send() { self.now } else { self.wake }
    }

    /// What each call ends with.
    fn after(&mut self) {
        self.wake = self.wake.min(self.node.next_wake(self.now));
        self.hand_out_log();
    }

    /// The next thing that the caller is to do.
    pub(crate) fn poll_effect(&mut self) -> Option<LockstepEffect> {
        if self.reboot.is_some() {
            return self.reboot;
        }
        if let Some(told) = self.node.application_mut().told.take() {
            let kind = match told {
                Told::AskRest => LockstepEffectKind::AskRest,
                Told::Release => LockstepEffectKind::Release,
            };
            return Some(LockstepEffect { kind, channel: 0, reason: c_text("") });
        }
        Some(match self.node.poll_action()? {
            Action::Tune(channel) => LockstepEffect {
                kind: LockstepEffectKind::Tune,
                channel: channel.number(),
                reason: c_text(""),
            },
            Action::Reboot(reason) => *self.reboot.insert(reboot(&reason)),
        })
    }

    /// Hands new lines to the port, and forgets them: nobody else reads them here.
    pub(crate) fn hand_out_log(&mut self) {
        for line in self.node.journal().lines_after(self.logged) {
            self.logged = line.seq;
            let level = match line.level {
                Level::Info => LockstepLevel::Info,
                Level::Notice => LockstepLevel::Notice,
                Level::Warning => LockstepLevel::Warning,
                Level::Error => LockstepLevel::Error,
            };
            log(&self.flash, level, &line.text);
        }
        self.node.forget_lines(self.logged);
    }
}

/// What a node wants before anything else.
pub(crate) fn reboot(reason: &lockstep_device::RebootReason) -> LockstepEffect {
    let reason = c_text(&alloc::format!("{reason}"));
    LockstepEffect { kind: LockstepEffectKind::Reboot, channel: 0, reason }
}

/// One line to the port. A text with a NUL in it has come from somewhere else; it ends there.
pub(crate) fn log(flash: &PortFlash, level: LockstepLevel, text: &str) {
    let text = text.split('\0').next().unwrap_or_default();
    if let Ok(text) = CString::new(text) {
        flash.log(level as i32, &text);
    }
}

/// Puts an instance without a device at the beginning of `memory`, and has `begin` make the device.
/// If that fails the memory is as if nothing was.
///
/// # Safety
///
/// `memory` must be the caller's to give away, `size_bytes` of it.
pub(crate) unsafe fn place(
    memory: *mut u8,
    size_bytes: usize,
    begin: impl FnOnce() -> Result<Box<Device>, LockstepResult>,
) -> Result<*mut Lockstep, LockstepResult> {
    let skipped = memory.align_offset(align_of::<Lockstep>());
    let head_bytes = size_of::<Lockstep>();
    let Some(left_bytes) = size_bytes.checked_sub(skipped.saturating_add(head_bytes)) else {
        return Err(LockstepResult::ErrorMemory);
    };
    if left_bytes < HEAP_BYTES_MIN {
        return Err(LockstepResult::ErrorMemory);
    }
    // SAFETY: within the caller's memory, as was just seen, and aligned.
    let lockstep: *mut Lockstep = unsafe { memory.add(skipped) }.cast();
    // Before a byte is written: the memory may be that of the call that is running.
    let mut nobody = Arena::empty();
    let serving = Serving::begin(&raw mut nobody).ok_or(LockstepResult::ErrorBusy)?;
    // SAFETY: what is behind the instance is the arena's.
    unsafe {
        let arena = Arena::new(lockstep.add(1).cast(), left_bytes);
        lockstep.write(Lockstep { mark: 0, arena, device: None });
        serving.serve(&raw mut (*lockstep).arena);
        let device = begin();
        let result = device.map(|device| {
            (*lockstep).device = Some(device);
            (*lockstep).mark = MARK;
            lockstep
        });
        drop(serving);
        result
    }
}

/// Ends an instance: its memory is its caller's again.
///
/// # Safety
///
/// As for [`with`].
pub(crate) unsafe fn end(lockstep: *mut Lockstep) -> LockstepResult {
    // SAFETY: as said above.
    let ended = unsafe { with(lockstep, |_, _| LockstepResult::Ok) };
    if ended == LockstepResult::Ok {
        // SAFETY: `with` has found an instance there, and no call is running, or none is begun.
        unsafe {
            let Some(serving) = Serving::begin(&raw mut (*lockstep).arena) else {
                return LockstepResult::ErrorBusy;
            };
            (*lockstep).mark = 0;
            (*lockstep).device = None;
            drop(serving);
        }
    }
    ended
}

/// One call: finds the instance, has its memory serve, and hands out the log at the end.
///
/// # Safety
///
/// `lockstep` must be null, or readable as an instance: one that `lockstep_init` gave, even if it
/// has ended, as long as its memory is there.
pub(crate) unsafe fn with(
    lockstep: *mut Lockstep,
    act: impl FnOnce(&mut Device, LockstepMemory) -> LockstepResult,
) -> LockstepResult {
    if lockstep.is_null() {
        return LockstepResult::ErrorNull;
    }
    if !lockstep.is_aligned() {
        return LockstepResult::ErrorHandle;
    }
    // SAFETY: readable, as said above. The fields are reached one by one: the allocator reaches the
    // arena while the device is in use.
    unsafe {
        if (&raw const (*lockstep).mark).read() != MARK {
            return LockstepResult::ErrorHandle;
        }
        let arena = &raw mut (*lockstep).arena;
        let Some(serving) = Serving::begin(arena) else { return LockstepResult::ErrorBusy };
        let memory = LockstepMemory {
            size_bytes: (*arena).size_bytes(),
            used_bytes: (*arena).used_bytes(),
            peak_bytes: (*arena).peak_bytes(),
        };
        let device = &mut (*lockstep).device;
        let result = match device.as_deref_mut() {
            None => LockstepResult::ErrorHandle,
            Some(device) => {
                // What staging will take is taken from here, whatever else the chip has left.
                let free_bytes = memory.size_bytes.saturating_sub(memory.used_bytes);
                device.node.application_mut().free_heap_bytes =
                    u32::try_from(free_bytes).unwrap_or(u32::MAX);
                let result = act(device, memory);
                device.after();
                result
            }
        };
        drop(serving);
        result
    }
}

/// What an instance has at the beginning of its memory while it runs: `LOCKSTEP`.
const MARK: u64 = u64::from_le_bytes(*b"LOCKSTEP");
/// With less a device does not start, on a host; a member needs more to get through a rollout.
const HEAP_BYTES_MIN: usize = 28 * 1024;
