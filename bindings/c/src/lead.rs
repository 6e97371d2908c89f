//! What only the lead of a group is asked for: a release in, a rollout stopped or taken back, a
//! device adopted.

use alloc::string::ToString as _;
use core::ffi::{CStr, c_char};

use lockstep_device::UploadStep;
use lockstep_device::setup::Duty;
use lockstep_proto::id::DeviceId;

use crate::api::{Lockstep, running};
use crate::device::{self, Device};
use crate::result::LockstepResult;
use crate::setup::with_causes;
use crate::shown::LockstepLevel;

/// As [`running`], for a lead.
///
/// # Safety
///
/// As for [`device::with`].
unsafe fn leading(
    lockstep: *mut Lockstep,
    act: impl FnOnce(&mut Device) -> LockstepResult,
) -> LockstepResult {
    let act = |device: &mut Device| match device.node.setup().duty {
        Duty::Lead => act(device),
        Duty::Member => LockstepResult::ErrorNotLead,
    };
    // SAFETY: as said above.
    unsafe { running(lockstep, act) }
}

/// Says in the log why something was refused.
fn refused(device: &Device, why: &dyn core::error::Error) -> LockstepResult {
    device::log(&device.flash, LockstepLevel::Warning, &with_causes(why));
    LockstepResult::ErrorRefused
}

/// A bundle of `size_bytes` begins to arrive, from wherever the application takes it: an SD card, a
/// web server of its own, another radio.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_upload_begin(
    lockstep: *mut Lockstep,
    size_bytes: u32,
) -> LockstepResult {
    let act = |device: &mut Device| match device.node.upload_begin(size_bytes) {
        Ok(()) => LockstepResult::Ok,
        Err(why) => refused(device, &why),
    };
    // SAFETY: as said above.
    unsafe { leading(lockstep, act) }
}

/// The next bytes of the bundle. `taken` is set to how many were taken: push the rest again, after
/// some ticks if it is 0, since the group is asked, or fetches what came before. `None`: the bundle
/// is complete, and the rollout goes on by itself. After an error the upload is over.
///
/// # Safety
///
/// As for `lockstep_end`; `bytes` must have `length` bytes, `taken` must be writable. Each may be
/// null, which is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_upload_push(
    lockstep: *mut Lockstep,
    now_ms: u64,
    bytes: *const u8,
    length: usize,
    taken: *mut usize,
) -> LockstepResult {
    if bytes.is_null() || taken.is_null() {
        return LockstepResult::ErrorNull;
    }
    if length > PUSH_BYTES_MAX {
        return LockstepResult::ErrorLength;
    }
    // SAFETY: not null, and so writable. Whatever it is refused for, nothing was taken.
    unsafe { taken.write(0) };
    // SAFETY: it has as many bytes, as said above.
    let bytes = unsafe { core::slice::from_raw_parts(bytes, length) };
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        let (count, result) = match device.node.upload_push(now, bytes, &mut device.flash) {
            Ok(UploadStep::Taken(count)) => (count, LockstepResult::Ok),
            Ok(UploadStep::Wait) => (0, LockstepResult::Ok),
            Ok(UploadStep::Complete(_)) => (length, LockstepResult::None),
            Err(why) => (0, refused(device, &why)),
        };
        // SAFETY: not null, and so writable.
        unsafe { taken.write(count) };
        result
    };
    // SAFETY: as said above.
    unsafe { leading(lockstep, act) }
}

/// All bytes have come, and the bundle was not complete: its rollout ends, and the log says what is
/// missing. Never `Ok`: `ErrorRefused` says that the upload is over.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_upload_end(
    lockstep: *mut Lockstep,
    now_ms: u64,
) -> LockstepResult {
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        let why = device.node.upload_end(now, &mut device.flash);
        refused(device, &why)
    };
    // SAFETY: as said above.
    unsafe { leading(lockstep, act) }
}

/// Ends the open rollout: all stay on, or go back to, what they ran before.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_abort(lockstep: *mut Lockstep, now_ms: u64) -> LockstepResult {
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        match device.node.abort(now, &mut device.flash) {
            Ok(_) => LockstepResult::Ok,
            Err(why) => refused(device, &why),
        }
    };
    // SAFETY: as said above.
    unsafe { leading(lockstep, act) }
}

/// Begins a rollout back to what the group ran before the last kept one.
///
/// # Safety
///
/// As for `lockstep_end`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_revert(lockstep: *mut Lockstep, now_ms: u64) -> LockstepResult {
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        match device.node.revert(now, &mut device.flash) {
            Ok(_) => LockstepResult::Ok,
            Err(why) => refused(device, &why),
        }
    };
    // SAFETY: as said above.
    unsafe { leading(lockstep, act) }
}

/// Begins to give the group's key to the device `id` in reach, whose password this is. The log says
/// what came of it.
///
/// # Safety
///
/// As for `lockstep_end`; `id` must have 6 bytes, `password` be a C string. Each may be null, which
/// is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lockstep_adopt(
    lockstep: *mut Lockstep,
    now_ms: u64,
    id: *const u8,
    password: *const c_char,
) -> LockstepResult {
    if id.is_null() || password.is_null() {
        return LockstepResult::ErrorNull;
    }
    // SAFETY: they are what was said above.
    let (id, password) =
        unsafe { (DeviceId(*id.cast::<[u8; 6]>()), CStr::from_ptr(password).to_str()) };
    let Ok(password) = password else { return LockstepResult::ErrorText };
    let act = |device: &mut Device| {
        let now = device.time(now_ms);
        match device.node.adopt(now, id, password) {
            Ok(()) => LockstepResult::Ok,
            Err(why) => {
                let text = why.to_string();
                device::log(&device.flash, LockstepLevel::Warning, &text);
                LockstepResult::ErrorRefused
            }
        }
    };
    // SAFETY: as said above.
    unsafe { leading(lockstep, act) }
}

/// At most so many bytes of a bundle at once.
const PUSH_BYTES_MAX: usize = 64 * 1024;
