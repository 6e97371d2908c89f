"""What the firmware calls in the ROM of the chip.

Each entry of the ROM is an instruction that the processor does not know, at which `chip` calls the
function of that name here. What is called all the time is machine code instead; it is

    memcpy:  mv t0,a0; beqz a2,2f; 1: lbu t1,0(a1); sb t1,0(t0); addi a1,a1,1; addi t0,t0,1;
             addi a2,a2,-1; bnez a2,1b; 2: ret

and the like for memset, memcmp and memmove, each in 64 bytes.
"""

import hashlib

SECTOR_BYTES, BLOCK_BYTES = 4096, 65536

NATIVE = bytes.fromhex(
    "aa8209ca03c3050023806200850585027d166dfa828013000000130000001300000013000000130000001300"
    "0000130000001300000013000000130000000100aa8211c62380b20085027d1665fe82801300000013000000"
    "1300000013000000130000001300000013000000130000001300000013000000130000001300000019ca8342"
    "050003c3050063986200050585057d167df60145828033856240828013000000130000001300000013000000"
    "13000000130000001300000013000000aa821dc6636eb500b295b302c500fd15fd1203c30500238062007d16"
    "6dfa828003c3050023806200850585027d166dfa82801300000013000000130000000100"
)
# Where each begins in it.
NATIVE_AT = {"memcpy": 0x00, "memset": 0x40, "memcmp": 0x80, "bcmp": 0x80, "memmove": 0xC0}

# Their effects do not show here: clocks, regulators, caches, and a console that is never full.
WITHOUT_EFFECT = {
    "Cache_Invalidate_ICache_All",
    "esp_rom_regi2c_read",
    "esp_rom_spiflash_unlock",
    "ets_delay_us",
    "ets_get_printf_channel",
    "ets_update_cpu_frequency",
    "rom_i2c_writeReg",
    "uart_tx_flush",
}


def signed(value):
    return value - (1 << 64) if value >> 63 else value


class Rom:
    """The functions; `chip` gives arguments and memory."""

    def __init__(self, chip):
        self.chip, self.md5 = chip, None

    def call(self, name):
        """Returns what the function returns, or None if it returns nothing."""
        function = getattr(self, name, None)
        if function is not None:
            return function(*(self.chip.argument(number) for number in range(4)))
        if name not in WITHOUT_EFFECT:
            self.chip.say(f"ROM function `{name}` is not here, and did nothing")
        return 0

    def wide(self, value):
        self.chip.set_second_result(value >> 32 & 0xFFFFFFFF)
        return value & 0xFFFFFFFF

    # 64 bit arithmetic of libgcc

    def __getattr__(self, name):
        wide = WIDE.get(name)
        if wide is None:
            raise AttributeError(name)
        return lambda a, b, c, d: self.wide(wide(a | b << 32, c | d << 32))

    # Flash

    def esp_rom_spiflash_read(self, offset, into, length, _):
        self.chip.write_memory(into, self.chip.flash[offset : offset + length])
        return 0

    def esp_rom_spiflash_write(self, offset, source, length, _):
        old = self.chip.flash[offset : offset + length]
        new = self.chip.read_memory(source, length)
        # A write clears bits, and sets none.
        self.chip.store(offset, bytes(was & now for was, now in zip(old, new)))
        return 0

    def esp_rom_spiflash_erase_sector(self, sector, *_):
        self.chip.store(sector * SECTOR_BYTES, b"\xff" * SECTOR_BYTES)
        return 0

    def esp_rom_spiflash_erase_block(self, block, *_):
        self.chip.store(block * BLOCK_BYTES, b"\xff" * BLOCK_BYTES)
        return 0

    # Others

    def esp_rom_md5_init(self, *_):
        self.md5 = hashlib.md5()

    def esp_rom_md5_update(self, _, source, length, __):
        self.md5.update(self.chip.read_memory(source, length))

    def esp_rom_md5_final(self, into, *_):
        self.chip.write_memory(into, self.md5.digest())

    def rtc_get_reset_reason(self, *_):
        return self.chip.reset_reason

    def software_reset(self, *_):
        self.chip.reset(self.chip.SOFTWARE)

    def software_reset_cpu(self, *_):
        self.chip.reset(self.chip.SOFTWARE)

    def uart_tx_one_char(self, letter, *_):
        self.chip.uarts[0].send(bytes([letter & 0xFF]))
        return 0


def divided(a, b):
    a, b = signed(a), signed(b)
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def rest(a, b):
    return signed(a) - divided(a, b) * signed(b)


WIDE = {
    "__udivdi3": lambda a, b: a // b,
    "__umoddi3": lambda a, b: a % b,
    "__divdi3": divided,
    "__moddi3": rest,
    "__muldi3": lambda a, b: a * b,
    "__ashldi3": lambda a, by: a << (by & 63),
    "__lshrdi3": lambda a, by: a >> (by & 63),
    "__ashrdi3": lambda a, by: signed(a) >> (by & 63),
}
