"""PlatformIO: links the ready-made library of the chip that the project is for."""

import os

Import("env", "pio_lib_builder")  # noqa: F821, PlatformIO's

chip = env.BoardConfig().get("build.mcu")  # noqa: F821
folder = os.path.join(pio_lib_builder.path, "src", chip)  # noqa: F821
if not os.path.isfile(os.path.join(folder, "liblockstep_c.a")):
    raise SystemExit(
        "Lockstep has no library for %s in %s: docs/c.md says how it is built" % (chip, folder)
    )
# Not only for this library's own files: the whole program is linked with it.
DefaultEnvironment().Append(LIBPATH=[folder], LIBS=["lockstep_c"])  # noqa: F821
