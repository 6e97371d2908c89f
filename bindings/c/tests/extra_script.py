"""Runs PlatformIO's script of the package as PlatformIO would: FOLDER CHIP. Prints what it adds."""

import os
import sys

folder, chip = sys.argv[1:]
added = {}


class Env:
    def BoardConfig(self):
        return {"build.mcu": chip}

    def Append(self, **settings):
        added.update(settings)


class Builder:
    path = folder


names = {"env": Env(), "pio_lib_builder": Builder()}
names["Import"] = lambda *wanted: [names[name] for name in wanted]
names["DefaultEnvironment"] = Env
with open(os.path.join(folder, "extra_script.py")) as script:
    exec(compile(script.read(), "extra_script.py", "exec"), names)
print(added["LIBPATH"][0], added["LIBS"][0])
