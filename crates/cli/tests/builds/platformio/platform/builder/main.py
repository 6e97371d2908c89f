"""Builds as espressif32 does, up to the .bin: that is a given file, `images/ENVIRONMENT.bin`."""

import os
import shutil

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
env.Replace(PROGNAME="firmware", PROGSUFFIX=".elf")
env.Replace(AR="ar", RANLIB="ranlib", CC="cc", CXX="c++", LINK="c++")
elf = env.BuildProgram()


def to_bin(target, source, env):
    image = os.path.join(env.subst("$PROJECT_DIR"), "images", env["PIOENV"] + ".bin")
    shutil.copyfile(image, str(target[0]))


image = env.Command("$BUILD_DIR/${PROGNAME}.bin", elf, env.VerboseAction(to_bin, "Building $TARGET"))
env.AlwaysBuild(image)
Default(env.Alias("buildprog", image))
