"""Puts what a build made into a folder of releases, for PlatformIO and ESP-IDF.

The folder is the original plan's: `receiver/receiver_v1.0.0_20260203_143022.bin`,
`receiver/receiver_latest.bin`, `receiver/manifest.json`, and above them `system_manifest.json`,
which names the newest set of images that belong together. `lockstep publish` and `lockstep release
create` read it.

One file without dependencies, for Python 3.7 and newer. PlatformIO runs it as an extra script,
CMake (`lockstep.cmake`) and people as a program. How to use it: docs/platformio.md, docs/idf.md.

What it promises: a file in the folder is whole or not there; two builds at once do not mix; nothing
that a manifest names is deleted. It never signs, and never sees a password.
"""

import argparse
import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone


class Refused(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, what, hint):
        super().__init__(what)
        self.hint = hint


class Options:
    """What the project says of its releases.

    Names are those in `platformio.ini`, without `custom_lockstep_`.
    """

    NAMES = {
        "output": None,
        "role": None,
        "roles": "receiver, transmitter",
        "header": None,
        "version": None,
        "protocol": None,
        "min_compatible": None,
        "hardware": None,
        "keep": "10",
        "url": "",
        "description": "",
        "order": "receiver, transmitter",
        "reboot_delay": "5",
        "health_timeout": "30",
        "publish": None,
        "publish_required": "no",
        "key": "",
        "unsigned": "no",
        "lead": None,
        "token_file": None,
        "key_password_file": None,
        "command": "lockstep",
    }

    def __init__(self, project, said):
        unknown = sorted(set(said) - set(self.NAMES))
        if unknown:
            raise Refused(
                "`custom_lockstep_%s` is no option" % unknown[0],
                "There are: %s." % ", ".join("custom_lockstep_" + name for name in self.NAMES),
            )
        self.project = project
        # What the build system calls the board, where nobody says better.
        self.board = ""
        for name, default in self.NAMES.items():
            value = said.get(name, default)
            setattr(self, name, value.strip() if isinstance(value, str) else value)
        if not self.output:
            raise Refused(
                "no folder for releases is named",
                "Say where they go: custom_lockstep_output = C:\\OTA_Firmware",
            )
        self.output = self.path(self.output)
        self.roles = [plain_name(role) for role in listed(self.roles)]
        self.keep = whole("custom_lockstep_keep", self.keep, 1, KEEP_MAX)
        self.reboot_delay = whole("custom_lockstep_reboot_delay", self.reboot_delay, 0, SECONDS_MAX)
        timeout = self.health_timeout
        self.health_timeout = whole("custom_lockstep_health_timeout", timeout, 1, SECONDS_MAX)
        self.publish_required = switch("publish_required", self.publish_required)
        self.unsigned = switch("unsigned", self.unsigned)
        self.order = [] if self.order == "together" else listed(self.order)
        if self.order and sorted(self.order) != sorted(self.roles):
            raise Refused(
                "custom_lockstep_order names %s, custom_lockstep_roles %s"
                % (", ".join(self.order), ", ".join(self.roles)),
                "An order names every role once; `together` is none.",
            )

    def path(self, text):
        """A path of the project's, as this machine writes it."""
        return os.path.normpath(os.path.join(self.project, os.path.expanduser(text)))


# What the firmware is: from flags, from a header.


def definitions_of(flags):
    """Definitions of the preprocessor, in any form that SCons, CMake and people write them in."""
    known = {}
    for flag in flags or []:
        if isinstance(flag, dict):
            known.update({name: plain_value(value) for name, value in flag.items()})
        elif isinstance(flag, (tuple, list)):
            known[str(flag[0]).strip()] = plain_value(flag[1] if len(flag) > 1 else "1")
        else:
            text = re.sub(r"^-D\s*", "", str(flag).strip())
            name, equals, value = text.partition("=")
            known[name.strip()] = plain_value(value if equals else "1")
    known.pop("", None)
    return known


def plain_value(value):
    """`"1.0.0"` and `\\"1.0.0\\"` and `'"1.0.0"'` are 1.0.0."""
    text = "1" if value is None else str(value)
    text = text.replace("\\", "").strip()
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    return text


def read_header(path, known):
    """Adds a header's definitions to `known`; what flags define stays as it is.

    `#ifdef`, `#ifndef`, `#if defined(…)` and their else are followed; what stands under any other
    condition is passed over.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        text = re.sub(r"/\*.*?\*/", " ", file.read(), flags=re.S)
    found = dict(known)
    # For each open condition: whether it holds now, and whether any of its branches has held.
    stack = []
    for line in text.splitlines():
        line = re.sub(r"//.*", "", line).strip()
        match = re.match(r"#\s*(\w+)\s*(.*)", line)
        if not match:
            continue
        word, rest = match.groups()
        if word in ("if", "ifdef", "ifndef"):
            holds = condition(word, rest, found)
            stack.append([holds, holds])
        elif word == "elif" and stack:
            holds = not stack[-1][1] and condition("if", rest, found)
            stack[-1] = [holds, stack[-1][1] or holds]
        elif word == "else" and stack:
            stack[-1] = [not stack[-1][1], True]
        elif word == "endif" and stack:
            stack.pop()
        elif word == "define" and all(holds for holds, _ in stack):
            parts = rest.split(None, 1)
            if parts and "(" not in parts[0]:
                found.setdefault(parts[0], plain_value(parts[1] if len(parts) > 1 else "1"))
    return found


def condition(word, rest, known):
    if word == "ifdef":
        return rest in known
    if word == "ifndef":
        return rest not in known
    match = re.match(r"^(!?)\s*defined\s*\(?\s*(\w+)\s*\)?$", rest.strip())
    return bool(match) and (match.group(2) in known) != bool(match.group(1))


class Firmware:
    """What a build is: its role, its version, what it talks to."""

    def __init__(self, known, options, header):
        self.role = plain_name(options.role or role_of(known))
        if self.role not in options.roles:
            raise Refused(
                "the role is `%s`, custom_lockstep_roles names %s"
                % (self.role, ", ".join(options.roles)),
                "Name all roles of the system there, or mend custom_lockstep_role.",
            )
        self.version = version_of(known, options, header)
        self.number = number_of(self.version)
        protocol = options.protocol or known.get("PROTOCOL_VERSION", "1")
        self.protocol = whole("PROTOCOL_VERSION", protocol, 0, 255)
        minimum = options.min_compatible or known.get("MIN_COMPATIBLE_VERSION", "0")
        self.minimum = text_of(minimum)
        self.hardware = options.hardware or known.get("DEVICE_NAME") or options.board
        said = known.get("FW_VERSION_STRING", self.text)
        if said != self.text:
            warn(
                "FW_VERSION_STRING says %s, the version is %s: old firmware shows the former"
                % (said, self.text)
            )

    @property
    def text(self):
        return "%d.%d.%d" % self.version


def role_of(known):
    has = {"receiver": "RECEIVER_DEVICE" in known, "transmitter": "TRANSMITTER_DEVICE" in known}
    roles = [role for role, is_it in has.items() if is_it]
    if len(roles) == 1:
        return roles[0]
    what = "both RECEIVER_DEVICE and TRANSMITTER_DEVICE are" if roles else "no role is"
    raise Refused(
        what + " defined",
        "Define one of them (-D RECEIVER_DEVICE), or say custom_lockstep_role = receiver",
    )


def version_of(known, options, header):
    if options.version:
        return parsed(options.version, "custom_lockstep_version")
    names = ["FW_VERSION_MAJOR", "FW_VERSION_MINOR", "FW_VERSION_PATCH"]
    missing = [name for name in names if name not in known]
    if missing:
        where = "neither in the build flags nor in `%s`" % header if header else "in no build flag"
        raise Refused(
            "%s is defined %s" % (missing[0], where),
            "Add -D %s=0 to build_flags, or a firmware_version.h to the include path." % missing[0],
        )
    return checked([whole(name, known[name], 0, U32_MAX) for name in names])


def parsed(text, name):
    match = re.match(r"^(\d+)\.(\d+)\.(\d+)$", text)
    if not match:
        raise Refused("%s is `%s`" % (name, text), "A version is such as 1.2.0.")
    return checked([int(part) for part in match.groups()])


def checked(parts):
    """Refuses a version whose number would be another version's."""
    for name, part in zip(["minor", "patch"], parts[1:]):
        if part > PART_MAX:
            text = "%d.%d.%d" % tuple(parts)
            raise Refused(
                "the %s version of %s is %d, the limit is %d" % (name, text, part, PART_MAX),
                "Its number (MAJOR*10000 + MINOR*100 + PATCH) would be that of another version: "
                "raise the part before it.",
            )
    if number_of(parts) > U32_MAX:
        raise Refused("the version %d.%d.%d is too large" % tuple(parts), "Use a smaller major.")
    return tuple(parts)


def number_of(parts):
    return parts[0] * 10000 + parts[1] * 100 + parts[2]


def text_of(value):
    """A minimum, a number as in C or a version, as a version."""
    if "." in value:
        return "%d.%d.%d" % parsed(value, "the oldest compatible version")
    number = whole("MIN_COMPATIBLE_VERSION", value, 0, U32_MAX)
    return "%d.%d.%d" % (number // 10000, number // 100 % 100, number % 100)


def whole(name, value, smallest, largest):
    """A whole number as C writes it, within limits."""
    text = re.sub(r"[uUlL]+$", "", str(value).strip().strip("()").strip())
    try:
        number = int(text, 0)
    except ValueError:
        raise Refused("%s is `%s`" % (name, value), "It must be a whole number.") from None
    if not smallest <= number <= largest:
        possible = "From %d to %d is possible." % (smallest, largest)
        raise Refused("%s is %d" % (name, number), possible)
    return number


def plain_name(role):
    if not re.match(r"^[A-Za-z0-9_-]{1,16}$", role):
        raise Refused("`%s` is no role" % role, "1 to 16 letters, digits, `-` or `_`.")
    return role


def listed(text):
    return [part for part in re.split(r"[,\s]+", text) if part]


def listed_paths(text):
    """Paths have spaces in them: a comma or a new line ends one."""
    return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]


def switch(name, text):
    """What people and build systems write for yes and no; a word for neither is not taken for no."""
    word = text.lower()
    if word in ("yes", "true", "on", "1"):
        return True
    if word in ("no", "false", "off", "0", ""):
        return False
    raise Refused("custom_lockstep_%s is `%s`" % (name, text), "Say `yes` or `no`.")


class Image:
    """The file that was built."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = file.read()
        if len(self.bytes) < IMAGE_HEAD_BYTES or self.bytes[0] != IMAGE_MAGIC:
            raise Refused(
                "`%s` is no firmware image" % path, "It must be the .bin of the application."
            )
        chip = int.from_bytes(self.bytes[12:14], "little")
        self.chip = CHIPS.get(chip, "chip 0x%04x" % chip)
        self.md5 = hashlib.md5(self.bytes).hexdigest()
        self.sha256 = hashlib.sha256(self.bytes).hexdigest()


# The folder.


def store(image, firmware, options, now=None):
    """Puts an image in the folder, and says whether a whole set is there."""
    folder = os.path.join(options.output, firmware.role)
    os.makedirs(folder, exist_ok=True)
    with locked(options.output):
        before = read_json(os.path.join(folder, "manifest.json")) or {}
        builds = [build for build in before.get("builds", []) if is_there(folder, build)]
        newest = builds[0] if builds else {}
        same_version = newest.get("version") == firmware.text
        if same_version and newest.get("sha256") == image.sha256:
            say("%s %s is unchanged" % (firmware.role, firmware.text))
        else:
            if same_version:
                warn(
                    "%s %s was built before with other bytes. Raise FW_VERSION_PATCH: devices that "
                    "run the former take these for a different image of one version"
                    % (firmware.role, firmware.text)
                )
            builds.insert(0, copy(image, firmware, folder, now or datetime.now()))
        replace(os.path.join(folder, firmware.role + "_latest.bin"), image.bytes)
        entry = entry_of(image, firmware, options, builds[0]["file"])
        write_json(os.path.join(folder, "manifest.json"), dict(entry, builds=builds))
        is_whole = write_system(options)
        for role in options.roles:
            prune(role, options)
        return is_whole


def is_there(folder, build):
    name = build.get("file", "")
    return os.path.basename(name) == name and os.path.isfile(os.path.join(folder, name))


def copy(image, firmware, folder, now):
    """A copy with version and time in its name, which is nobody else's."""
    while True:
        moment = now.strftime("%Y%m%d_%H%M%S")
        name = "%s_v%s_%s.bin" % (firmware.role, firmware.text, moment)
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            break
        now = datetime.fromtimestamp(now.timestamp() + 1)
    replace(path, image.bytes)
    say("%s %s copied to %s" % (firmware.role, firmware.text, path))
    return {
        "version": firmware.text,
        "file": name,
        "firmware_size": len(image.bytes),
        "sha256": image.sha256,
        "built": utc_now(),
    }


def entry_of(image, firmware, options, name):
    """A device's entry, in the original plan's fields, with ours behind them."""
    return {
        "version": firmware.text,
        "version_number": firmware.number,
        "device_type": image.chip,
        "hardware": firmware.hardware or image.chip,
        "firmware_url": url_of(options, firmware.role, name),
        "firmware_size": len(image.bytes),
        "md5_checksum": image.md5,
        "protocol_version": firmware.protocol,
        "sha256": image.sha256,
        "min_compatible": firmware.minimum,
    }


def url_of(options, role, name):
    """Of a copy with its time, since `latest` may be newer than the manifest that names it."""
    base = options.url.rstrip("/")
    return "/".join(([base] if base else []) + [role, name])


def prune(role, options):
    """Deletes copies beyond the limit, but none that the system manifest names."""
    folder = os.path.join(options.output, role)
    path = os.path.join(folder, "manifest.json")
    manifest = read_json(path) or {}
    system = read_json(os.path.join(options.output, "system_manifest.json")) or {}
    named = [system.get("devices", {}).get(role, {}).get("firmware_url", "")]
    named.append((system.get("rollback") or {}).get(role + "_url", ""))
    named = {url.rpartition("/")[2] for url in named}
    kept, gone = [], []
    for index, build in enumerate(manifest.get("builds", [])):
        stays = index < options.keep or build.get("file") in named
        (kept if stays else gone).append(build)
    if not gone:
        return
    write_json(path, dict(manifest, builds=kept))
    for build in gone:
        if is_there(folder, build):
            with contextlib.suppress(OSError):
                os.remove(os.path.join(folder, build["file"]))


def write_system(options):
    """Writes the manifest above all roles, once every role has an image of one version."""
    entries = {}
    for role in options.roles:
        entry = read_json(os.path.join(options.output, role, "manifest.json"))
        if entry:
            entries[role] = {name: entry[name] for name in ENTRY_FIELDS if name in entry}
    versions = [entries.get(role, {}).get("version", "none") for role in options.roles]
    if len(set(versions)) > 1:
        has = ", ".join("%s %s" % pair for pair in zip(options.roles, versions))
        say("no release until all roles are of one version: " + has)
        return False
    version = versions[0]
    path = os.path.join(options.output, "system_manifest.json")
    before = read_json(path) or {}
    minimums = [entry.get("min_compatible", "0.0.0") for entry in entries.values()]
    system = {
        "system_version": version,
        "release_date": utc_now(),
        "min_compatible_version": max(minimums, key=as_numbers),
        "description": options.description,
        "devices": entries,
        "update_instructions": {
            "order": options.order,
            "reboot_delay_seconds": options.reboot_delay,
            "health_check_timeout_seconds": options.health_timeout,
        },
    }
    said = ("description", "devices", "update_instructions")
    if all(before.get(name) == system[name] for name in said):
        return True
    rollback = rollback_of(before, version)
    if rollback:
        system["rollback"] = rollback
    write_json(path, system)
    say("system_manifest.json is of %s" % version)
    return True


def rollback_of(before, version):
    """The release before this one; of a version that is built again, what it was before."""
    devices = before.get("devices")
    if not devices or not isinstance(devices, dict) or before.get("system_version") == version:
        return before.get("rollback")
    rollback = {"previous_version": before.get("system_version", "0.0.0")}
    for role, entry in devices.items():
        rollback[role + "_url"] = entry.get("firmware_url", "")
    return rollback


def as_numbers(version):
    try:
        return [int(part) for part in str(version).split(".")]
    except ValueError:
        raise Refused(
            "a manifest has `%s` as a version" % version, "Was it written by hand? Mend it."
        ) from None


def utc_now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_json(path):
    """What stands in a file; nothing if it is missing. What cannot be read is not written over."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Refused("`%s` cannot be read: %s" % (path, error), "Mend it, or delete it.") from None
    if not isinstance(found, dict):
        raise Refused("`%s` is no manifest" % path, "Mend it, or delete it.")
    return found


def write_json(path, value):
    replace(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8"))


def replace(path, contents):
    """The file is the old one or the new one at any time, also for who reads it meanwhile."""
    folder, name = os.path.split(path)
    handle, partial = tempfile.mkstemp(prefix=".", suffix=".partial", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        # The folder may be a web server's: what it holds is for anybody to read.
        os.chmod(partial, 0o644)
        for attempt in range(REPLACE_ATTEMPTS_MAX):
            try:
                os.replace(partial, path)
                return
            except PermissionError:
                # Windows refuses while somebody has the file open, such as a virus scanner.
                if attempt + 1 == REPLACE_ATTEMPTS_MAX:
                    raise
                time.sleep(0.2)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise Refused(
            "`%s` cannot be written: %s" % (path, error), "Does another program have it open?"
        ) from None


@contextlib.contextmanager
def locked(folder):
    """One build at a time; the system frees the lock of a build that dies."""
    path = os.path.join(folder, ".lockstep.lock")
    with open(path, "a+b") as file:
        end = time.monotonic() + LOCK_SECONDS_MAX
        while not try_lock(file):
            if time.monotonic() > end:
                raise Refused(
                    "another build has held `%s` for %d seconds" % (path, LOCK_SECONDS_MAX),
                    "Does one hang? End it, and build again.",
                )
            time.sleep(0.05)
        # Closing the file frees it.
        yield


def try_lock(file):
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Held by somebody; anything else is a file system without locks, and waiting is no help.
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


# The server.


def publish(options):
    """Calls `lockstep publish`; false if it did not succeed."""
    line = [options.command, "publish", "--watch", options.output, "--once"]
    line += ["--server", options.publish]
    keys = [options.path(key) for key in listed_paths(options.key)]
    if not keys and not options.unsigned:
        warn("not published: no key is named. custom_lockstep_key = FILE.key")
        return False
    for key in keys:
        line += ["--key", key]
    if not keys:
        line.append("--unsigned")
    if options.lead:
        line += ["--lead", options.lead]
    if options.token_file:
        line += ["--token-file", options.path(options.token_file)]
    environment = dict(os.environ)
    try:
        if options.key_password_file:
            with open(options.path(options.key_password_file), encoding="utf-8") as file:
                environment["LOCKSTEP_KEY_PASSWORD"] = file.readline().rstrip("\r\n")
    except (OSError, ValueError) as error:
        warn("not published: the file with the key's password cannot be read: %s" % error)
        return False
    try:
        ended = subprocess.run(
            line,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PUBLISH_SECONDS_MAX,
        )
    except FileNotFoundError:
        warn("not published: there is no `%s`. custom_lockstep_command = PATH" % options.command)
        return False
    except OSError as error:
        warn("not published: `%s` cannot be run: %s" % (options.command, error))
        return False
    except subprocess.TimeoutExpired:
        warn("not published: no end within %d seconds" % PUBLISH_SECONDS_MAX)
        return False
    for text in ended.stdout.decode("utf-8", "replace").splitlines():
        say(text)
    if ended.returncode:
        warn("not published: `lockstep publish` ended with %d" % ended.returncode)
    return ended.returncode == 0


def release(path, flags, headers, options):
    """Everything behind a build; the build's exit code."""
    try:
        known = definitions_of(flags)
        header = header_of(headers, options)
        if header:
            known = read_header(header, known)
        is_whole = store(Image(path), Firmware(known, options, header), options)
        if not options.publish or not is_whole or publish(options):
            return 0
        return 1 if options.publish_required else 0
    except Refused as refused:
        return report(refused)
    except OSError as error:
        return report(Refused(str(error), "Is the folder there, and may it be written?"))


def header_of(headers, options):
    if options.header:
        path = options.path(options.header)
        if not os.path.isfile(path):
            raise Refused("there is no header `%s`" % path, "Mend custom_lockstep_header.")
        return path
    return next((path for path in headers if os.path.isfile(path)), None)


def say(text):
    print("Lockstep: " + text, flush=True)


def warn(text):
    print("Lockstep: warning: " + text, file=sys.stderr, flush=True)


def report(refused):
    print("Lockstep: error: %s\nHint: %s" % (refused, refused.hint), file=sys.stderr, flush=True)
    return 1


# Who calls.


def platformio(env):
    """Behind every build of an environment that has this file among its extra scripts."""
    project = env.subst("$PROJECT_DIR")
    prefix = "custom_lockstep_"
    said = {
        name[len(prefix) :]: as_text(value)
        for name, value in env.GetProjectOptions()
        if name.startswith(prefix)
    }

    def after_build(target, source, env):
        try:
            options = Options(project, said)
        except Refused as refused:
            return report(refused)
        if "BOARD" in env:
            options.board = env.BoardConfig().get("name", "")
        flags = env.get("CPPDEFINES") or []
        return release(env.File(target[0]).abspath, flags, headers_of(env), options)

    action = env.VerboseAction(after_build, "Putting $TARGET into the folder of releases")
    env.AddPostAction("$BUILD_DIR/${PROGNAME}.bin", action)


def as_text(value):
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value)


def headers_of(env):
    """Where `firmware_version.h` may be: the include path, then libraries."""
    folders = [env.subst(str(folder)) for folder in env.get("CPPPATH") or []]
    folders += [env.subst("$PROJECT_INCLUDE_DIR"), env.subst("$PROJECT_SRC_DIR")]
    found = [os.path.join(folder, HEADER) for folder in folders]
    libraries = [env.subst(str(folder)) for folder in env.get("LIBSOURCE_DIRS") or []]
    libraries += env.GetProjectOption("lib_extra_dirs", [])
    for folder in libraries:
        for below in ["", "*", os.path.join("*", "src"), os.path.join("*", "include")]:
            found += sorted(glob.glob(os.path.join(glob.escape(folder), below, HEADER)))
    return found


def main(arguments):
    """For CMake and people."""
    parser = argparse.ArgumentParser(description="Put a firmware image into a folder of releases")
    parser.add_argument("image", help="the .bin of the application")
    parser.add_argument("--define", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--include", action="append", default=[], metavar="DIR")
    for name in Options.NAMES:
        parser.add_argument("--" + name.replace("_", "-"), metavar="VALUE")
    args = vars(parser.parse_args(arguments))
    said = {name: args[name] for name in Options.NAMES if args[name]}
    try:
        options = Options(os.getcwd(), said)
    except Refused as refused:
        return report(refused)
    # CMake hands over lists as one argument.
    flags = [flag for text in args["define"] for flag in text.split(";") if flag]
    folders = [folder for text in args["include"] for folder in text.split(";") if folder]
    headers = [os.path.join(folder, HEADER) for folder in folders]
    return release(args["image"], flags, headers, options)


HEADER = "firmware_version.h"
ENTRY_FIELDS = [
    "version",
    "version_number",
    "device_type",
    "hardware",
    "firmware_url",
    "firmware_size",
    "md5_checksum",
    "protocol_version",
    "sha256",
    "min_compatible",
]
IMAGE_MAGIC = 0xE9
IMAGE_HEAD_BYTES = 24
# As the original plan spells them; numbers from the image's header.
CHIPS = {
    0x00: "ESP32",
    0x02: "ESP32-S2",
    0x05: "ESP32-C3",
    0x09: "ESP32-S3",
    0x0C: "ESP32-C2",
    0x0D: "ESP32-C6",
    0x10: "ESP32-H2",
    0x12: "ESP32-P4",
    0x14: "ESP32-C61",
    0x17: "ESP32-C5",
}
PART_MAX = 99
U32_MAX = 2**32 - 1
KEEP_MAX = 10000
SECONDS_MAX = 86400
LOCK_SECONDS_MAX = 60
PUBLISH_SECONDS_MAX = 600
REPLACE_ATTEMPTS_MAX = 10

if "Import" in globals():
    # SCons runs this file with its own words in scope.
    Import("env")  # noqa: F821
    platformio(env)  # noqa: F821
elif __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
