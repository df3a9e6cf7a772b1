"""A root file system in the making: files of this stage, copied under the same paths, as they are or as bytecode."""

from __future__ import annotations

import ast
import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

# Modules whose source is read: by typeguard, TorchScript and Numba's cache, and migrations, for which Alembic lists files.
READ_AS_SOURCE = re.compile(rb"@(typeguard\.)?typechecked|torch\.jit|jit\(.*cache=True|(?m:^)from alembic import")
# Files beside it that a dependency names, and so reads: C that autobahn compiles as it is imported, OpenCV's "config-{}.py".
NAMED = re.compile(rb"[\"'](?!__)(\w[\w.{}-]*\.(?:[ch]|py))[\"']")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
TIME = 1704067200  # 2024-01-01, because zip files know no time before 1980
YEAR = 365 * 24 * 3600


class Tree:
    """A root file system in the making."""

    def __init__(self, root: Path, *below: Path) -> None:
        """Make ``root``; what is in ``below``, the layers under it, is not copied again."""
        root.mkdir(parents=True)
        self.root = root
        self.below = below
        self.copied: set[Path] = set()

    def place(self, path: Path | str) -> Path:
        """Where a path is in this tree; its folder is made."""
        inside = self.root / str(path).lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        return inside

    def is_below(self, path: Path | str) -> bool:
        """Whether a layer under this one has a path: of what two have alike, some engines keep both and some one."""
        return any(os.path.lexists(folder / str(path).lstrip("/")) for folder in self.below)

    def add(self, path: Path) -> None:
        """Copy a file, or make a folder, with the symbolic links on the way to it."""
        here = Path("/")
        for position, part in enumerate(path.parts[1:], start=2):
            here /= part
            if here.is_symlink():
                target = here.readlink()
                if not self.is_below(here) and not self.place(here).is_symlink():
                    self.place(here).symlink_to(target)
                self.add(Path(os.path.normpath(here.parent / target)).joinpath(*path.parts[position:]))
                return
        if self.is_below(path):
            return
        if path.is_dir():
            self.place(path).mkdir(exist_ok=True)
            shutil.chown(self.place(path), path.stat().st_uid, path.stat().st_gid)
        elif path not in self.copied:
            shutil.copy(path, self.place(path))
            self.copied.add(path)

    def compile(self, source: Path) -> None:
        """Add a module as bytecode where its source was, so that Python loads it without the source (PEP 3147).

        Dependencies keep their docstrings, which many of them read. Those of the standard library are empty, not None,
        because code that edits a docstring expects text.
        """
        text, is_dependency = source.read_bytes(), "site-packages" in source.parts
        try:
            tree = ast.parse(b"" if is_dependency else text)
            for node in ast.walk(tree):
                if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False):
                    empty = ast.copy_location(ast.Expr(ast.Constant("")), node.body[0])
                    node.body[0] = ast.fix_missing_locations(empty)
            code = compile(text if is_dependency else tree, str(source), "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError):  # a template, or code for another Python
            self.add(source)
            return
        bytecode = source.with_suffix(".pyc")
        # A package may look for the module of its name, as python-multipart does for that of multipart.
        if READ_AS_SOURCE.search(text) or source.with_suffix("").is_dir():
            self.add(source)
            bytecode = Path(importlib.util.cache_from_source(source))
        # Its source is never looked at (PEP 552).
        self.place(bytecode).write_bytes(importlib.util.MAGIC_NUMBER + b"\1" + bytes(11) + marshal.dumps(code))
        for name in NAMED.findall(text) if is_dependency else ():
            for path in source.parent.glob(re.sub(r"{\w*}", "*", name.decode())):
                shutil.copy(path, self.place(path))
        self.copied.add(source)  # so that the record of its package is kept

    def add_all(self, paths: Iterable[Path]) -> None:
        """Add files, modules as bytecode, and the shared libraries that programs and other shared libraries need."""
        for path in paths:
            if path.suffix == ".py":
                self.compile(path)
            else:
                self.add(path)
            if path.is_file() and (".so" in path.name or os.access(path, os.X_OK)):
                told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
                for library in re.findall(r"(/\S+) \(0x", told):
                    if not library.startswith("/venv/"):
                        self.add(Path(library))

    def finish(self) -> None:
        """Write the records of the packages that own what was copied, and make modes and times the same in every build."""
        if shutil.which("dpkg-query"):
            self.dpkg_records()
        elif Path("/lib/apk/db/installed").exists():
            self.add(Path("/lib/apk/db/installed"))
        for path in [self.root, *self.root.rglob("*")]:
            time = TIME
            if path.is_file() and not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
                # Web frameworks make a file's ETag of its time and size, so another content needs another time.
                time += zlib.crc32(path.read_bytes()) % YEAR
            os.utime(path, (time, time), follow_symlinks=False)

    def dpkg_records(self) -> None:
        """Write the records of packages each to a file of its own, where scanners look for them in distroless images."""
        # dpkg may still know /usr/lib/x as /lib/x; no package owns dependencies, which can be too many for one command line.
        paths = sorted(path for path in self.copied if not path.is_relative_to("/venv"))
        names = [name for path in paths for name in (str(path), str(path).removeprefix("/usr"))]
        owned = subprocess.run(["dpkg-query", "--search", *names], capture_output=True, text=True, check=False).stdout
        for owner in set(re.findall(r"^([a-z0-9+.-]+)(?::\w+)?: /", owned, re.MULTILINE)):
            place = f"/var/lib/dpkg/status.d/{owner}"
            if not self.is_below(place):
                self.place(place).write_text(subprocess.check_output(["dpkg-query", "--status", owner], text=True))
