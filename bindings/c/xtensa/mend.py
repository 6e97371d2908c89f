#!/usr/bin/env python3
"""Mends what LLVM 22 does wrong for Xtensa, on the way from bitcode to an object.

    mend.py divisions IN.ll OUT.ll      functions over 128 bits get the signature that LLVM calls
    mend.py compile IN.bc OUT.s ATTRS   assembly, by llc; what it cannot compile is changed first
    mend.py literals IN.s OUT.s         literals where an instruction reaches them

Experimental: it is for a check in CI, and for whoever has no espup.
"""

import re
import subprocess
import sys

LLVM = "/usr/lib/llvm-22/bin/"


def divisions(source):
    """rustc passes the second number of `__udivti3` and its like by reference; LLVM, which calls
    them by itself, in registers and on the stack. Theirs is the call, so theirs is the signature."""
    pattern = re.compile(
        r"^(?P<head>define [^\n]*@__(?:u?div|u?mod|mul)ti3)\(i128 noundef (?P<first>%\w+), "
        r"ptr noalias noundef byval\(\[16 x i8\]\) align 8 captures\(address\)"
        r"(?: dereferenceable\(16\))? %(?P<second>\w+)\)(?P<tail>[^\n]*)\{\n(?P<label>\w+):[^\n]*\n",
        re.MULTILINE,
    )

    def by_value(found):
        return (
            "{head}(i128 noundef {first}, i128 noundef %whole){tail}{{\n{label}:\n"
            "  %{second} = alloca i128, align 8\n  store i128 %whole, ptr %{second}, align 8\n"
        ).format(**found.groupdict())

    text, count = pattern.subn(by_value, source)
    print("divisions: %d functions" % count)
    if count == 0:
        sys.exit("divisions: rustc writes them otherwise than this was made for; mend this first")
    return text


def compile_bitcode(bitcode, assembly, attributes):
    """llc keeps no register free for a frame of 256 to 2047 bytes, and may need one. A larger frame
    has one: the function that it names gets 2 KiB more, and llc is asked again."""
    text = subprocess.run(
        [LLVM + "llvm-dis", bitcode, "-o", "-"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    widened = []
    source = bitcode
    while True:
        options = ["-O2", "-mattr=" + attributes, "--function-sections", "--data-sections"]
        done = subprocess.run(
            [LLVM + "llc", *options, source, "-o", assembly], capture_output=True, text=True
        )
        if done.returncode == 0:
            break
        found = re.search(r"on function '@(.+)'", done.stderr)
        if not found or "Cannot scavenge register" not in done.stderr or found[1] in widened:
            sys.exit(done.stderr)
        widened.append(found[1])
        widen(text, found[1])
        source = assembly + ".wide.ll"
        with open(source, "w") as file:
            file.write("\n".join(text))
    print("compile: %d functions with a larger frame" % len(widened))


def widen(lines, name):
    names = (" @%s(" % name, ' @"%s"(' % name)
    for index, line in enumerate(lines):
        if line.startswith("define ") and any(name in line for name in names):
            # Behind the label of the first block, if it has one.
            at = index + 1
            if re.match(r"^[^ ;].*:", lines[at]):
                at += 1
            lines[at:at] = [
                "  %wide = alloca [2048 x i8], align 4",
                "  store volatile i8 0, ptr %wide, align 4",
            ]
            return
    sys.exit("llc names a function that is not there: " + name)


SECTION = re.compile(r'^\s*(?:\.section\s+("?)(?P<name>[^\s,"]+)\1(?P<rest>,.*)?|(?P<text>\.text))\s*(?:#.*)?$')
LITERAL = re.compile(r"^\s*\.literal\s+([^,\s]+)\s*,\s*(.+?)\s*$")


def literals(source):
    """llc writes a function's literals before it changes to the function's section, so they end up
    in the section before, and unaligned. Here they get a section of their own beside the function's,
    in words, which a linker script for these chips puts before the code: the instruction that loads
    them reaches backwards only."""
    lines, out, at, section, count = source.split("\n"), [], 0, (".text", ""), 0
    while at < len(lines):
        if lines[at].strip() != ".literal_position":
            if LITERAL.match(lines[at]):
                sys.exit("line %d: a literal outside of a group" % (at + 1))
            section = section_of(lines[at]) or section
            out.append(lines[at])
            at += 1
            continue
        at, group = take_group(lines, at + 1)
        if not group:
            continue
        after, follows = section, None
        while at + (follows or 0) < len(lines) and section_of(lines[at + (follows or 0)]):
            after = section_of(lines[at + (follows or 0)])
            follows = (follows or 0) + 1
        out += in_words(after, follows is None, group)
        count += len(group)
    print("literals: %d" % count)
    return "\n".join(out)


def section_of(line):
    found = SECTION.match(line)
    return found and (found["name"] or ".text", found["rest"] or "")


def take_group(lines, at):
    group = []
    while at < len(lines):
        found = LITERAL.match(lines[at])
        if found:
            group.append(found.groups())
        elif lines[at].strip() not in ("", ".literal_position"):
            break
        at += 1
    return at, group


def in_words(section, comes_back, group):
    name, rest = section
    if not name.startswith(".text"):
        sys.exit("literals for a section that is no code: " + name)
    directive = ".pushsection" if comes_back else ".section"
    lines = ["\t%s\t.literal%s%s" % (directive, name[len(".text"):], rest or ',"ax",@progbits')]
    lines.append("\t.p2align\t2")
    for label, value in group:
        lines.append("%s:\n\t.long\t%s" % (label, value))
    return lines + (["\t.popsection"] if comes_back else [])


def main():
    step, source, target, *more = sys.argv[1:]
    if step == "compile":
        compile_bitcode(source, target, more[0])
        return
    with open(source) as file:
        text = {"divisions": divisions, "literals": literals}[step](file.read())
    with open(target, "w") as file:
        file.write(text)


main()
