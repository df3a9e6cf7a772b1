"""What programs and shared libraries need, asked of the dynamic loader: glibc's and musl's alike."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ELF = b"\x7fELF"


def needed(program: Path) -> Iterator[tuple[str, str]]:
    """The shared libraries that an ELF file needs: (name, path), with "" for the path of one that is not to be found.

    The dynamic loader answers, with --list, which glibc's and musl's both know.
    """
    listed = subprocess.run([LOADER, "--list", program], capture_output=True, text=True, check=False)
    # glibc's ends at the first one that is missing, musl's goes on; both complain of it on standard error.
    for name in re.findall(r"(?i)error (?:while )?loading shared librar(?:y|ies):? (\S+?): ", listed.stderr):
        yield name, ""
    for line in listed.stdout.splitlines():
        if found := re.match(r"\s*(\S+)(?: => (\S+| ?not found))?(?: \(0x[0-9a-f]+\))?$", line):
            name, path = found[1], found[2] or found[1]
            if path.startswith("/"):
                yield name, path
            elif "not found" in line:
                yield name, ""
    yield LOADER, LOADER


def loader() -> str:
    """The dynamic loader that the interpreter itself asks for: the PT_INTERP segment of its ELF file (see elf(5))."""
    program = Path(sys.executable).resolve().read_bytes()
    (offset,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    for header in range(offset, offset + size * count, size):
        kind, _, start = struct.unpack_from("<IIQ", program, header)
        if kind == 3:  # PT_INTERP
            return program[start : program.index(b"\0", start)].decode()
    sys.exit(f"error: {sys.executable} is not dynamically linked: choose another base image")


LOADER = loader()


def is_elf(path: Path) -> bool:
    """Whether a file is a program or a shared library."""
    with path.open("rb") as file:
        return file.read(4) == ELF
