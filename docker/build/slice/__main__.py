"""Copies what a production image needs out of a build stage; docker/Dockerfile runs it.

python3 slice runtime ROOT                        the interpreter, the standard library, what these need of the system
python3 slice service ROOT VENV                   a service's dependencies, and the shared libraries that these need
python3 slice extras ROOT VENV SOURCE [NAME...]   what modules.ON_DEMAND has for the service's code and for names, and
                                                  files and folders that are named by their absolute path
"""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import modules
from tree import Tree

# What programs expect of a system, as far as the base image has it: certificates and OpenSSL's settings, names of hosts,
# services and users, types of files, the local time, and the locale C.UTF-8.
OPENSSL = ssl.get_default_verify_paths()
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SYSTEM = (
    *(CERTIFICATES, OPENSSL.openssl_cafile, OPENSSL.openssl_capath),
    str(Path(OPENSSL.openssl_cafile).with_name("openssl.cnf")),
    *("/etc/group", "/etc/passwd", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols"),
    *("/etc/os-release", "/etc/mime.types", "/etc/localtime", "/usr/lib/locale/C.*/**/*", "/app/instance"),
)
# For building other software on top of a dependency, or for the installer; for running it only if a module names it.
NOT_FOR_RUNNING = re.compile(r".*\.(a|c|h|hpp|pxd|pyx)|bin/[Aa]ctivate.*|CACHEDIR\.TAG|\.gitignore|\.lock")
# ctypes.util.find_library asks `ldconfig -p` where a shared library is.
LDCONFIG = """#!{python} -IS
# What `ldconfig -p` told in the base image, of those libraries that are here.
import os
for line in '''{told}'''.splitlines():
    if os.path.exists(line.rpartition(" => ")[2]):
        print(line)
"""


def runtime(tree: Tree) -> None:
    """Add the interpreter, the standard library, what these need of the system, and the system's files."""
    python = Path(shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable)  # not the one of a venv
    tree.add_all([python, *modules.files()])
    for folder in {path.parent for path in tree.copied if path.name.startswith("libc.so")}:
        # glibc loads the first by name when a thread is ended. Nothing is in the others since glibc 2.34, and many wheels,
        # test tools among them, ask for them all the same.
        tree.add_all(folder / name for name in ("libgcc_s.so.1", "libdl.so.2", "libpthread.so.0", "librt.so.1"))
    for pattern in SYSTEM:
        for path in Path("/").glob(pattern.lstrip("/")):
            tree.add(path)
    tree.copied.add(Path("/usr/share/ca-certificates"))  # so that the record of the certificates' package is kept
    bundle = tree.place(OPENSSL.openssl_cafile)
    if not bundle.exists():  # Debian 12 has only the certificates one by one, under names that depend on their content
        bundle.symlink_to(CERTIFICATES)
    (tree.root / "tmp").mkdir()
    (tree.root / "tmp").chmod(0o1777)
    if ldconfig := shutil.which("ldconfig"):
        # The official image has libpython in /usr/local/lib, where glibc's loader looks only if its cache says so.
        folders = {str(path.parent) for path in tree.copied if ".so" in path.name and "lib-dynload" not in path.parts}
        tree.place("/etc/ld.so.conf").write_text("".join(f"{folder}\n" for folder in sorted(folders)))
        subprocess.run([ldconfig, "-r", tree.root], check=True)
        shutil.rmtree(tree.root / "var/cache/ldconfig", ignore_errors=True)
        told = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
        tree.add(Path("/sbin"))
        tree.place("/sbin/ldconfig").write_text(LDCONFIG.format(python=python, told=told))
        tree.place("/sbin/ldconfig").chmod(0o755)


def service(tree: Tree, venv: str) -> None:
    """Add a virtual environment, and the shared libraries that its extension modules need."""
    files = (path for path in sorted(Path(venv).rglob("*")) if "__pycache__" not in path.parts)
    tree.add_all(path for path in files if not NOT_FOR_RUNNING.fullmatch(str(path.relative_to(venv))))


def extras(tree: Tree, venv: str, source: str, *names: str) -> None:
    """Add what the service's code, or who builds it, asks for; raises SystemExit for a file that is not there."""
    code = [path.read_text(errors="replace") for folder in (venv, source) for path in Path(folder).rglob("*.py")]
    tree.add_all(modules.files(" ".join([*names, *code])))
    for path in (Path(name) for name in names if name.startswith("/")):
        if not path.exists():
            sys.exit(f"error: EXTRAS names {path}, which the base image does not have: install it in stage `base`")
        tree.add_all([path, *sorted(path.rglob("*"))])


if __name__ == "__main__":
    what, root, *arguments = sys.argv[1:]
    print(f"copying what a production image needs: {what}", flush=True)
    tree = Tree(Path(root), Path("/runtime"), Path("/service"))  # as far as docker/Dockerfile mounts them
    parts: dict[str, Callable[..., None]] = {"runtime": runtime, "service": service, "extras": extras}
    parts[what](tree, *arguments)
    tree.finish()
