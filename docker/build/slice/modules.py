"""Which files of the standard library go to every production image, and which only to the services that use them."""

from __future__ import annotations

import re
import sys
import sysconfig
from functools import cache
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
ZONES = Path("/usr/share/zoneinfo")
# The module that sysconfig has just read: its name differs between versions and systems.
SYSCONFIG = next((name for name in sys.modules if name.startswith("_sysconfigdata_")), "")
DATA = (ZONES, Path("/usr/share/terminfo"), Path("/usr/lib/terminfo"))
# No service in production runs the standard library's tests, installs packages, or draws windows.
LEFT_OUT = re.compile(
    rf"""(?x)
    (.*/)?(test|tests|idle_test|__pycache__|site-packages|dist-packages)/.* | (.*/)?_?(ctypes_)?test[^/]*\.so
    | (config-[^/]*|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|venv)/.*
    | (turtle|(?!{re.escape(SYSCONFIG)}\.)_sysconfigdata_[^/]*|sitecustomize)\.py | _pyrepl/(?!__init__|pager|types|trace|utils)[^/]*
    | lib-dynload/(_tkinter|_test|_xx|xx|_dbm|_gdbm)[^/]*
    | {ZONES}/(?!localtime)[^A-Z].*
    """
)
# Large and used by few services: words in the code of a service or its dependencies, and the files that come with them.
ON_DEMAND = {
    "sqlite3|dbm|shelve": r"sqlite3/.*|dbm/sqlite3\.py|lib-dynload/_sqlite3.*",
    "big5|cp9(?:32|36|49|50)|euc[-_](?:jp|kr)|gb2312|gb18030|gbk|hz|iso[-_]?2022|johab|ksc|shift[-_]?jis": (
        r"lib-dynload/(_codecs_(cn|hk|iso2022|jp|kr|tw)|_multibytecodec).*"
    ),
    "zoneinfo|dateutil|pytz|tzlocal|tzset": rf"{ZONES}/.*",
    # Whoever imports it within `try` or a function does without.
    "(?m:^)(?:from|import) readline": "lib-dynload/readline.*",
    "(?:from|import) curses": r"(curses|/usr/.*/terminfo)/.*|lib-dynload/_curses.*",
    "_py(?:datetime|decimal|io)": r"_py(datetime|decimal|io)\.py",
}


@cache
def available() -> list[tuple[Path, str | None]]:
    """All files that an image may get, each with the words of ON_DEMAND that it comes with, None for every image."""
    data = [path for folder in DATA for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    found = []
    for path in sorted([*STDLIB.rglob("*.py"), *STDLIB.rglob("*.so"), *data]):
        inside = str(path.relative_to(STDLIB) if path.is_relative_to(STDLIB) else path)
        if not LEFT_OUT.fullmatch(inside):
            part = next((words for words, pattern in ON_DEMAND.items() if re.fullmatch(pattern, inside)), None)
            found.append((path, part))
    return found


def files(code: str | None = None) -> list[Path]:
    """The files for every production image, or, of ON_DEMAND, those whose words stand in ``code``."""
    wanted: set[str | None] = {None}
    if code is not None:
        wanted = {words for words in ON_DEMAND if re.search(rf"\b(?:{words})\b", code, re.IGNORECASE)}
    return [path for path, part in available() if part in wanted]
