"""Writes down that NAME==VERSION is installed, so that importlib.metadata finds it: ``distribution.py NAME==VERSION``.

It is for a service that was a distribution of its own before, and asks for its version; its code comes from elsewhere.
"""

import re
import sys
import sysconfig
from pathlib import Path

name, _, version = sys.argv[1].partition("==")
folder = Path(sysconfig.get_path("purelib")) / f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
folder.mkdir(exist_ok=True)  # a plugin of the service may have brought it in
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
