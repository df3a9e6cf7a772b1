"""What is shown of a build, and why it failed, in one line."""

from __future__ import annotations

import re

import pytest

from ..images import buildlog
from ..project import ROOT
from ..terminal import Status


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("#9 pyproject.toml changed significantly since poetry.lock was last generated.", "nox -s lock"),
        ("failed to copy file: No space left on device (os error 28)", "no disk space"),
        ("write /var/lib/x: no space left on device", "no disk space"),
        ("#4 invalid peer certificate: NotValidYetContext", "check this machine's clock"),
        ("#4 operation timed out\n#4 No solution", "package index does not answer"),
        ("#4 dns error: failed to lookup address information", "package index does not answer"),
        ("#4 ok\nERROR: failed to solve: something new", "the build failed: failed to solve: something new"),
        (
            "#4 0.1 hm\n#4 0.2 it broke\n#4 ERROR: process x: exit code: 1\n------\n > [pilot deps 1/1] RUN uv:\n------\nDockerfile:3\nERROR: failed to solve: process",
            "the build failed in [pilot deps 1/1]: it broke",
        ),
        (
            "#9 0.5   x Failed to build `uwsgi==2.0.31`\n#9 0.5 error: command 'cc' failed",
            "uwsgi==2.0.31 has no wheel for this platform",
        ),
        (
            "#4 0.1 error: /venv/x.so needs libgomp.so.1, which the base image does not have\n#4 ERROR: process x: exit code: 1\n------\n > [slice-service 1/1] RUN slice:\n------\nE",
            "needs libgomp.so.1, which the base image does not have",
        ),
        (
            '[2/7] STEP 3/3: RUN uv\nhm\nit broke\nError: building at STEP "RUN uv": while running runtime: exit status 1\n',
            "the build failed: it broke",
        ),
        (
            '[1/9] STEP 3/4: RUN x\nsetrlimit: not permitted\n: exit status 1\nError: building at STEP "RUN x": while running runtime: exit status 1\n',
            "the build failed: setrlimit: not permitted",
        ),
        (
            "#4 4.2 Looking\n#4 4.3 ERROR: Could not install\n#4 4.3 \n#4 ERROR: process x: exit code: 1\n------\n > [tools 2/2] RUN pip:\n------\nE",
            "failed in [tools 2/2]: ERROR: Could not install",
        ),
        (
            "#4 4.3 \n#4 ERROR: process x: exit code: 1\n------\n > [tools 2/2] RUN pip:\n------\nE",
            "failed in [tools 2/2]: it printed nothing",
        ),
        (
            "#4 0.1 \n#4 0.2 no tests ran in 0.1s\n#5 CANCELED\n#4 ERROR: process x: exit code: 5\n------\n > [verify 5/5] RUN x:\n0.1 \n------\nE",
            "failed in [verify 5/5]: no tests ran in 0.1s",
        ),
        (
            "#4 0.1 INTERNALERROR> def main\n#4 0.1 INTERNALERROR> pytest.PytestConfigWarning: x\n#4 0.2 == no tests ran ==\n"
            "#4 ERROR: process x: exit code: 3\n------\n > [verify 5/5] RUN x:\n------\nE",
            "failed in [verify 5/5]: INTERNALERROR> pytest.PytestConfigWarning: x",
        ),
        (
            "#4 0.1 sqlalchemy.exc.OperationalError: could not translate\n#4 0.1 (Background on this error at: x)\n"
            "#4 ERROR: process x: exit code: 1\n------\n > [verify-import 1/1] RUN x:\n------\nE",
            "failed in [verify-import 1/1]: sqlalchemy.exc.OperationalError: could not translate",
        ),
        ("WARNING: ... ConnectTimeoutError(..., 'Connection timed out. (connect timeout=5.0)')", "does not answer"),
        ("Error: creating build container: no such image", "the build failed: creating build container: no such image"),
        ("ERROR: mkdir /root/.docker: read-only file system", "set HOME, or DOCKER_CONFIG, to a folder that you may"),
        ("ERROR: Cannot connect to the Docker daemon at unix:///x", "the Docker engine does not answer any more"),
        (
            "#4 0.1 FAILED tests/test_a.py::test_a - assert\n#4 0.2 1 failed\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "the build failed in [verify 1/1]: FAILED tests/test_a.py::test_a",
        ),
        (
            "#4 0.1 E   ValueError: Missing staticfiles manifest entry for 'x.css'\n#4 0.2 FAILED blog/tests.py::A::test_with_a_long_name\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "the build failed in [verify 1/1]: ValueError: Missing staticfiles manifest entry for 'x.css'",
        ),
        (
            "#4 0.1 E   PermissionError: [Errno 13] Permission denied: 'x.mo'\n#4 0.2 ERROR blog/tests.py::A::test_with_a_name - ...\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "the build failed in [verify 1/1]: PermissionError: [Errno 13] Permission denied: 'x.mo'",
        ),
        (
            "#4 0.1 E   ImportError: cannot import name 'url'\n#4 0.2 FAILED tests.py::test_it - ImportE...\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "the build failed in [verify 1/1]: ImportError: cannot import name 'url'",
        ),
        (
            "#4 0.1 E   ModuleNotFoundError: No module named 'six'\n#4 0.2 ERROR tests/test_a.py - ModuleNotFoundError: No module named...\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "the build failed in [verify 1/1]: ModuleNotFoundError: No module named 'six'",
        ),
        (
            "#4 0.1 pydantic_core.ValidationError: 2 validation errors for Settings\n#4 0.1 SECRET_KEY\n#4 0.1   Field required [type=missing]\n#4 0.1     For further information visit x\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "[verify 1/1]: pydantic_core.ValidationError: 2 validation errors for Settings SECRET_KEY Field required",
        ),
        (
            "#4 0.1 E       pydantic_core.ValidationError: 2 validation errors for Settings\n#4 0.1 E       SECRET_KEY\n#4 0.1 E         Field required [type=missing]\n#4 0.1 E           For further information visit x\n#4 0.2 FAILED tests/test_a.py::test_a - pydantic_core.V...\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "[verify 1/1]: pydantic_core.ValidationError: 2 validation errors for Settings SECRET_KEY Field required",
        ),
        (
            "#4 0.1 ERROR: usage: pytest\n#4 0.2 pytest: error: unrecognized arguments: -n\n#4 ERROR: process x: exit code: 1\n------\n > [verify 1/1] RUN x:\n------\nE",
            "the build failed in [verify 1/1]: pytest: error: unrecognized arguments: -n",
        ),
        (
            "#4 0.1 Connection refused\n#4 0.2 FAILED tests/test_a.py\n#4 ERROR: process x: exit code: 1\n------\n > [a-verify verify 5/5] RUN x:\n------\nE",
            "the build failed in [a-verify verify 5/5]: FAILED tests/test_a.py",
        ),
        (
            "#4 0.1 Connection refused\n#4 ERROR: process x: exit code: 1\n------\n > [verify deps 1/1] RUN x:\n------\nE",
            "index does not answer",
        ),
        (
            "#4 x.InvalidRequirementError: The requirement is invalid\n#4 redis=>5\n#4      ^",
            "`nox -s lock` says which",
        ),
        (
            "#4 0.1 E   SyntaxError: '(' was never closed\n#4 0.2 ERROR tests/test_a.py\n#4 0.3 1 error\n#4 ERROR: process x: exit code: 1\n------\n > [a-verify verify 5/5] RUN x:\n------\nE",
            "the build failed in [a-verify verify 5/5]: SyntaxError: '(' was never closed",
        ),
        (
            'ERROR: failed to solve: failed to compute cache key: failed to calculate checksum of ref 2-0::z6: "/poetry.lock": not found',
            'the build failed: "/poetry.lock": not found',
        ),
        (
            "ERROR: failed to solve: x:1: failed to resolve source metadata for x:1: dial tcp [::1]:443: connect: Connection refused",
            "the base image is not here for this flavor",
        ),
        ("ERROR: failed to solve: read /etc/ssl: is a directory", "set STACK_CA in .env to the file"),
        (
            "ERROR: failed to stat /ca.crt: stat /ca.crt: no such file or directory",
            "a build secret is no file: set STACK_CA",
        ),
        ("", "BuildKit printed nothing"),
    ],
)
def test_a_failed_build_has_one_reason(log: str, told: str) -> None:
    reason = buildlog.reason(log)
    assert told in reason
    assert "\n" not in reason


def test_progress_shows_each_step_that_ran_once_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    status = Status()
    progress = buildlog.Progress(status)
    for line in (
        "#1 [internal] load build definition from Dockerfile",
        "#1 DONE 0.5s",
        "#2 [pilot deps 1/1] RUN --mount=type=secret,id=ca uv pip install",
        "#3 [pilot tools 1/2] COPY --from=a --chmod=755 docker/build/tools.txt /",
        "#3 CACHED",
        "#2 0.2 Resolved 9 packages",
        "#4 [other deps 1/1] RUN true",
        "#4 DONE 0.0s",
        "#2 DONE 12.3s",
        "#5 [pilot deps 1/1] RUN --mount=type=secret,id=ca uv pip install",
        "#5 DONE 0.6s",
    ):
        progress(line)
        if line.startswith("#2 ["):
            assert status.text == "[pilot deps 1/1] The service's dependencies"
    assert capsys.readouterr().out == "   12.3 s  [pilot deps 1/1] The service's dependencies\n"
    assert len(progress.log) == 11


def test_every_stage_with_a_command_says_what_it_is_for() -> None:
    text = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
    parts = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)[1:]
    assert {stage for stage, part in zip(parts[::2], parts[1::2], strict=True) if "\nRUN " in part} <= set(
        buildlog.stages()
    )
    assert all(0 < len(words) <= 90 for words in buildlog.stages().values())
