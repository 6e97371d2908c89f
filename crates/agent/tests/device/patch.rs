//! A patch instead of the whole image: when it is taken, and that whatever is wrong with one costs
//! time only.

use lockstep_agent::{OFFER_LEASE_MS, PATCH_TRIES_MAX, Pace, STAGING_RESTARTS_MAX, Trace};
use lockstep_delta::encode::{self, Image};
use lockstep_delta::{Format, HEADER_BYTES, Header};
use lockstep_proto::descriptor::Descriptor;
use lockstep_proto::frame::block::Session;
use lockstep_proto::frame::order::{Offer, Order};
use lockstep_proto::frame::report::{MemberState, Readiness, Refusal};
use lockstep_proto::id::{ImageHash, Sha256};
use lockstep_proto::image::{ChipId, ImageReader};
use lockstep_proto::version::ReleaseVersion;
use lockstep_sim::firmware::FirmwareSpec;
use lockstep_sim::patches;
use sha2::Digest as _;

use crate::fixture::{
    Firmware, Release, SLOT_BYTES, SLOTS, Start, TestDevice, build, descriptor, ticket,
};

/// An image that shares most of its bytes with its other versions.
fn image(minor: u8, size_bytes: u32) -> Firmware {
    let version = ReleaseVersion::new(1, minor, 0).unwrap();
    build(&FirmwareSpec {
        size_bytes,
        build: u64::from(minor),
        stock: 7,
        ..FirmwareSpec::new(Descriptor { version, ..descriptor() }, ChipId::ESP32_S3)
    })
}

const IMAGE_BYTES: u32 = 40_000;

/// A device that is to stage what a patch makes.
struct Patched {
    device: TestDevice,
    package: Vec<u8>,
    patch: Vec<u8>,
    base: Option<ImageHash>,
}

impl Patched {
    /// It runs 1.0.0 and was ordered to stage 1.1.0, of which there is a patch.
    fn new() -> Self {
        Self::of(image(0, IMAGE_BYTES), image(1, IMAGE_BYTES), patches::patch)
    }

    fn of(old: Firmware, new: Firmware, make: impl Fn(&[u8], &[u8]) -> Vec<u8>) -> Self {
        let patch = make(&old.file, &new.file);
        let release = Release::of(new.clone());
        let mut this = Self {
            base: Some(old.hash),
            device: TestDevice::with_images(Start::Rollback, old, new),
            package: release.package(),
            patch,
        };
        this.order();
        this
    }

    fn order(&mut self) {
        let stage = Release::of(self.device.new.clone()).stage();
        self.device.order(&ticket(1, 0), &Order::Stage(stage));
    }

    fn name(&self) -> Sha256 {
        Sha256(sha2::Sha256::digest(&self.patch[..HEADER_BYTES]).into())
    }

    fn offer(&self) -> Offer {
        Offer {
            image: self.device.new.hash,
            base: self.base,
            patch: self.name(),
            size_bytes: u32::try_from(self.patch.len()).unwrap(),
        }
    }

    fn send_offer(&mut self) {
        let offer = self.offer();
        self.device.order(&ticket(1, 0), &Order::Offer(offer));
    }

    /// As a lead does it: whatever is wanted is sent, and the offer is said again and again.
    /// Returns how many times something of the patch was sent, and of the image.
    fn run(&mut self) -> Sent {
        let mut sent = Sent::default();
        for _ in 0..4_000 {
            if self.device.state() != MemberState::Staging {
                return sent;
            }
            self.step(&mut sent);
        }
        panic!("it stages for ever: {:?}", self.device.refusal());
    }

    fn step(&mut self, sent: &mut Sent) {
        self.send_offer();
        let Some(wants) = self.device.wanted() else { return self.device.pass(1) };
        let is_patch = wants.session == Session::of(&self.name().0);
        let (device, package) = (&mut self.device, &self.package);
        if wants.readiness == Readiness::Busy {
            return device.pass(1);
        }
        match (is_patch, wants.session == Session::of(&device.new.sha256().0)) {
            (true, _) => sent.patch += 1,
            (false, true) => sent.image += 1,
            (false, false) => {}
        }
        let image = device.new.file.clone();
        device.feed_some(&wants, package, if is_patch { &self.patch } else { &image });
    }

    /// Goes on until it is begun to apply the patch for the so-many-th time.
    fn run_until_applied(&mut self, times: usize) {
        for _ in 0..4_000 {
            if self.applied() == times {
                return;
            }
            self.step(&mut Sent::default());
        }
        panic!("it is not applied: {:?}", self.device.refusal());
    }

    /// How often this device has begun to apply a patch.
    fn applied(&self) -> usize {
        let patch_bytes = self.offer().size_bytes;
        self.device.traces.iter().filter(|it| **it == Trace::PatchComplete { patch_bytes }).count()
    }

    #[track_caller]
    fn assert_staged(&mut self) {
        let device = &mut self.device;
        assert_eq!(device.state(), MemberState::Staged, "{:?}", device.refusal());
        let at = SLOTS[1] as usize;
        assert!(device.flash.bytes[at..at + device.new.file.len()] == device.new.file[..]);
        assert_eq!(device.report().other, device.new.hash);
    }

    /// Another header in front of the same body, or of another one.
    fn forge(&mut self, change: impl Fn(&mut Header)) {
        let body = self.patch.split_off(HEADER_BYTES);
        let mut header = Header::decode(&self.patch).unwrap();
        change(&mut header);
        self.patch = [&header.encode()[..], &body].concat();
    }
}

/// How often blocks of what were sent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    patch: u32,
    image: u32,
}

/// As a refusal has them.
fn first4(hash: &ImageHash) -> u32 {
    u32::from_le_bytes(*hash.0.first_chunk().unwrap())
}

/// The whole image is staged, after the patch was refused for this.
#[track_caller]
fn assert_refused(mut patched: Patched, why: Refusal) -> Sent {
    let sent = patched.run();
    assert_eq!(patched.device.refusal(), Some(why));
    assert!(sent.image > 0, "{sent:?}");
    patched.assert_staged();
    sent
}

#[test]
fn what_a_patch_makes_of_the_running_image_is_staged_without_a_byte_of_the_new_one() {
    let mut patched = Patched::new();
    let sent = patched.run();
    assert_eq!((sent.image, patched.applied()), (0, 1));
    patched.assert_staged();
    patched.device.power_cycle();
    assert!(patched.device.report().observed.staged, "after a reboot as well");
}

#[test]
fn a_compressed_image_needs_no_base() {
    let full = |_: &[u8], new: &[u8]| patches::full(new);
    let mut patched = Patched::of(image(9, IMAGE_BYTES), image(1, IMAGE_BYTES), full);
    patched.base = None;
    assert_eq!(patched.run().image, 0);
    patched.assert_staged();
}

#[test]
fn a_patch_for_another_base_is_refused_with_both_hashes_before_a_byte_of_it_came() {
    let mut patched = Patched::new();
    let other = image(5, IMAGE_BYTES);
    patched.patch = patches::patch(&other.file, &patched.device.new.file);
    patched.base = Some(other.hash);
    let running = first4(&patched.device.old.hash);
    let sent = assert_refused(patched, Refusal::OtherBase { running, base: first4(&other.hash) });
    assert_eq!(sent.patch, 0);
}

/// A lead that lies in its offer is found out by the patch's header.
#[test]
fn a_patch_that_was_offered_for_this_base_and_is_for_another_is_refused_by_its_head() {
    let mut patched = Patched::new();
    let other = image(5, IMAGE_BYTES);
    patched.patch = patches::patch(&other.file, &patched.device.new.file);
    let running = first4(&patched.device.old.hash);
    let sent = assert_refused(patched, Refusal::OtherBase { running, base: first4(&other.hash) });
    assert_eq!(sent.patch, 1);
}

#[test]
fn a_patch_to_another_image_than_the_ordered_one_is_refused_by_its_head() {
    let mut patched = Patched::new();
    let (old, other) = (patched.device.old.file.clone(), image(5, IMAGE_BYTES));
    patched.patch = patches::patch(&old, &other.file);
    let (found, expected) = (first4(&other.hash), first4(&patched.device.new.hash));
    assert_refused(patched, Refusal::PatchDiffers { found, expected });
}

#[test]
fn a_patch_that_would_need_more_room_than_the_slot_has_is_refused() {
    let mut patched = Patched::new();
    let room_bytes = SLOT_BYTES - 4096;
    patched.forge(|header| header.room_bytes = room_bytes);
    let needed_bytes = room_bytes + 2 * 4096;
    assert_refused(patched, Refusal::PatchNoRoom { needed_bytes, slot_bytes: SLOT_BYTES });
}

/// Its header promises less room than it takes: it stops before it erases what it still needs.
#[test]
fn a_patch_that_would_overwrite_itself_stops_before_it_does() {
    let size_bytes = 120_000;
    let make = |old: &[u8], new: &[u8]| wasteful(old, new);
    let mut patched = Patched::of(image(0, size_bytes), image(1, size_bytes), make);
    let sent = patched.run();
    let refusal = patched.device.refusal();
    let is_said = matches!(refusal, Some(Refusal::PatchNoRoom { slot_bytes: SLOT_BYTES, .. }));
    assert!(is_said && sent.image > 0 && patched.applied() == 1, "{refusal:?} {sent:?}");
    patched.assert_staged();
}

/// A plain patch of which nearly all of the image comes at once, and of nearly all of the patch
/// nothing: so much has to stay when the image is there.
fn wasteful(old: &[u8], new: &[u8]) -> Vec<u8> {
    let number = |mut number: usize| {
        let mut bytes = Vec::new();
        while number > 0x7F {
            bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        bytes.push(number.to_le_bytes()[0]);
        bytes
    };
    let (first, step) = (new.len() - 4_096, |place: usize| 5_000 + place * 7_919 % 50_000);
    let mut stream = [number(first), vec![0; first], vec![0]].concat();
    // From the end of what was copied to and fro.
    stream.extend(number(2 * first - 1));
    for place in 0..6_000 {
        stream.extend([&[0, 0][..], &number(2 * step(place))].concat());
        stream.extend([&[0, 0][..], &number(2 * step(place) - 1)].concat());
    }
    stream.extend([number(4_096), vec![0; 4_096]].concat());
    let image = Image { bytes: &stream, id: [0; 32] };
    let body = encode::full(&image).unwrap().split_off(HEADER_BYTES);
    let id = |file: &[u8]| {
        let mut reader = ImageReader::new();
        reader.push(file).unwrap();
        reader.finish().unwrap().image_hash.0
    };
    let size = |bytes: usize| u32::try_from(bytes).unwrap();
    let header = Header {
        format: Format::Plain,
        old_bytes: size(old.len()),
        new_bytes: size(new.len()),
        stream_bytes: size(stream.len()),
        body_bytes: size(body.len()),
        room_bytes: size(new.len()),
        old: id(old),
        new: id(new),
        body_sha256: sha2::Sha256::digest(&body).into(),
    };
    [&header.encode()[..], &body].concat()
}

#[test]
fn a_patch_as_large_as_what_is_missing_of_the_image_is_not_needed() {
    let full = |_: &[u8], new: &[u8]| patches::full(new);
    let mut patched = Patched::of(image(0, 90_000), image(1, 90_000), full);
    patched.base = None;
    let (package, image) = (patched.package.clone(), patched.device.new.file.clone());
    while patched.device.report().staged_bytes < 40_000 {
        let wants = patched.device.wanted().unwrap();
        patched.device.feed_some(&wants, &package, &image);
    }
    let patch_bytes = patched.offer().size_bytes;
    patched.send_offer();
    let refusal = patched.device.refusal();
    let is_said = matches!(refusal, Some(Refusal::PatchNotNeeded { missing_bytes, .. })
        if missing_bytes <= patch_bytes);
    assert!(is_said, "{refusal:?}");
    assert_eq!(patched.run().patch, 0);
    patched.assert_staged();
}

/// What was received wrongly comes once more, and not for ever.
#[test]
fn a_body_that_is_not_the_named_one_comes_again_and_then_the_whole_image() {
    let mut patched = Patched::new();
    patched.patch[HEADER_BYTES + 40] ^= 1;
    let offset = patched.offer().size_bytes;
    let sent = assert_refused(patched, Refusal::PatchBroken { offset });
    // A head and the rest of it, each time.
    assert!(sent.patch > u32::from(STAGING_RESTARTS_MAX), "{sent:?}");
}

/// The body is what its header names, and yet makes something else.
#[test]
fn a_patch_that_makes_something_else_than_it_says_costs_the_slot_and_not_the_rollout() {
    let mut patched = Patched::new();
    let (old, other) = (patched.device.old.file.clone(), image(5, IMAGE_BYTES));
    let (to, sizes) = (patched.device.new.hash, patched.device.new.size_bytes());
    patched.patch = patches::patch(&old, &other.file);
    patched.forge(|header| (header.new, header.new_bytes) = (to.0, sizes));
    let sent = patched.run();
    let (refusal, file) = (patched.device.refusal(), patched.device.new.sha256());
    let is_said = matches!(refusal, Some(Refusal::PatchDiffers { expected, .. })
        if expected == first4(&ImageHash(file.0)));
    assert!(is_said, "{refusal:?}");
    assert!(sent.image > 0 && patched.applied() == 1);
    patched.assert_staged();
}

/// A chip that dies of a patch, for whatever reason, is not tried with it for ever.
#[test]
fn a_patch_whose_application_was_interrupted_thrice_is_not_tried_again() {
    let mut patched = Patched::new();
    for tries in 1..=PATCH_TRIES_MAX {
        patched.run_until_applied(tries.into());
        patched.device.power_cycle();
        patched.order();
    }
    let sent = patched.run();
    assert_eq!(
        patched.device.refusal(),
        Some(Refusal::PatchSpent { tries: PATCH_TRIES_MAX.into() })
    );
    assert!(sent.image > 0 && sent.patch == 0, "{sent:?}");
    assert_eq!(patched.applied(), usize::from(PATCH_TRIES_MAX));
    patched.assert_staged();
}

/// It stands in flash, and nobody has to send it again.
#[test]
fn a_patch_that_was_all_there_before_the_power_went_is_applied_without_a_block() {
    let mut patched = Patched::new();
    patched.run_until_applied(1);
    patched.device.power_cycle();
    patched.order();
    assert_eq!(patched.run(), Sent::default());
    patched.assert_staged();
}

#[test]
fn a_patch_of_which_a_part_is_in_flash_is_fetched_from_there_after_a_restart() {
    let size_bytes = 110_000;
    let full = |_: &[u8], new: &[u8]| patches::full(new);
    let mut patched = Patched::of(image(0, size_bytes), image(1, size_bytes), full);
    patched.base = None;
    let step = lockstep_agent::receiver::PROGRESS_STEP_BYTES;
    assert!(patched.offer().size_bytes > step + 4096, "{:?}", patched.offer());
    let mut sent = Sent::default();
    while patched.device.wanted().is_none_or(|wants| wants.first < 2) {
        patched.step(&mut sent);
    }
    patched.device.power_cycle();
    patched.order();
    patched.send_offer();
    patched.run();
    assert!(patched.device.saw(Trace::Resumed { done_bytes: step }), "{:?}", patched.device.traces);
    patched.assert_staged();
}

/// The lead has restarted without it, or another leads.
#[test]
fn a_patch_that_nobody_offers_any_more_is_not_waited_for() {
    let mut patched = Patched::new();
    let mut sent = Sent::default();
    while sent.patch == 0 {
        patched.step(&mut sent);
    }
    patched.device.pass(OFFER_LEASE_MS - 1);
    let session = Session::of(&patched.name().0);
    assert_eq!(patched.device.wanted().map(|wants| wants.session), Some(session));
    let at = patched.device.now + 1;
    assert!(patched.device.next_wake().is_some_and(|wake| wake <= at), "it wakes to see that");
    patched.device.pass(1);
    assert!(patched.device.saw(Trace::PatchLost));
    let image = Session::of(&patched.device.new.sha256().0);
    assert_eq!(patched.device.wanted().map(|wants| wants.session), Some(image));
    let (package, file) = (patched.package.clone(), patched.device.new.file.clone());
    patched.device.feed(&package, &file);
    patched.assert_staged();
}

#[test]
fn an_offer_for_what_was_not_ordered_is_refused() {
    let mut patched = Patched::new();
    let offer = Offer { image: ImageHash([9; 32]), ..patched.offer() };
    patched.device.assert_refused(&ticket(1, 0), &Order::Offer(offer), Refusal::NotStaged);
}

/// Whoever has staged needs none.
#[test]
fn an_offer_to_who_has_staged_changes_nothing() {
    let mut patched = Patched::new();
    patched.run();
    let flash = patched.device.flash.bytes.clone();
    patched.send_offer();
    assert!(patched.device.flash.bytes == flash && patched.device.refusal().is_none());
    patched.assert_staged();
}

/// A device at work gives the flash little time; that is no other way through the patch.
#[test]
fn a_device_at_work_makes_the_same_image_in_smaller_steps() {
    let mut patched = Patched::new();
    patched.device.agent().set_pace(Pace::Background { ms_between: 2 });
    patched.run();
    patched.assert_staged();
}
