"""Starts a program under the system call filter of a systemd unit, as systemd itself builds it.

    under-seccomp.py UNIT PROGRAM [ARGUMENT...]

SystemCallFilter= lines are read in their order: names and @sets allow, a leading ~ takes away.
"""

import os
import re
import subprocess
import sys

import seccomp


def names_of(word):
    if not word.startswith("@"):
        return {word}
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    found = set()
    for line in text.splitlines()[1:]:
        line = line.strip()
        if line and not line.startswith("#"):
            found |= names_of(line)
    return found


def allowed_by(unit):
    allowed = set()
    for value in re.findall(r"^SystemCallFilter=(.*)$", unit, re.M):
        words = value.lstrip("~").split()
        for word in words:
            if value.startswith("~"):
                allowed -= names_of(word)
            else:
                allowed |= names_of(word)
    # systemd always lets these through, to start the program with.
    return allowed | names_of("@default")


def main():
    with open(sys.argv[1]) as file:
        allowed = allowed_by(file.read())
    rules = seccomp.SyscallFilter(seccomp.ERRNO(1))
    for name in sorted(allowed):
        try:
            rules.add_rule(seccomp.ALLOW, name)
        except (RuntimeError, ValueError):
            # Not one of this architecture.
            pass
    rules.load()
    os.execvp(sys.argv[2], sys.argv[2:])


main()
