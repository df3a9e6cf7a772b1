"""How long a save takes until the tests' verdict: `nox -s test -- echo --watch` beside pytest through plain Compose."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.images import bake
from tasks.project import ROOT, clone_id, env_prefix
from tasks.shell import UserError, output, start
from tasks.stack.lifecycle import remove_tested_stacks
from tasks.stack.model import COMPOSE
from tasks.terminal import say
from tasks.testing.watch import rerun

from . import SERVICE, row

PAUSE_S = 0.5  # between a verdict and the next save, which finds everything idle
# The references run the same tests with as few examples as the watching process, by this plugin of pytest's.
FEW = """
def pytest_load_initial_conftests():
    from hypothesis import settings
    settings.register_profile("few", max_examples={examples})
    settings.load_profile("few")
"""


def measure(folder: Path, edits: int) -> dict[str, Any]:
    """Edit the service ``edits`` times for each case, in turns, and return the report; ``folder`` takes the copies."""
    bake.build([SERVICE])
    ours, plain = mounted(folder / "ours"), mounted(folder / "plain")
    with watching(ours) as verdict, up(plain):
        cases: dict[str, Callable[[], object]] = {
            f"test -- {SERVICE} --watch": verdict,
            "docker compose exec": lambda: output(*COMPOSE, "exec", "-T", SERVICE, "pytest", "-p", "few", env=plain),
            "docker compose run": lambda: output(
                *(*COMPOSE, "run", "--rm", "--no-deps", "-T", SERVICE, "pytest", "-p", "few"), env=plain
            ),
        }
        times: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(-2, edits):
            for name, run in cases.items():
                took = timed(
                    run, folder / ("ours" if run is verdict else "plain") / SERVICE / SERVICE / "views.py", number
                )
                if number >= 0:  # those before warm up
                    times[name].append(took)
            if number >= 0 and not (number + 1) % 5:
                say(f"{number + 1} edits of {edits}")
    return report(times, "docker compose exec")


def timed(run: Callable[[], object], file: Path, number: int) -> float:
    """Change a file, and measure in milliseconds from the write until ``run`` returns."""
    time.sleep(PAUSE_S)
    text = file.read_text(encoding="utf-8").partition("\n# Edit ")[0] + f"\n# Edit {number}\n"
    began = time.perf_counter()
    file.write_text(text, encoding="utf-8")
    run()
    return (time.perf_counter() - began) * 1000


def mounted(source: Path) -> dict[str, str]:
    """Copy the services, and return settings that make Compose mount the copy, in a project of its own."""
    shutil.copytree(ROOT / "services", source)
    constant = re.search(r"^EXAMPLES = (\d+)", (ROOT / "docker/dev/rerun.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert constant
    (source / SERVICE / "few.py").write_text(FEW.format(examples=constant[1]), encoding="utf-8")
    override = source.with_suffix(".json")
    mount = {"type": "bind", "source": str(source), "target": "/app/services"}
    service = {"command": ["sleep", "infinity"], "volumes": [mount], "healthcheck": {"disable": True}}
    override.write_text(json.dumps({"services": {SERVICE: service}}), encoding="utf-8")
    return {
        "COMPOSE_FILE": f"docker/compose.yaml:{override}",
        "COMPOSE_ENV_FILES": ".env",
        "COMPOSE_PROJECT_NAME": f"{clone_id()}-bench",
        f"{env_prefix(SERVICE)}_PORT": "0",
    }


@contextmanager
def up(settings: dict[str, str]) -> Iterator[None]:
    """Have a container up that does nothing, for `exec`, and remove all of the project afterwards."""
    try:
        output(*COMPOSE, "up", "--detach", "--no-build", "--no-deps", SERVICE, env=settings)
        yield
    finally:
        output(*COMPOSE, "down", "--remove-orphans", "--volumes", env=settings)


@contextmanager
def watching(settings: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Watch the service; what is yielded returns with the next verdict."""
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    with start(*rerun(SERVICE, []), env=settings, stdin=nothing, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdout
        said = iter(process.stdout)

        def verdict() -> None:
            line = "nothing"
            for line in said:
                if line.startswith(f"{SERVICE}: "):
                    break
            if not re.fullmatch(rf"{SERVICE}: \d+ passed in [\d.]+ s\n", line):
                raise UserError(f"there is no time to measure, because the tests did not pass: {line.strip()}")

        try:
            verdict()
            yield verdict
        finally:
            process.terminate()
            process.wait()
            remove_tested_stacks()


def report(times: dict[str, list[float]], reference: str) -> dict[str, Any]:
    """The figures, each beside the reference's median."""
    rows = [row(case, took, "ms", reference, times[reference]) for case, took in times.items()]
    return {"bench": "verdict", "rows": rows}
