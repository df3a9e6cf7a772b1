"""Writes down that a distribution is installed, for importlib.metadata: ``distribution.py NAME==VERSION ENTRY_POINTS``.

It is for a service that was a distribution of its own before, and asks for its version, its plugins or its commands; its
code comes from elsewhere. ENTRY_POINTS is the text of entry_points.txt.
"""

import re
import sys
import sysconfig
from importlib.metadata import PathDistribution
from pathlib import Path

name, _, version = sys.argv[1].partition("==")
folder = Path(sysconfig.get_path("purelib")) / f"{re.sub(r'[-_.]+', '_', name)}-{version}.dist-info"
folder.mkdir(exist_ok=True)  # a plugin of the service may have brought it in
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
(folder / "entry_points.txt").write_text(sys.argv[2], encoding="utf-8")
for point in PathDistribution(folder).entry_points.select(group="console_scripts"):
    script = Path(sysconfig.get_path("scripts"), point.name)
    # As with python -m, the working folder has the code.
    load = f"import sys\nsys.path.insert(0, '')\nfrom {point.module} import {point.attr.partition('.')[0]}\n"
    script.write_text(f"#!{sys.executable}\n{load}sys.exit({point.attr}())\n", encoding="utf-8")
    script.chmod(0o755)
