"""The ROM of a chip without a chip: esp32-mock-bootloader on a pseudo terminal.

Its flash is a file, so that what was written is there when the process is killed, and so that a
test can look at it. usage: rom.py CHIP FLASH PORT; the terminal's name is written to PORT.
"""

import mmap
import os
import sys

from esp32_mock_bootloader import server

chip, flash, port = sys.argv[1:]
image = server.FlashImage()
with open(flash, "r+b") as file:
    image.data = mmap.mmap(file.fileno(), 0)
server._persistent_flash = image
# As a chip that is reset when it has been written; else the stand-in waits, and forgets what it
# was told in the middle of the next command.
server._FLASH_END_IDLE_SEC = 0
write = server._write_serial_endpoint


def write_whole(place, endpoint):
    """Under its final name the file is complete."""
    write(place + ".partial", endpoint)
    os.rename(place + ".partial", place)


server._write_serial_endpoint = write_whole
server.run_pty_server(None, port, chip)
