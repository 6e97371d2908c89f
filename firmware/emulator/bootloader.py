"""What the second stage bootloader of ESP-IDF does with otadata, with or without app rollback.

Written from ESP-IDF's own rules and not from Lockstep's code, so that the two can disagree.
"""

import hashlib
import struct
import zlib

SECTOR_BYTES = 4096
TABLE_OFFSET = 0x8000
ENTRY_BYTES = 32
ERASED = 0xFFFFFFFF
NEW, PENDING_VERIFY, VALID, INVALID, ABORTED = range(5)


class Entry:
    """One of the two entries of otadata: sequence, label, state, CRC of the sequence."""

    def __init__(self, flash, offset):
        self.offset = offset
        self.sequence, self.state, self.crc = struct.unpack_from("<I20xII", flash, offset)

    def counts(self):
        whole = self.sequence != ERASED and self.crc == crc_of(self.sequence)
        return whole and self.state not in (INVALID, ABORTED)

    def write(self, flash, state):
        self.state, self.crc = state, crc_of(self.sequence)
        entry = struct.pack("<I20sII", self.sequence, b"\xff" * 20, state, self.crc)
        sector = entry + b"\xff" * (SECTOR_BYTES - len(entry))
        flash[self.offset : self.offset + SECTOR_BYTES] = sector


def crc_of(sequence):
    return zlib.crc32(struct.pack("<I", sequence), 0xFFFFFFFF)


def partitions(flash):
    """Where otadata is, and where the slots are, `ota_0` first."""
    otadata, slots = None, {}
    for row in range(TABLE_OFFSET, TABLE_OFFSET + 0xC00, 32):
        magic, kind, subtype, offset, _ = struct.unpack_from("<HBBII", flash, row)
        if magic != 0x50AA:
            break
        if (kind, subtype) == (1, 0):
            otadata = offset
        if kind == 0 and 0x10 <= subtype < 0x20:
            slots[subtype] = offset
    return otadata, [slots[subtype] for subtype in sorted(slots)]


def is_image(flash, offset):
    """Whether a whole image begins there, by the hash that is appended to it."""
    if flash[offset] != 0xE9:
        return False
    at = offset + 24
    for _ in range(flash[offset + 1]):
        (length,) = struct.unpack_from("<I", flash, at + 4)
        at += 8 + length
        if at >= len(flash):
            return False
    end = offset + (at - offset) // 16 * 16 + 16
    return hashlib.sha256(flash[offset:end]).digest() == bytes(flash[end : end + 32])


def boot(flash, rollback, say):
    """Chooses the slot that is booted, and writes to otadata what the choice needs.

    Returns its number and its offset, or None when there is nothing to boot.
    """
    otadata, slots = partitions(flash)
    entries = [Entry(flash, otadata + SECTOR_BYTES * number) for number in range(2)]
    for number, entry in enumerate(entries):
        if rollback and entry.counts() and entry.state == PENDING_VERIFY:
            say(f"entry {number} was on trial and was reset: ABORTED")
            entry.write(flash, ABORTED)
    good = [entry for entry in entries if entry.counts()]
    if good:
        chosen = max(good, key=lambda entry: entry.sequence)
        slot = (chosen.sequence - 1) % len(slots)
        if rollback and chosen.state == NEW:
            say(f"ota_{slot} is on trial: PENDING_VERIFY")
            chosen.write(flash, PENDING_VERIFY)
    else:
        slot = 0
        if all(entry.sequence == ERASED for entry in entries):
            say("otadata is empty: ota_0")
            entries[0].sequence = 1
            entries[0].write(flash, VALID)
    for number in [slot] + [other for other in range(len(slots)) if other != slot]:
        if is_image(flash, slots[number]):
            say(f"boots ota_{number}")
            return number, slots[number]
        say(f"ota_{number} holds no image")
    return None
