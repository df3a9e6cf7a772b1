"""Cuts a production root file system out of a build stage; docker/Dockerfile runs it.

    slice.py runtime ROOT                          the interpreter, its standard library, what these need of the system
    slice.py service ROOT VENV                     a service's dependencies, and the shared libraries these need
    slice.py extras ROOT VENV SOURCE [MODULE...]   the parts of ON_DEMAND that the service's code names
    slice.py tiny ROOT VENV SOURCE [MODULE...]     all of it, with only those modules of the standard library that are reached
    slice.py tests ROOT TOOLS                      the parts of the standard library that TOOLS need

What lies in /runtime already is not copied a second time.

What is left out of the standard library: see LEFT_OUT. Everything else of it is there, as bytecode, and so are the
dependencies; the package records of what was copied are kept, so that scanners see it. It asks the interpreter where
things are and the dynamic loader what they need, so it works for Debian's layout, the official image's, and musl.
"""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import elf
import modules

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# For building and checking other software on top of a dependency, never for running it.
OF_THE_INSTALLER = re.compile(r"[Aa]ctivate.*|CACHEDIR\.TAG|\.gitignore|\.lock")
NOT_FOR_RUNNING = (".a", ".c", ".h", ".hpp", ".pxd", ".pyc", ".pyi", ".pyx")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Slice:
    """A root file system in the making."""

    def __init__(self, root: Path, below: Path) -> None:
        """Make ``root``; what ``below`` (a layer that will lie under it) has already is not copied again."""
        root.mkdir(parents=True)
        self.root = root
        self.below = below
        self.copied: set[Path] = set()

    def add(self, path: Path) -> None:
        """Copy a file under the same path, with the symbolic links on the way to it."""
        here = Path("/")
        for position, part in enumerate(path.parts[1:], start=2):
            here /= part
            if here.is_symlink():
                target = here.readlink()
                link = self.place(here)
                if not link.is_symlink():
                    link.symlink_to(target)
                self.add(Path(os.path.normpath(here.parent / target)).joinpath(*path.parts[position:]))
                return
        if path.is_dir():
            self.place(path).mkdir(exist_ok=True)
        elif path not in self.copied and not self.below.joinpath(*path.parts[1:]).exists():
            shutil.copy(path, self.place(path))
            self.copied.add(path)

    def place(self, path: Path) -> Path:
        """Where a path lies in this root; its folder is made."""
        inside = self.root.joinpath(*path.parts[1:])
        inside.parent.mkdir(parents=True, exist_ok=True)
        return inside

    def compile(self, source: Path) -> None:
        """Put a module in as bytecode beside where its source was: the form that Python loads without any source.

        Without docstrings, and, run under ``-X no_debug_ranges``, without the columns that tracebacks underline: nobody
        can see them where the source is not. Asserts stay. The header says "never compare with a source" (PEP 552).
        """
        tree = ast.parse(source.read_bytes())
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                node.body[:1] = [] if len(node.body) > 1 else [ast.copy_location(ast.Pass(), node.body[0])]
        code = compile(tree, str(source), "exec", dont_inherit=True, optimize=0)
        bytecode = importlib.util.MAGIC_NUMBER + b"\1" + bytes(11) + marshal.dumps(code)
        self.place(source.with_suffix(".pyc")).write_bytes(bytecode)

    def libraries(self, programs: Iterable[Path]) -> None:
        """Add the shared libraries that programs and extension modules need; raises SystemExit for one that is missing."""
        for program in programs:
            for name, found in elf.needed(program):
                if not found and next(Path("/venv").rglob(name), None):
                    continue  # a wheel brings it, and whoever loads this program has loaded that before
                if not found:
                    sys.exit(
                        f"error: {program} needs {name}, which the base image does not have: install it in stage `base`"
                    )
                if not Path(found).is_relative_to("/venv"):
                    self.add(Path(found))

    def write(self, path: str, text: str) -> None:
        """Write a small file."""
        self.place(Path(path)).write_text(text)

    def finish(self) -> None:
        """Keep the package records of what was copied, and make the result the same whenever it is cut."""
        if shutil.which("dpkg-query"):
            self.dpkg_records()
        elif Path("/lib/apk/db/installed").exists():
            self.add(Path("/lib/apk/db/installed"))
        for path in [self.root, *self.root.rglob("*")]:
            if path.is_file() and not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (0, 0), follow_symlinks=False)

    def dpkg_records(self) -> None:
        """Write the records of the packages that own what was copied, each to a file of its own as distroless does."""
        owners = set()
        owned = subprocess.run(
            ["dpkg-query", "--search", *self.spellings()], capture_output=True, text=True, check=False
        )
        for line in owned.stdout.splitlines():
            owners |= {name.strip() for name in line.rpartition(": ")[0].split(",") if not name.startswith("diversion")}
        for owner in sorted(owners):
            record = subprocess.run(["dpkg-query", "--status", owner], capture_output=True, text=True, check=True)
            self.write(f"/var/lib/dpkg/status.d/{owner.partition(':')[0]}", record.stdout)

    def spellings(self) -> Iterator[str]:
        """What was copied, by all names that dpkg may know it by: it may still think of /usr/lib/x as /lib/x."""
        for path in sorted(self.copied):
            yield str(path)
            yield str(path).removeprefix("/usr")


def add_modules(cut: Slice, found: dict[str, Path]) -> None:
    """Add modules of the standard library, and the shared libraries that they need."""
    for path in found.values():
        if path.suffix == ".py":
            cut.compile(path)
        else:
            cut.add(path)
    cut.copied |= set(found.values())  # the record of a compiled module's package is kept too
    cut.libraries(path for path in found.values() if path.suffix != ".py")


def add_runtime(cut: Slice, found: dict[str, Path]) -> None:
    """Add the interpreter, modules of the standard library, and what these need of the system."""
    cut.add(Path(shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable))  # not the one of a venv
    cut.libraries([Path(sys.executable).resolve()])
    add_modules(cut, found)
    for path in modules.STDLIB.glob("_sysconfigdata*.py"):
        cut.compile(path)
    for folder in {path.parent for path in cut.copied if path.name.startswith("libc.so")}:
        cut.add(folder / "libgcc_s.so.1")  # glibc loads it by name when a thread is ended
    add_system(cut)


def add_system(cut: Slice) -> None:
    """Add the few files of the system that programs look for."""
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    default = cut.place(Path(ssl.get_default_verify_paths().openssl_cafile))
    cut.add(certificates)
    if not default.exists():
        default.symlink_to(certificates)
    cut.add(Path("/etc/os-release"))
    cut.write("/etc/passwd", "root:x:0:0::/:/none\napp:x:10001:10001::/app:/none\n")
    cut.write("/etc/group", "root:x:0:\napp:x:10001:\n")
    cut.write("/etc/nsswitch.conf", "hosts: files dns\n")
    (cut.root / "tmp").mkdir()
    (cut.root / "tmp").chmod(0o1777)
    if ldconfig := shutil.which("ldconfig"):
        # The official image has libpython in /usr/local/lib, where glibc's loader only looks if its cache says so.
        folders = {str(path.parent) for path in cut.copied if ".so" in path.name and "lib-dynload" not in path.parts}
        cut.write("/etc/ld.so.conf", "".join(f"{folder}\n" for folder in sorted(folders)))
        subprocess.run([ldconfig, "-r", cut.root], check=True)
        shutil.rmtree(cut.root / "var/cache/ldconfig", ignore_errors=True)


def add_service(cut: Slice, venv: Path) -> None:
    """Add a virtual environment, its modules as bytecode, and the shared libraries that its extension modules need."""
    programs = []
    for path in sorted(venv.rglob("*")):
        if path.is_symlink():
            cut.place(path).symlink_to(path.readlink())
        elif path.suffix == ".py":
            cut.compile(path)
        elif path.is_file() and path.suffix not in NOT_FOR_RUNNING and not OF_THE_INSTALLER.fullmatch(path.name):
            target = cut.place(path)
            shutil.copy(path, target)
            if elf.is_elf(path):
                programs.append(path)
    cut.libraries(programs)


def main(what: str, root: str, venv: str = "", source: str = "", *named: str) -> None:
    """Do what the command line asks for."""
    stdlib = modules.stdlib()
    heavy = modules.of_parts(stdlib, modules.ON_DEMAND)
    cut = Slice(Path(root), below=Path("/runtime"))
    if what == "runtime":
        add_runtime(cut, {name: stdlib[name] for name in stdlib.keys() - heavy.keys()})
    elif what == "extras":
        add_modules(cut, modules.of_parts(stdlib, modules.demanded([Path(venv), Path(source)], named)))
    elif what == "tiny":
        roots = [*modules.ALWAYS, *named, *modules.roots(Path(venv), stdlib), *modules.roots(Path(source), stdlib)]
        add_runtime(cut, modules.closure(stdlib, roots))
    elif what == "tests":
        reached = modules.closure(stdlib, modules.roots(Path(venv), stdlib))
        # What a service has to ask for is not slipped to it by the tools that test it.
        add_modules(cut, {name: reached[name] for name in reached.keys() - heavy.keys()})
    if what in {"service", "tiny"}:
        add_service(cut, Path(venv))
    cut.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
