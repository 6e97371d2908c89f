//! What this device knows of the others: what they run, whether their words are fresh, whether the
//! link to them carries data both ways, and whether their data may pass the gate.
//!
//! Nothing here is durable but the lead's list of members: a device that has just booted knows no
//! counters, and challenges whoever speaks to it.

use alloc::vec::Vec;

use lockstep_proto::compat::{Announced, Incompatible, Rule, check};
use lockstep_proto::frame::control::Counter;
use lockstep_proto::frame::report::View;
use lockstep_proto::id::{DeviceId, ImageHash};
use lockstep_proto::planted::{self, Bug};
use lockstep_proto::time::Instant;
use lockstep_proto::wire::{Label, Role};

/// One other device in reach.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who.
    pub id: DeviceId,
    /// Its role, once it said so with the group's key.
    pub role: Option<Role>,
    /// What its firmware announces; unauthenticated.
    pub announced: Option<Announced>,
    /// What its firmware calls itself; unauthenticated.
    pub device_type: Label<20>,
    /// First bytes of its image's hash as announced; unauthenticated.
    pub announced_image: Option<[u8; 8]>,
    /// When it booted, in milliseconds of this device's time since boot, to about a second; before
    /// that boot it is below 0. As announced; unauthenticated.
    pub booted_ms: Option<i64>,
    /// What it runs, said with the group's key.
    pub running: Option<ImageHash>,
    /// When anything of it came.
    pub heard_at: Instant,
    /// When it last answered one of our probes: the link carries data both ways.
    pub echoed_at: Option<Instant>,
    /// When it last said anything with the group's key.
    said_at: Option<Instant>,
    /// Why its data is dropped, if it is; `None` before anything was announced.
    pub gate: Option<Result<(), Incompatible>>,
    counter: Option<Counter>,
    challenge: Option<u64>,
    challenged_at: Option<Instant>,
    probes: Probes,
}

/// A sliding window over the last 16 probes: one bit each, set when an echo came.
#[derive(Debug, Clone, Copy, Default)]
struct Probes {
    sent: u16,
    echoed: u16,
}

/// What the replay guard says of an authentic frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Never seen before.
    Fresh,
    /// Seen before, or older than what was seen.
    Replayed,
    /// The sender's counter is unknown: challenge it with this nonce.
    Challenge(u64),
    /// The sender's counter is unknown, and it was challenged a moment ago.
    Waiting,
}

/// All known peers.
#[derive(Debug, Default)]
pub struct Peers {
    peers: Vec<Peer>,
    /// Frames of application data that the gate dropped.
    pub dropped: u32,
    /// Frames without this group's key, and replays.
    pub rejected: u32,
    /// Who says nothing for so long was switched off, or somewhere else.
    silence_ms: u64,
}

impl Peers {
    /// Nobody yet. After `silence_ms` without a word a peer counts as gone.
    pub(crate) fn new(silence_ms: u64) -> Self {
        Self { silence_ms, ..Self::default() }
    }

    /// Everybody in reach, in the order of their first sign of life.
    pub fn all(&self) -> &[Peer] {
        &self.peers
    }

    /// One of them.
    pub fn get(&self, id: DeviceId) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.id == id)
    }

    /// Whether it has this group's key, as far as it has shown: a board that was flashed anew is
    /// heard on, and says nothing with the key any more.
    pub(crate) fn speaks(&self, peer: &Peer) -> bool {
        let said = peer.said_at.is_some_and(|at| peer.heard_at.ms_since(at) < self.silence_ms);
        peer.role.is_some() && said
    }

    /// Takes down a sign of life. The longest silent stranger makes room when the table is full.
    pub(crate) fn heard(&mut self, now: Instant, id: DeviceId) -> Option<&mut Peer> {
        if let Some(index) = self.peers.iter().position(|peer| peer.id == id) {
            let peer = self.peers.get_mut(index)?;
            if now.ms_since(peer.heard_at) >= self.silence_ms {
                // What was sent while nobody was there says nothing of the link.
                peer.probes = Probes::default();
            }
            peer.heard_at = now;
            return Some(peer);
        }
        if self.peers.len() >= PEERS_MAX {
            let strangers = self.peers.iter().enumerate().filter(|(_, peer)| peer.role.is_none());
            let (index, _) = strangers.min_by_key(|(_, peer)| peer.heard_at)?;
            self.peers.remove(index);
        }
        self.peers.push(Peer::new(now, id));
        self.peers.last_mut()
    }

    /// Takes down an announce. Returns the gate's new answer if it changed.
    pub(crate) fn announced(
        &mut self,
        now: Instant,
        id: DeviceId,
        announced: Announced,
        mine: &Announced,
        rule: Rule,
    ) -> Option<Result<(), Incompatible>> {
        let peer = self.heard(now, id)?;
        peer.announced = Some(announced);
        let gate = Some(check(rule, mine, &announced));
        let changed = peer.gate != gate;
        peer.gate = gate;
        gate.filter(|_| changed)
    }

    /// Whether application data of this peer may pass. Counts what may not.
    pub(crate) fn passes_gate(&mut self, id: DeviceId) -> bool {
        let passes = matches!(self.get(id).and_then(|peer| peer.gate), Some(Ok(())))
            || planted::has(Bug::GateOpen);
        if !passes {
            self.dropped = self.dropped.saturating_add(1);
        }
        passes
    }

    /// Judges the counter of an authentic frame. `nonce` is used if a challenge is due.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        id: DeviceId,
        counter: Counter,
        nonce: u64,
    ) -> Freshness {
        let Some(peer) = self.heard(now, id) else { return Freshness::Replayed };
        if planted::has(Bug::ReplayTaken) {
            return Freshness::Fresh;
        }
        match peer.counter {
            Some(known) if counter > known => {
                peer.counter = Some(counter);
                // An answer that is still on its way is older than this frame, and would open the
                // door to everything in between once more.
                peer.challenge = None;
                Freshness::Fresh
            }
            // Its boot number has gone back: it lost its store, or somebody replays an old boot.
            Some(known) if counter.boot < known.boot => peer.challenge(now, nonce),
            Some(_) => {
                self.rejected = self.rejected.saturating_add(1);
                Freshness::Replayed
            }
            None => peer.challenge(now, nonce),
        }
    }

    /// The answer to a challenge: its counter becomes the sender's, if the nonce is ours. Returns
    /// whether it is.
    pub(crate) fn challenge_answered(
        &mut self,
        now: Instant,
        id: DeviceId,
        counter: Counter,
        nonce: u64,
    ) -> bool {
        let Some(peer) = self.heard(now, id) else { return false };
        let fits = peer.challenge == Some(nonce);
        if fits {
            peer.challenge = None;
            peer.counter = Some(counter);
        } else {
            self.rejected = self.rejected.saturating_add(1);
        }
        fits
    }

    /// Another group's key counts from now on: nobody has proved anything with it yet. What was
    /// announced stays.
    pub(crate) fn forget_group(&mut self) {
        for peer in &mut self.peers {
            *peer = Peer {
                announced: peer.announced,
                device_type: peer.device_type,
                announced_image: peer.announced_image,
                booted_ms: peer.booted_ms,
                gate: peer.gate,
                ..Peer::new(peer.heard_at, peer.id)
            };
        }
    }

    /// A probe goes out to all.
    pub(crate) fn note_probe(&mut self) {
        for peer in self.peers.iter_mut().filter(|peer| peer.role.is_some()) {
            peer.probes.sent = peer.probes.sent << 1 | 1;
            peer.probes.echoed <<= 1;
        }
    }

    /// A peer said with the group's key who it is and what it runs.
    pub(crate) fn note_running(
        &mut self,
        now: Instant,
        id: DeviceId,
        role: Role,
        running: ImageHash,
    ) {
        if let Some(peer) = self.heard(now, id) {
            peer.role = Some(role);
            peer.running = Some(running);
            peer.said_at = Some(now);
        }
    }

    /// A peer answered our probe.
    pub(crate) fn note_echo(&mut self, now: Instant, id: DeviceId) {
        if let Some(peer) = self.heard(now, id) {
            peer.echoed_at = Some(now);
            peer.said_at = Some(now);
            peer.probes.echoed |= 1;
        }
    }

    /// Peers of the group whose link carries data both ways now.
    pub fn linked(&self, now: Instant, fresh_ms: u64) -> impl Iterator<Item = &Peer> {
        self.peers.iter().filter(move |peer| peer.is_linked(now, fresh_ms))
    }

    /// Whether every peer of the group that was heard lately echoes, too. Silence for longer means
    /// that it is switched off or rebooting: then there is no link to judge, and the lead's view of
    /// who runs what decides.
    pub(crate) fn links_hold(&self, now: Instant, fresh_ms: u64) -> bool {
        let group = self.peers.iter().filter(|peer| peer.role.is_some());
        let mut heard = group.filter(|peer| now.ms_since(peer.heard_at) < fresh_ms);
        heard.all(|peer| peer.is_linked(now, fresh_ms))
    }

    /// Who runs what, this device included, as far as links carry data both ways.
    pub(crate) fn view(
        &self,
        now: Instant,
        fresh_ms: u64,
        me: DeviceId,
        running: ImageHash,
    ) -> View {
        let others = self.linked(now, fresh_ms);
        let mut pairs: Vec<_> = others.filter_map(|peer| Some((peer.id, peer.running?))).collect();
        pairs.push((me, running));
        pairs.sort_unstable_by_key(|(id, _)| *id);
        View::of(pairs)
    }

    /// Share of frames that the links of the group lose one way, in percent, as far as recent
    /// probes tell: 0 before there were enough of them. A probe and its echo both have to arrive,
    /// so of all probes the square of what one way lets through is echoed. Probes to whoever has
    /// been silent for long tell nothing of the links to the others.
    pub fn loss_percent(&self, now: Instant) -> u8 {
        let heard = |peer: &&Peer| now.ms_since(peer.heard_at) < self.silence_ms;
        let count = |bits: fn(&Probes) -> u16| -> u32 {
            self.peers.iter().filter(heard).map(|peer| bits(&peer.probes).count_ones()).sum()
        };
        let sent = count(|probes| probes.sent);
        let echoed = count(|probes| probes.sent & probes.echoed);
        if sent < PROBES_MIN {
            return 0;
        }
        let let_through = (echoed * 100 * 100 / sent).isqrt();
        u8::try_from(100_u32.saturating_sub(let_through)).unwrap_or(100)
    }
}

impl Peer {
    fn new(now: Instant, id: DeviceId) -> Self {
        Self {
            id,
            role: None,
            announced: None,
            device_type: Label::EMPTY,
            announced_image: None,
            booted_ms: None,
            running: None,
            heard_at: now,
            echoed_at: None,
            said_at: None,
            gate: None,
            counter: None,
            challenge: None,
            challenged_at: None,
            probes: Probes::default(),
        }
    }

    /// Whether the link to it carries data both ways now.
    pub fn is_linked(&self, now: Instant, fresh_ms: u64) -> bool {
        self.echoed_at.is_some_and(|at| now.ms_since(at) < fresh_ms)
    }

    /// It announces for how many whole seconds it is up. The earliest moment that this allows is
    /// the nearest to the truth, as long as it is the same boot.
    pub(crate) fn note_uptime(&mut self, now: Instant, uptime_s: u32) {
        let now_ms = i64::try_from(now.ms).unwrap_or(i64::MAX);
        let booted_ms = now_ms.saturating_sub(i64::from(uptime_s) * 1000);
        let is_same = |known: &i64| known.abs_diff(booted_ms) < SAME_BOOT_MS;
        self.booted_ms = Some(match self.booted_ms.filter(is_same) {
            Some(known) => known.min(booted_ms),
            None => booted_ms,
        });
    }

    /// The same nonce until it is answered: an answer may take longer than the next challenge.
    fn challenge(&mut self, now: Instant, nonce: u64) -> Freshness {
        let lately = self.challenged_at.is_some_and(|at| now.ms_since(at) < CHALLENGE_EVERY_MS);
        let nonce = *self.challenge.get_or_insert(nonce);
        if lately {
            return Freshness::Waiting;
        }
        self.challenged_at = Some(now);
        Freshness::Challenge(nonce)
    }
}

/// Peers remembered at once: a group at its largest, and some strangers.
pub const PEERS_MAX: usize = 40;
/// Fewer probes than this tell nothing: two of three are soon lost on a link that is good enough.
const PROBES_MIN: u32 = 8;
/// Two announces that put a boot so near to each other are of the same one, in milliseconds.
const SAME_BOOT_MS: u64 = 2_000;
/// One peer is challenged at most this often, in milliseconds.
const CHALLENGE_EVERY_MS: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: DeviceId = DeviceId([2, 0, 0, 0, 0, 2]);

    /// Found by a world: the answer was late, and an order that had been obeyed was so once more.
    #[test]
    fn an_answer_that_a_newer_frame_has_overtaken_does_not_set_the_counter_back() {
        let mut peers = Peers::default();
        let now = Instant::from_ms(1_000);
        let at = |boot, frame| Counter { boot, frame };
        assert_eq!(peers.judge(now, PEER, at(2, 1), 7), Freshness::Challenge(7));
        peers.challenge_answered(now, PEER, at(2, 2), 7);
        // A frame of an earlier boot is heard, and the question goes out.
        let later = Instant::from_ms(2_000);
        assert_eq!(peers.judge(later, PEER, at(1, 9), 8), Freshness::Challenge(8));
        assert_eq!(peers.judge(later, PEER, at(2, 4), 9), Freshness::Fresh);
        peers.challenge_answered(later, PEER, at(2, 3), 8);
        assert_eq!(peers.judge(later, PEER, at(2, 4), 9), Freshness::Replayed);
    }

    #[test]
    fn a_peer_that_has_lost_its_store_comes_in_again_by_a_challenge() {
        let mut peers = Peers::default();
        let now = Instant::from_ms(1_000);
        let at = |boot, frame| Counter { boot, frame };
        assert_eq!(peers.judge(now, PEER, at(5, 1), 7), Freshness::Challenge(7));
        peers.challenge_answered(now, PEER, at(5, 2), 7);
        let later = Instant::from_ms(2_000);
        assert_eq!(peers.judge(later, PEER, at(1, 1), 8), Freshness::Challenge(8));
        peers.challenge_answered(later, PEER, at(1, 2), 8);
        assert_eq!(peers.judge(later, PEER, at(1, 3), 9), Freshness::Fresh);
    }

    /// Sends so many probes, of which the last `echoed` are answered.
    fn probed(peers: &mut Peers, from_ms: u64, sent: u64, echoed: u64) {
        for number in 0..sent {
            let now = Instant::from_ms(from_ms + number * 150);
            peers.note_probe();
            if number >= sent - echoed {
                peers.note_echo(now, PEER);
            }
        }
    }

    fn peers() -> Peers {
        let mut peers = Peers::new(2_500);
        let (role, running) = (Role::new("transmitter").unwrap(), ImageHash([1; 32]));
        peers.note_running(Instant::from_ms(0), PEER, role, running);
        peers
    }

    /// A quarter of the probes comes back when half of all frames is lost each way.
    #[test]
    fn loss_is_that_of_one_way() {
        let mut peers = peers();
        probed(&mut peers, 0, 16, 4);
        assert_eq!(peers.loss_percent(Instant::from_ms(2_400)), 50);
        probed(&mut peers, 2_400, 16, 16);
        assert_eq!(peers.loss_percent(Instant::from_ms(4_800)), 0);
    }

    /// A link whose answers take longer than the pause between two challenges must open, too.
    #[test]
    fn a_late_answer_to_the_first_challenge_counts() {
        let mut peers = peers();
        let counter = Counter { boot: 3, frame: 9 };
        let judge =
            |peers: &mut Peers, ms, nonce| peers.judge(Instant::from_ms(ms), PEER, counter, nonce);
        assert_eq!(judge(&mut peers, 0, 111), Freshness::Challenge(111));
        assert_eq!(judge(&mut peers, 10, 222), Freshness::Waiting);
        assert_eq!(judge(&mut peers, 200, 333), Freshness::Challenge(111));
        peers.challenge_answered(Instant::from_ms(400), PEER, counter, 111);
        let next = Counter { frame: 10, ..counter };
        assert_eq!(peers.judge(Instant::from_ms(401), PEER, next, 444), Freshness::Fresh);
    }

    /// A device that has just been switched on must not be refused for its bad luck.
    #[test]
    fn a_few_lost_probes_tell_nothing() {
        let mut peers = peers();
        probed(&mut peers, 0, 7, 0);
        assert_eq!(peers.loss_percent(Instant::from_ms(1_050)), 0);
        probed(&mut peers, 1_050, 1, 0);
        assert_eq!(peers.loss_percent(Instant::from_ms(1_200)), 100);
    }

    /// Else a device that was off for a minute would be refused for a bad link.
    #[test]
    fn what_was_lost_while_a_peer_was_off_is_forgotten_when_it_is_back() {
        let mut peers = peers();
        probed(&mut peers, 0, 16, 0);
        assert_eq!(peers.loss_percent(Instant::from_ms(2_400)), 100);
        probed(&mut peers, 2_400, 24, 0);
        peers.heard(Instant::from_ms(6_000), PEER);
        assert_eq!(peers.loss_percent(Instant::from_ms(6_000)), 0);
    }

    /// Else one device that is gone would make every link of the others look bad.
    #[test]
    fn what_a_silent_peer_does_not_answer_is_no_loss_of_the_others() {
        let mut peers = peers();
        probed(&mut peers, 0, 16, 0);
        assert_eq!(peers.loss_percent(Instant::from_ms(2_499)), 100);
        assert_eq!(peers.loss_percent(Instant::from_ms(2_500)), 0);
    }
}
