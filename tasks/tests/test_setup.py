"""Making the machine ready: what is started or installed, what is asked first, and what is only told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from ..machine import engine, setup
from ..shell import UserError
from .conftest import FakeDistribution, calls, fake_docker, fake_engine, write_tool

# A daemon outlives the session that starts it.
pytestmark = pytest.mark.filterwarnings(r"ignore:subprocess \d+ is still running:ResourceWarning")
PROBE = ["info --format {{json .}}", "version --format {{json .Server}}"]


@pytest.fixture(autouse=True)
def debian(monkeypatch: pytest.MonkeyPatch, no_docker: Path, tmp_path: Path) -> Iterator[FakeDistribution]:
    """Nothing here may change this machine: root's rights, the distribution, the daemon and systemd are pretended."""
    fake = FakeDistribution()
    monkeypatch.setattr(setup, "DISTRIBUTIONS", [fake])
    monkeypatch.setattr(setup, "_GRANTED", set())
    monkeypatch.setattr(setup, "SBIN", str(no_docker))
    monkeypatch.setattr(setup, "DAEMON_LOG", tmp_path / "dockerd.log")
    pid_files = {name: tmp_path / f"{name}.pid" for name in setup.PID_FILES}
    monkeypatch.setattr(setup, "PID_FILES", pid_files)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    write_tool(no_docker / "systemctl", "dockerd >/dev/null 2>&1 &")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    yield fake
    for pid in started(no_docker):
        os.kill(pid, signal.SIGKILL)


class Questions(list[str]):
    """Stands for ``input``: keeps the questions, and gives one answer to all."""

    reply = ""

    def __call__(self, text: str) -> str:
        self.append(text)
        return self.reply


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Questions:
    """The questions that were asked at a terminal."""
    asked = Questions()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", asked)
    return asked


@pytest.fixture
def old_daemon(no_docker: Path) -> Iterator[None]:
    """Docker 20.10 runs, of Debian 12: its process, and an engine that answers for as long as the process is there."""
    shutil.copy(str(shutil.which("sleep")), no_docker / "dockerd")
    with subprocess.Popen([no_docker / "dockerd", "60"]) as process:
        setup.PID_FILES["dockerd"].write_text(str(process.pid))
        fake_engine(no_docker, engine="20.10.24+dfsg1")
        client = (no_docker / "docker").read_text()
        write_tool(no_docker / "docker", f"kill -0 {process.pid} || {{ echo null; exit 1; }}\n{client}")
        (no_docker / "dockerd").unlink()
        Thread(target=process.wait, daemon=True).start()  # where it is nobody's child, it leaves no zombie
        yield
        process.kill()


def install_daemon(tools: Path, version: str = "26.1.5", **parts: str) -> None:
    """Make a daemon of this version; when it starts, an engine of this version answers, with these ``parts``."""
    (tools / "after").mkdir(exist_ok=True)
    fake_engine(tools / "after", engine=version, **parts)  # type: ignore[arg-type]  # none of them is the bool
    script = f"""[ "$1" = --version ] && {{ echo "Docker version {version}, build 1"; exit; }}
        cd "{tools}"; echo $$ >>started; mv after/docker docker; exec sleep 60"""
    write_tool(tools / "dockerd", script)


def started(tools: Path) -> list[int]:
    """The process ids of the daemons that setup has started."""
    return [int(pid) for pid in (tools / "started").read_text().split()] if (tools / "started").exists() else []


def test_a_good_engine_needs_nothing(no_docker: Path, debian: FakeDistribution, questions: Questions) -> None:
    fake_engine(no_docker)
    facts = setup.ensure()
    assert facts["STACK_ENGINE"] == "docker"
    assert set(facts) == {"STACK_UID", "STACK_GID", "STACK_USERNS", "STACK_CPUS", "STACK_ENGINE"}
    assert sorted(calls(no_docker)) == PROBE
    assert (debian.installed, questions) == ([], [])


def test_no_right_to_the_socket(no_docker: Path) -> None:
    fake_engine(no_docker, engine="permission denied while trying to connect to the Docker daemon socket")
    with pytest.raises(UserError, match="usermod -aG docker"):
        setup.ensure()


@pytest.mark.parametrize("stream", [1, 2])
def test_a_wsl_distribution_without_docker_desktop_is_told_in_its_words(no_docker: Path, stream: int) -> None:
    words = "printf '\\nThe command docker could not be found in this WSL 2 distro.\\nWe recommend to activate it.\\n'"
    fake_docker(no_docker, {"": f"{words} >&{stream}; exit 1"})
    with pytest.raises(UserError, match=r"^The command docker could not be found in this WSL 2 distro\. We recommend"):
        setup.ensure()


def test_a_chosen_engine_that_does_not_answer_is_never_replaced(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, debian: FakeDistribution
) -> None:
    fake_engine(no_docker, engine="Cannot connect to the Docker daemon", context="far-away")
    with pytest.raises(UserError, match="the Docker engine at far-away does not answer"):
        setup.ensure()
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"the Docker engine at tcp://127\.0\.0\.1:1 does not answer: start it"):
        setup.ensure()
    monkeypatch.setenv("PATH", str(no_docker / "empty"))
    with pytest.raises(UserError, match=r"at tcp://127\.0\.0\.1:1 does not answer: install Docker's client"):
        setup.ensure()
    assert debian.installed == []


def test_a_chosen_engine_that_is_too_old_is_not_restarted_here(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, debian: FakeDistribution
) -> None:
    fake_engine(no_docker, engine="20.10.24")
    install_daemon(no_docker)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"Docker's engine is 20\.10\.24, which is too old"):
        setup.ensure()
    assert started(no_docker) == []
    assert debian.installed == []


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_setup_never_installs_nothing(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, debian: FakeDistribution, project: Path, where: str
) -> None:
    fake_engine(no_docker, compose="", buildx="")
    if where == ".env":
        (project / ".env").write_text("STACK_SETUP=never\n")
    else:
        monkeypatch.setenv("STACK_SETUP", "never")
    with pytest.raises(UserError, match="missing, too old or not running: compose, buildx, and STACK_SETUP=never"):
        setup.ensure()
    assert debian.installed == []


def test_an_ordinary_user_gets_the_one_command(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, debian: FakeDistribution
) -> None:
    fake_engine(no_docker, compose="")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match=r"only root can install docker\.io, docker-compose\. Run `sudo install-it`"):
        setup.ensure()
    assert debian.installed == []


@pytest.mark.parametrize(
    ("platform", "told"),
    [
        ("linux", "install Docker Engine with its compose and buildx plugins from your distribution"),
        ("darwin", "install Docker Desktop, OrbStack or colima"),
        ("win32", "install Docker Desktop and work inside WSL 2"),
    ],
)
def test_an_unknown_system_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, platform: str, told: str) -> None:
    monkeypatch.setattr(setup, "DISTRIBUTIONS", [])
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)  # from Python 3.12 on, that of Windows needs Windows
    with pytest.raises(UserError, match=f"no container engine was found: {told}"):
        setup.ensure()


def test_what_is_missing_is_installed_and_the_daemon_started(
    no_docker: Path, debian: FakeDistribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CI, or a container: root, and nobody to ask."""
    fake_engine(no_docker, engine="Cannot connect to the Docker daemon", compose="", buildx="")
    install_daemon(no_docker)
    (no_docker / "dockerd").rename(no_docker / "new")
    monkeypatch.setattr(debian, "install", lambda *_: (no_docker / "new").rename(no_docker / "dockerd"))
    assert setup.ensure()["STACK_ENGINE"] == "docker"
    assert len(started(no_docker)) == 1


def test_with_sudo_the_user_may_use_the_engine(
    no_docker: Path, debian: FakeDistribution, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tool(no_docker / "usermod", f'echo "$*" >>"{no_docker}/groups"')
    fake_engine(no_docker, engine="Cannot connect to the Docker daemon", compose="", buildx="")
    monkeypatch.setattr(debian, "install", lambda *_: install_daemon(no_docker))
    monkeypatch.setenv("SUDO_USER", "me")
    setup.ensure()
    assert (no_docker / "groups").read_text() == "-aG docker me\n"
    assert "me may use Docker from the next login on" in capfd.readouterr().out


@pytest.mark.usefixtures("old_daemon")
def test_systemd_restarts_the_daemon_where_it_runs(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_daemon(no_docker)
    old = setup.PID_FILES["dockerd"].read_text()
    stop = f"kill {old}; while kill -0 {old} 2>/dev/null; do sleep 0.01; done"  # it waits for the daemon, as systemd's does
    write_tool(no_docker / "systemctl", f'echo "$*" >"{no_docker}/systemd"; {stop}; dockerd >/dev/null 2>&1 &')
    is_dir = Path.is_dir
    monkeypatch.setattr(Path, "is_dir", lambda path: path == Path("/run/systemd/system") or is_dir(path))
    setup.ensure()
    assert (no_docker / "systemd").read_text() == "restart docker\n"


@pytest.mark.usefixtures("old_daemon")
def test_a_daemon_that_is_older_than_the_installed_one_is_restarted(no_docker: Path, debian: FakeDistribution) -> None:
    """After an upgrade of the packages, without a restart."""
    install_daemon(no_docker)
    assert setup.ensure()["STACK_ENGINE"] == "docker"
    assert len(started(no_docker)) == 1
    assert "context inspect --format={{.Name}}" in calls(no_docker)
    assert debian.installed == []


@pytest.mark.usefixtures("old_daemon")
def test_an_old_daemon_is_restarted_after_its_update(
    no_docker: Path, debian: FakeDistribution, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One question, with all packages."""
    debian.missing = ("mmdebstrap",)
    write_tool(no_docker / "dockerd", 'echo "Docker version 20.10.24, build 1"')

    def install(*packages: str) -> None:
        debian.installed.append(packages)
        install_daemon(no_docker)

    monkeypatch.setattr(debian, "install", install)
    assert setup.ensure()["STACK_ENGINE"] == "docker"
    assert len(started(no_docker)) == 1
    assert debian.installed == [("docker.io", "docker-compose")]
    assert questions == ["The machine is not ready. May I install docker.io, docker-compose, mmdebstrap? [Y/n] "]
    setup.allow("install mmdebstrap", "sudo ...", "mmdebstrap")  # what bases.py asks for later
    assert len(questions) == 1


@pytest.mark.parametrize("reply", ["n", "no", "what?"])
def test_no_means_no(no_docker: Path, debian: FakeDistribution, questions: Questions, reply: str) -> None:
    fake_engine(no_docker, compose="")
    questions.reply = reply
    with pytest.raises(UserError, match="nothing was changed; to do it yourself: install it with `sudo install-it`"):
        setup.ensure()
    assert len(questions) == 1
    assert debian.installed == []


def test_ctrl_c_at_the_question_ends_the_session(
    no_docker: Path, debian: FakeDistribution, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_engine(no_docker, compose="")

    def interrupt(text: str) -> str:
        questions.append(text)
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupt)
    with pytest.raises(KeyboardInterrupt):
        setup.ensure()
    assert len(questions) == 1
    assert debian.installed == []
    assert sorted(calls(no_docker)) == sorted([*PROBE, "context inspect --format={{.Name}}"])


@pytest.mark.usefixtures("questions")
def test_ci_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setattr("builtins.input", pytest.fail)
    setup.allow("install x", "sudo ...", "x")


def test_a_daemon_that_ends_is_told_with_its_last_line(no_docker: Path) -> None:
    if Path("/run/systemd/system").is_dir():
        pytest.skip("systemd starts the daemon here")
    fake_engine(no_docker, engine="Cannot connect to the Docker daemon")
    write_tool(no_docker / "dockerd", '[ "$1" = --version ] && { echo version 26.1.5; exit; }; echo no cgroups; exit 1')
    with pytest.raises(UserError, match="the Docker daemon has ended: no cgroups"):
        setup.ensure()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process runs")
def test_a_running_daemon_is_stopped_and_stale_pid_files_go(no_docker: Path, tmp_path: Path) -> None:
    shutil.copy(str(shutil.which("sleep")), no_docker / "dockerd")
    files = setup.PID_FILES
    files["containerd"].write_text(str(os.getpid()))  # the id is another program's by now
    with subprocess.Popen([no_docker / "dockerd", "60"]) as running:
        files["dockerd"].write_text(str(running.pid))
        setup.remove_stale_pid_files()
        assert files["dockerd"].exists()
        assert not files["containerd"].exists()
        setup.stop_daemon()
        assert running.wait(5) == -signal.SIGTERM
    assert not files["dockerd"].exists()
    assert setup.program_of(running.pid) == ""
    files["dockerd"].write_text("no number")
    setup.stop_daemon()
    assert list(tmp_path.glob("*.pid")) == []


def test_a_distribution_counts_where_this_machine_runs_it(debian: FakeDistribution) -> None:
    assert setup.distribution() is debian
    debian.engine_packages = lambda: ()
    assert setup.distribution() is None


def test_only_docker_is_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another engine that answers is told what it lacks."""

    class Other(engine.Docker):
        name = "other"
        title = "Other"

    monkeypatch.setattr(engine, "probe", lambda: engine.State({"engine": "9.0"}, client=True, engine=Other()))
    monkeypatch.setattr(setup, "repair", pytest.fail)
    with pytest.raises(UserError, match=r"Other's engine is 9\.0, which is too old.*; get it from your distribution"):
        setup.ensure()
