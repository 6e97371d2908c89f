//! The calls as a C program makes them, on flash in memory: right ones, wrong ones, and any.

use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use embedded_storage::nor_flash::{NorFlash as _, ReadNorFlash as _};
use lockstep_c::*;
use lockstep_proto::descriptor::{Board, Descriptor, Product, Role};
use lockstep_proto::image::ChipId;
use lockstep_proto::manifest::Trust;
use lockstep_proto::version::{ProtocolRange, ReleaseVersion};
use lockstep_sim::board::{KeysAtStart, Provision, make};
use lockstep_sim::firmware::FirmwareSpec;
use lockstep_sim::flash::{CAPACITY_DEFAULT_BYTES, MemFlash};
use proptest::prelude::*;

/// What a port has: flash, a log, and if it is told to, a call that it must not make.
struct Port {
    flash: MemFlash,
    log: Vec<String>,
    calls_back: *mut Lockstep,
    /// Starts another one in the same memory.
    starts_again: Option<Box<dyn FnMut() -> LockstepResult>>,
    called_back: Option<LockstepResult>,
}

unsafe extern "C" fn read(context: *mut c_void, offset: u32, bytes: *mut u8, length: u32) -> i32 {
    // SAFETY: the port of this test, and as many bytes as the library says.
    let (port, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts_mut(bytes, length as usize);
        (&mut *context.cast::<Port>(), bytes)
    };
    i32::from(port.flash.read(offset, bytes).is_err())
}

unsafe extern "C" fn write(
    context: *mut c_void,
    offset: u32,
    bytes: *const u8,
    length: u32,
) -> i32 {
    // SAFETY: the port of this test, and as many bytes as the library says.
    let (port, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts(bytes, length as usize);
        (&mut *context.cast::<Port>(), bytes)
    };
    // What a chip does not do.
    let crosses = offset % 256 + length > 256;
    i32::from(crosses || port.flash.write(offset, bytes).is_err())
}

unsafe extern "C" fn erase(context: *mut c_void, offset: u32, length: u32) -> i32 {
    // SAFETY: the port of this test.
    let port = unsafe { &mut *context.cast::<Port>() };
    i32::from(port.flash.erase(offset, offset + length).is_err())
}

unsafe extern "C" fn log(context: *mut c_void, _level: i32, text: *const c_char) {
    // SAFETY: the port of this test, and a C string.
    let (port, text) = unsafe { (&mut *context.cast::<Port>(), CStr::from_ptr(text)) };
    port.log.push(text.to_str().unwrap().to_owned());
    if !port.calls_back.is_null() {
        // SAFETY: an instance.
        port.called_back = Some(unsafe { lockstep_tick(port.calls_back, 0) });
    }
    if let Some(again) = &mut port.starts_again {
        port.called_back = Some(again());
    }
}

/// A device that runs 1.0.0, and the memory that it lives in.
struct Device {
    port: Box<Port>,
    memory: Vec<u8>,
    descriptor: [u8; 128],
    setup: LockstepSetup,
    lockstep: *mut Lockstep,
}

const KEY: [u8; 32] = [9; 32];

impl Device {
    /// With everything that a start needs, and not started.
    fn new(last: u8, role: &str, version: &str) -> Self {
        let descriptor = Descriptor {
            product: Product::new("desk").unwrap(),
            role: Role::new(role).unwrap(),
            board: Board::new("esp32-poe-iso").unwrap(),
            version: version.parse().unwrap(),
            min_compatible: ReleaseVersion::from_number(10_000),
            protocol: ProtocolRange::single(1),
            epoch: 0,
            config_schema: 0,
        };
        let firmware = FirmwareSpec {
            size_bytes: 8 * 1024,
            ..FirmwareSpec::new(descriptor.clone(), ChipId::ESP32)
        };
        let provision = Provision {
            firmware: firmware.build().unwrap(),
            announced: None,
            password: None,
            trust: Trust::anybody(),
            keys: KeysAtStart::Stay,
        };
        let mut flash = MemFlash::new(CAPACITY_DEFAULT_BYTES);
        make(&provision, None, ChipId::ESP32, &mut flash).unwrap();
        let port = Port {
            flash,
            log: Vec::new(),
            calls_back: ptr::null_mut(),
            starts_again: None,
            called_back: None,
        };
        // SAFETY: zeros and null pointers are what a setup begins with.
        let zeros: LockstepSetup = unsafe { MaybeUninit::zeroed().assume_init() };
        let setup = LockstepSetup {
            id: [0x24, 0xA1, 0x60, 0, 0, last],
            flash_bytes: CAPACITY_DEFAULT_BYTES,
            reset_reason: 1,
            tempo: LockstepTempo::Desk as i32,
            group_key: KEY.as_ptr(),
            seed: u64::from(last),
            ..zeros
        };
        let memory = vec![0xA5; LOCKSTEP_MEMORY_BYTES];
        let descriptor = descriptor.encode();
        Self { port: Box::new(port), memory, descriptor, setup, lockstep: ptr::null_mut() }
    }

    fn callbacks(&mut self) -> LockstepCallbacks {
        LockstepCallbacks {
            context: ptr::from_mut(&mut *self.port).cast(),
            flash_read: Some(read),
            flash_write: Some(write),
            flash_erase: Some(erase),
            log: Some(log),
        }
    }

    fn make_lead(&mut self) {
        self.setup.duty = LockstepDuty::Lead as i32;
        self.memory = vec![0xA5; LOCKSTEP_LEAD_MEMORY_BYTES];
    }

    fn start(&mut self) -> LockstepResult {
        self.setup.descriptor = self.descriptor.as_ptr();
        let callbacks = self.callbacks();
        let (memory, size_bytes) = (self.memory.as_mut_ptr().cast(), self.memory.len());
        // SAFETY: all of it is as the header says.
        unsafe { lockstep_init(memory, size_bytes, 0, &self.setup, &callbacks, &mut self.lockstep) }
    }

    fn started(last: u8, role: &str, version: &str) -> Self {
        let mut device = Self::new(last, role, version);
        assert_eq!(device.start(), LockstepResult::Ok, "{:?}", device.port.log);
        device
    }

    /// All frames that it wants sent.
    fn frames(&mut self, now_ms: u64) -> Vec<LockstepFrame> {
        let mut frames = Vec::new();
        let mut frame = MaybeUninit::<LockstepFrame>::uninit();
        loop {
            // SAFETY: an instance, and a place for a frame, which is one after `Ok`.
            match unsafe { lockstep_poll_frame(self.lockstep, now_ms, frame.as_mut_ptr()) } {
                // SAFETY: it is one, after `Ok`.
                LockstepResult::Ok => frames.push(unsafe { frame.assume_init() }),
                _ => return frames,
            }
        }
    }

    fn hears(&mut self, now_ms: u64, from: &Self, frame: &[u8]) -> LockstepGate {
        let mut gate = LockstepGate::Ours;
        let id = from.setup.id;
        // SAFETY: an instance, and as many bytes as are said.
        let result = unsafe {
            lockstep_receive(
                self.lockstep,
                now_ms,
                id.as_ptr(),
                frame.as_ptr(),
                frame.len(),
                &mut gate,
            )
        };
        assert_eq!(result, LockstepResult::Ok);
        gate
    }

    fn tick(&mut self, now_ms: u64) {
        // SAFETY: an instance.
        assert_eq!(unsafe { lockstep_tick(self.lockstep, now_ms) }, LockstepResult::Ok);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: null, or an instance in memory that is still there.
        unsafe { lockstep_end(self.lockstep) };
    }
}

/// Lets two devices speak for a while.
fn speak(a: &mut Device, b: &mut Device, from_ms: u64) {
    for now_ms in (from_ms..from_ms + 2_000).step_by(50) {
        a.tick(now_ms);
        b.tick(now_ms);
        for frame in a.frames(now_ms) {
            b.hears(now_ms, a, &frame.bytes[..frame.length.into()]);
        }
        for frame in b.frames(now_ms) {
            a.hears(now_ms, b, &frame.bytes[..frame.length.into()]);
        }
    }
}

#[test]
fn data_passes_the_gate_once_a_compatible_peer_was_heard_whatever_type_the_application_chose() {
    let mut receiver = Device::started(1, "receiver", "1.0.0");
    let mut transmitter = Device::started(2, "transmitter", "1.1.0");
    for data in [&[0x01, 7][..], &[0x20, 7]] {
        assert_eq!(receiver.hears(10, &transmitter, data), LockstepGate::Dropped);
    }
    speak(&mut receiver, &mut transmitter, 20);
    for data in [&[0x01, 7][..], &[0x20, 7]] {
        assert_eq!(receiver.hears(3_000, &transmitter, data), LockstepGate::Passes);
    }
    // Not looked at, so nobody knows whose it is; what passed before says nothing of it.
    assert_eq!(receiver.hears(3_000, &transmitter, &[0x01, 7]), LockstepGate::Passes);
    assert_eq!(receiver.hears(3_000, &transmitter, &[0x01; 251]), LockstepGate::Dropped);
    for of_later_versions in [0x13, 0x45, 0x6F] {
        assert_eq!(receiver.hears(3_000, &transmitter, &[of_later_versions]), LockstepGate::Ours);
    }
    let mut peer = MaybeUninit::uninit();
    // SAFETY: an instance, and a place for a peer, which is one after `Ok`.
    let peer: LockstepPeer = unsafe {
        assert_eq!(lockstep_peer(receiver.lockstep, 0, peer.as_mut_ptr()), LockstepResult::Ok);
        peer.assume_init()
    };
    assert_eq!((peer.id, peer.version, peer.is_compatible), (transmitter.setup.id, 10_100, true));
    assert_eq!(peer.warning[0], 0);
}

#[test]
fn a_peer_that_is_too_old_is_named_with_what_it_needs() {
    let mut receiver = Device::started(1, "receiver", "1.0.0");
    let mut old = Device::started(2, "transmitter", "0.9.0");
    speak(&mut receiver, &mut old, 20);
    assert_eq!(receiver.hears(3_000, &old, &[0x01, 7]), LockstepGate::Dropped);
    let mut peer = MaybeUninit::uninit();
    // SAFETY: an instance, and a place for a peer, which is one after `Ok`.
    let peer: LockstepPeer = unsafe {
        assert_eq!(lockstep_peer(receiver.lockstep, 0, peer.as_mut_ptr()), LockstepResult::Ok);
        peer.assume_init()
    };
    let warning = CStr::from_bytes_until_nul(&peer.warning).unwrap().to_str().unwrap();
    assert_eq!(warning, "the peer runs 0.9.0, this device needs it at 1.0.0 or newer");
}

#[test]
fn what_is_sent_goes_out_and_lockstep_s_own_types_are_not_the_application_s() {
    let mut device = Device::started(1, "transmitter", "1.0.0");
    device.tick(10);
    device.frames(10);
    let mut due = 0;
    // SAFETY: an instance, and as many bytes as are said.
    unsafe {
        let send = |bytes: &[u8]| lockstep_send(device.lockstep, bytes.as_ptr(), bytes.len());
        for own in [0x10, 0x13, 0x40, 0x4F, 0x6F] {
            assert_eq!(send(&[own, 1]), LockstepResult::ErrorValue);
        }
        assert_eq!(send(&[]), LockstepResult::ErrorLength);
        assert_eq!(send(&[0x20; 251]), LockstepResult::ErrorLength);
        assert_eq!(send(&[0x20, 5]), LockstepResult::Ok);
        assert_eq!(lockstep_next_wake(device.lockstep, &mut due), LockstepResult::Ok);
    }
    assert!(due <= 10, "{due}");
    device.tick(11);
    let frames = device.frames(11);
    assert!(frames.iter().any(|frame| frame.bytes[..usize::from(frame.length)] == [0x20, 5]));
}

#[test]
fn nothing_is_started_with_what_is_missing_or_wrong() {
    let mut device = Device::new(1, "receiver", "1.0.0");
    let whole = device.setup;
    let refuses = |device: &mut Device, change: fn(&mut LockstepSetup), part: &str| {
        device.setup = whole;
        change(&mut device.setup);
        let result = device.start();
        assert!(device.lockstep.is_null());
        let text = device.port.log.pop().unwrap_or_default();
        assert!(text.contains(part), "`{part}` is not in `{text}`");
        result
    };
    let setup = LockstepResult::ErrorSetup;
    assert_eq!(refuses(&mut device, |setup| setup.running_slot = 2, "`running_slot` is 2"), setup);
    assert_eq!(refuses(&mut device, |setup| setup.rollback = 9, "`rollback` is 9"), setup);
    assert_eq!(refuses(&mut device, |setup| setup.duty = -1, "`duty` is -1"), setup);
    assert_eq!(refuses(&mut device, |setup| setup.channel_first = 15, "channels are 15"), setup);
    let without_key = |setup: &mut LockstepSetup| {
        setup.duty = LockstepDuty::Lead as i32;
        setup.group_key = ptr::null();
    };
    assert_eq!(refuses(&mut device, without_key, "a lead needs one"), setup);
    let boot = LockstepResult::ErrorBoot;
    assert_eq!(refuses(&mut device, |setup| setup.flash_bytes = 4096, ""), boot);
    device.setup = whole;
    device.descriptor[40] ^= 1;
    assert_eq!(device.start(), LockstepResult::ErrorDescriptor);
    device.descriptor[40] ^= 1;
    device.memory.truncate(1024);
    assert_eq!(device.start(), LockstepResult::ErrorMemory);
    device.memory.resize(LOCKSTEP_MEMORY_BYTES, 0);
    // What a member can live in is too little for a lead, who would find that out in the field.
    device.setup.duty = LockstepDuty::Lead as i32;
    assert_eq!(device.start(), LockstepResult::ErrorMemory);
    device.setup.duty = LockstepDuty::Member as i32;
    assert_eq!(device.start(), LockstepResult::Ok);
}

#[test]
fn what_is_no_instance_is_refused_by_every_call() {
    let mut device = Device::started(1, "receiver", "1.0.0");
    let ended = device.lockstep;
    // SAFETY: the memory of an instance that has ended is still there.
    unsafe {
        assert_eq!(lockstep_end(ended), LockstepResult::Ok);
        for (lockstep, expected) in [
            (ended, LockstepResult::ErrorHandle),
            (ptr::null_mut(), LockstepResult::ErrorNull),
            (ended.byte_add(1), LockstepResult::ErrorHandle),
        ] {
            let (mut frame, mut effect) = (MaybeUninit::uninit(), MaybeUninit::uninit());
            let (mut due, mut gate, bytes) = (0, LockstepGate::Ours, [0_u8; 6]);
            let place = bytes.as_ptr();
            assert_eq!(lockstep_tick(lockstep, 0), expected);
            assert_eq!(lockstep_next_wake(lockstep, &mut due), expected);
            assert_eq!(lockstep_receive(lockstep, 0, place, place, 6, &mut gate), expected);
            assert_eq!(lockstep_poll_frame(lockstep, 0, frame.as_mut_ptr()), expected);
            assert_eq!(lockstep_poll_effect(lockstep, effect.as_mut_ptr()), expected);
            assert_eq!(lockstep_set_health(lockstep, 0, true), expected);
            assert_eq!(lockstep_abort(lockstep, 0), expected);
            assert_eq!(lockstep_end(lockstep), expected);
        }
    }
    device.lockstep = ptr::null_mut();
}

#[test]
fn a_callback_that_calls_back_is_refused() {
    let mut device = Device::started(1, "receiver", "1.0.0");
    device.port.calls_back = device.lockstep;
    // SAFETY: an instance, and a C string.
    let set = unsafe { lockstep_set_password(device.lockstep, 5, c"correct horse".as_ptr()) };
    assert_eq!(set, LockstepResult::Ok);
    assert_eq!(device.port.called_back, Some(LockstepResult::ErrorBusy));
    device.port.calls_back = ptr::null_mut();
}

/// The memory is in use: were it written before that is seen, the call that runs would be lost.
#[test]
fn a_start_in_the_memory_of_a_running_call_is_refused_and_changes_nothing() {
    let mut device = Device::started(1, "receiver", "1.0.0");
    let (memory, size_bytes) = (device.memory.as_mut_ptr(), device.memory.len());
    let (setup, callbacks) = (device.setup, device.callbacks());
    device.port.starts_again = Some(Box::new(move || {
        let mut other = ptr::null_mut();
        // SAFETY: not its caller's to give away, which is what it finds out.
        unsafe { lockstep_init(memory.cast(), size_bytes, 0, &setup, &callbacks, &mut other) }
    }));
    // SAFETY: an instance, and a C string.
    let set = unsafe { lockstep_set_password(device.lockstep, 5, c"correct horse".as_ptr()) };
    assert_eq!(set, LockstepResult::Ok);
    assert_eq!(device.port.called_back, Some(LockstepResult::ErrorBusy));
    device.port.starts_again = None;
    device.tick(6);
}

#[test]
fn only_a_lead_takes_a_release_and_it_says_why_it_refuses_one() {
    let mut member = Device::started(1, "receiver", "1.0.0");
    let mut lead = Device::new(2, "receiver", "1.0.0");
    lead.make_lead();
    assert_eq!(lead.start(), LockstepResult::Ok);
    let (garbage, mut taken) = ([0x55_u8; 1024], 0);
    // SAFETY: instances, and as many bytes as are said.
    unsafe {
        let begin = lockstep_upload_begin(member.lockstep, 2048);
        assert_eq!(begin, LockstepResult::ErrorNotLead);
        assert_eq!(lockstep_upload_begin(lead.lockstep, 2048), LockstepResult::Ok);
        let bytes = garbage.as_ptr();
        let pushed = lockstep_upload_push(lead.lockstep, 5, bytes, garbage.len(), &mut taken);
        assert_eq!(pushed, LockstepResult::ErrorRefused);
    }
    assert!(lead.port.log.iter().any(|line| line.contains("bundle")), "{:?}", lead.port.log);
    member.tick(10);
}

/// One call, with whatever.
#[derive(Debug, Clone)]
enum Call {
    Tick(u64),
    NextWake,
    Receive(Vec<u8>),
    Echo,
    PollFrame,
    PollEffect,
    AnswerRest(i32),
    Health(bool),
    Pause(u32),
    Send(Vec<u8>),
    Password(String),
    Look(usize),
    Upload(u32, Vec<u8>),
    Conduct(u8),
    Restart,
}

fn any_call() -> impl Strategy<Value = Call> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..300);
    let known = proptest::sample::select(&[0x01_u8, 0x10, 0x12, 0x20, 0x40, 0x50, 0x52, 0x60]);
    let frame = (known, bytes()).prop_map(|(first, mut bytes)| {
        bytes.insert(0, first);
        bytes
    });
    prop_oneof![
        4 => (0_u64..5_000).prop_map(Call::Tick),
        1 => Just(Call::NextWake),
        4 => frame.prop_map(Call::Receive),
        2 => Just(Call::Echo),
        3 => Just(Call::PollFrame),
        2 => Just(Call::PollEffect),
        1 => (-2..5).prop_map(Call::AnswerRest),
        1 => any::<bool>().prop_map(Call::Health),
        1 => any::<u32>().prop_map(Call::Pause),
        1 => bytes().prop_map(Call::Send),
        1 => ".{0,70}".prop_map(Call::Password),
        1 => (0_usize..70).prop_map(Call::Look),
        1 => (any::<u32>(), bytes()).prop_map(|(size, bytes)| Call::Upload(size, bytes)),
        1 => (0_u8..3).prop_map(Call::Conduct),
        1 => Just(Call::Restart),
    ]
}

fn upload(lockstep: *mut Lockstep, now_ms: u64, size_bytes: u32, bytes: &[u8]) {
    let (place, length, mut taken) = (bytes.as_ptr(), bytes.len(), 0);
    // SAFETY: an instance, and as many bytes as are said.
    unsafe {
        let _ = lockstep_upload_begin(lockstep, size_bytes);
        let _ = lockstep_upload_push(lockstep, now_ms, place, length, &mut taken);
    }
}

/// Makes it. Whatever comes of it, it has come back.
fn call(device: &mut Device, now_ms: &mut u64, call: &Call) {
    let lockstep = device.lockstep;
    let id = [0x24_u8, 0xA1, 0x60, 0, 0, 7];
    // SAFETY: an instance, places for what comes out, and as many bytes as are said.
    unsafe {
        match call {
            Call::Tick(ms) => {
                *now_ms += ms;
                let _ = lockstep_tick(lockstep, *now_ms);
            }
            Call::NextWake => {
                let _ = lockstep_next_wake(lockstep, &mut 0);
            }
            Call::Receive(bytes) => {
                let mut gate = LockstepGate::Ours;
                let (place, length) = (bytes.as_ptr(), bytes.len());
                let _ = lockstep_receive(lockstep, *now_ms, id.as_ptr(), place, length, &mut gate);
            }
            Call::Echo => {
                let mut gate = LockstepGate::Ours;
                for frame in device.frames(*now_ms) {
                    let (place, length) = (frame.bytes.as_ptr(), usize::from(frame.length));
                    let from = id.as_ptr();
                    let _ = lockstep_receive(lockstep, *now_ms, from, place, length, &mut gate);
                }
            }
            Call::PollFrame => drop(device.frames(*now_ms)),
            Call::PollEffect => {
                let mut effect = MaybeUninit::uninit();
                let _ = lockstep_poll_effect(lockstep, effect.as_mut_ptr());
            }
            Call::AnswerRest(answer) => {
                let _ = lockstep_answer_rest(lockstep, *answer);
            }
            Call::Health(is_ok) => {
                let _ = lockstep_set_health(lockstep, *now_ms, *is_ok);
            }
            Call::Pause(pause_ms) => {
                let _ = lockstep_set_pause(lockstep, *pause_ms);
            }
            Call::Send(bytes) => {
                let _ = lockstep_send(lockstep, bytes.as_ptr(), bytes.len());
            }
            Call::Password(text) => {
                let text = std::ffi::CString::new(text.replace('\0', "")).unwrap();
                let _ = lockstep_set_password(lockstep, *now_ms, text.as_ptr());
            }
            Call::Look(index) => {
                let (mut state, mut peer) = (MaybeUninit::uninit(), MaybeUninit::uninit());
                let _ = lockstep_state(lockstep, state.as_mut_ptr());
                let _ = lockstep_peer(lockstep, *index, peer.as_mut_ptr());
            }
            Call::Upload(size_bytes, bytes) => upload(lockstep, *now_ms, *size_bytes, bytes),
            Call::Conduct(which) => {
                let _ = match which {
                    0 => lockstep_abort(lockstep, *now_ms),
                    1 => lockstep_revert(lockstep, *now_ms),
                    _ => lockstep_upload_end(lockstep, *now_ms),
                };
                let password = c"correct horse".as_ptr();
                let _ = lockstep_adopt(lockstep, *now_ms, id.as_ptr(), password);
            }
            Call::Restart => {
                assert_eq!(lockstep_end(lockstep), LockstepResult::Ok);
                assert_eq!(device.start(), LockstepResult::Ok);
                *now_ms = 0;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_called_comes_back(
        is_lead: bool,
        calls in proptest::collection::vec(any_call(), 1..120),
    ) {
        let mut device = Device::new(1, "receiver", "1.0.0");
        if is_lead {
            device.make_lead();
        }
        prop_assert_eq!(device.start(), LockstepResult::Ok);
        let mut now_ms = 0;
        for it in &calls {
            call(&mut device, &mut now_ms, it);
        }
        let mut memory = MaybeUninit::uninit();
        // SAFETY: an instance, and a place for what comes out, which is there after `Ok`.
        let memory: LockstepMemory = unsafe {
            let result = lockstep_memory(device.lockstep, memory.as_mut_ptr());
            prop_assert_eq!(result, LockstepResult::Ok);
            memory.assume_init()
        };
        prop_assert!(memory.peak_bytes <= memory.size_bytes);
        prop_assert!(memory.used_bytes <= memory.peak_bytes);
    }
}
