"""A platform of PlatformIO that needs nothing from its registry."""

from platformio.public import PlatformBase


class StandinPlatform(PlatformBase):
    pass
