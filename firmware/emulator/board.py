"""Runs bench firmware without a board: an ESP32-C3 from reset to reset, its flash a file.

    python board.py FLASH --elf FIRMWARE.elf --console PORT --wire PORT

FLASH is what `lockstep image merge` makes. The console (UART0) is printed, and is a TCP server on
loopback as well, for orders; the wire (UART1) is one, which a desk device connects to with
`--link tcp:127.0.0.1:PORT`. Needs the packages `unicorn` and `pyelftools` of PyPI.
"""

import argparse
import socket
import sys

import bootloader
from chip import Chip, Fault


class Tcp:
    """The other end of a UART: a server for one peer at a time. What nobody takes is gone, as on a
    wire."""

    def __init__(self, port, shows=False):
        self.server = socket.create_server(("127.0.0.1", port))
        self.server.setblocking(False)
        self.peer, self.shows = None, shows

    def connected(self):
        if self.peer is None:
            try:
                self.peer, _ = self.server.accept()
                self.peer.setblocking(False)
                self.peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except BlockingIOError:
                pass
        return self.peer is not None

    def send(self, data):
        if self.shows:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if self.connected():
            try:
                self.peer.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.peer = None

    def receive(self, limit):
        if not self.connected():
            return b""
        try:
            data = self.peer.recv(limit)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.peer = None
        return data


def main():
    parser = argparse.ArgumentParser(description="An ESP32-C3 without a radio, from reset to reset")
    parser.add_argument("flash", help="the file that is its flash, of 4 MiB")
    parser.add_argument("--elf", required=True, help="any build of the firmware: it names the ROM")
    parser.add_argument("--console", type=int, required=True, help="TCP port of UART0")
    parser.add_argument("--wire", type=int, required=True, help="TCP port of UART1")
    parser.add_argument("--mac", default="24:a1:60:00:01:01", help="its address")
    parser.add_argument("--no-rollback", action="store_true", help="the bootloader has none")
    options = parser.parse_args()
    lines = [Tcp(options.console, shows=True), Tcp(options.wire)]
    mac = bytes.fromhex(options.mac.replace(":", ""))
    say = lambda text: print(f"emulator: {text}", flush=True)

    with open(options.flash, "r+b") as file:
        flash = bytearray(file.read())

        def store(offset, data):
            file.seek(offset)
            file.write(data)
            file.flush()

        reason = Chip.POWER_ON
        while True:
            booted = bootloader.boot(flash, not options.no_rollback, say)
            store(0, flash)
            if booted is None:
                return "nothing boots"
            chip = Chip(flash, store, options.elf, booted[1], mac, lines, reason, say)
            try:
                reason = chip.run()
            except Fault as fault:
                return str(fault)
            say(f"reset, reason {reason}")


if __name__ == "__main__":
    sys.exit(main())
