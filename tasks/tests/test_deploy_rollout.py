"""How a roll-out is planned, watched and told; the engines are pretended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .. import deploy, env, venv
from ..shell import UserError, output
from ..stack import model as model_module
from .conftest import calls, fake_docker, write_tool
from .scaffolding import NO_SESSION


@pytest.mark.parametrize(
    ("replicas", "done"),
    [("2/2", True), ("1/2", False), ("0/1 (1/1 completed)", True), ("1/1 (0/1 completed)", False), ("2/2 (max 1 per node)", True)],
)  # fmt: skip
def test_when_a_service_is_complete(replicas: str, done: bool) -> None:
    assert deploy.complete(replicas) is done


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("task: non-zero exit (1)", r"task: non-zero exit \(1\)"),
        ("starting container failed: context canceled", ".* as after failed health checks"),  # by the roll-back itself
    ],
)
def test_a_rollback_is_told_with_its_reason(no_docker: Path, error: str, told: str) -> None:
    write_tool(
        no_docker / "docker",
        rf"""case "$1 $2" in
        "service inspect") echo project_web rollback_completed ;;
        "service ps") printf 'new\tRunning\t\nold\tFailed 9 seconds ago\t{error}\n' ;;
        *) exit 99 ;;
        esac""",
    )
    with pytest.raises(UserError, match=f"project_web was rolled back: {told}"):
        deploy.Rollout(("docker",), []).converge({"project_web"})


def test_a_rollback_is_told_when_all_other_updates_have_ended(no_docker: Path, tmp_path: Path) -> None:
    write_tool(
        no_docker / "docker",
        f"""case "$1 $2" in
        "service inspect")
            echo project_web rollback_completed
            [ -e {tmp_path}/seen ] && echo project_api rollback_completed || echo project_api updating
            touch {tmp_path}/seen ;;
        "stack services") printf 'project_web\\t2/2\\nproject_api\\t2/2\\n' ;;
        "service ps") ;;
        *) exit 99 ;;
        esac""",
    )
    with pytest.raises(UserError, match=r"web was rolled back: its tasks have ended without.*api was rolled back"):
        deploy.Rollout(("docker",), []).converge({"project_web", "project_api"})


@pytest.mark.usefixtures("project")
def test_a_rollback_has_no_reason_of_an_earlier_roll_out(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is that printed, however few seconds ago it was."""
    write_tool(
        no_docker / "docker",
        r"""case "$1 $2" in
        "info --format") echo true ;;
        "stack ps") echo before ;;
        "stack deploy") ;;
        "service inspect") echo ours_web rollback_completed ;;
        "service ps") printf 'before\tFailed 9 seconds ago\t"no such table"\n' ;;
        esac""",
    )
    monkeypatch.setattr(deploy, "translate", lambda *_: {"nodes": {}, "secrets": [], "files": {"1.yaml": ["web"]}})
    with pytest.raises(UserError, match="ours_web was rolled back: its tasks have ended without an error"):
        deploy.swarm(NO_SESSION, "", "host")


def test_nodes_that_take_no_tasks_do_not_count(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tool(
        no_docker / "docker",
        """case "$1" in
        info) echo true ;;
        node) printf 'Ready Active\nReady Active\nReady Drain\nDown Active\n' ;;
        *) exit 99 ;;
        esac""",
    )
    monkeypatch.setattr(deploy, "translate", lambda *_: {"nodes": {"web": 3, "api": 2}})
    with pytest.raises(
        UserError, match=r"^2 of the nodes can take tasks; for ports in host mode, web needs 3, all replicas"
    ):
        deploy.swarm(None, "", "host")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "update", "replicas"),
    [
        ("project_web-migrate", "", r"project_web\t0/2\nproject_web-migrate\t0/1 (1/1 completed)\n"),
        ("project_web", "", r"project_web\t2/2\n"),
        ("project_web", "completed", r"project_web\t2/2\n"),
    ],
    ids=["services of other steps do not count", "a new service has no update", "an update has ended"],
)
def test_a_step_has_converged(no_docker: Path, step: str, update: str, replicas: str) -> None:
    write_tool(
        no_docker / "docker",
        f"""case "$1 $2 $4" in
        "service inspect {step}") echo {step} {update} ;;
        "stack services "*) printf '{replicas}' ;;
        *) exit 99 ;;
        esac""",
    )
    deploy.Rollout(("docker",), []).converge({step})


def test_a_job_that_fails_is_told_at_once_with_its_last_lines(
    no_docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tool(
        no_docker / "docker",
        """case "$*" in
        "service inspect"*) echo project_web-migrate ;;
        "stack services"*) printf 'project_web-migrate\t0/1 (0/1 completed)\n' ;;
        "service ps"*) printf 'task7\tFailed 3 seconds ago\t"task: non-zero exit (3)"\n' ;;
        "service logs --raw --tail=5 task7") echo "no such table" >&2 ;;
        *) exit 99 ;;
        esac""",
    )
    with pytest.raises(UserError, match=r"^project_web-migrate failed; its last lines .*Mend it, publish and deploy"):
        deploy.Rollout(("docker",), []).converge({"project_web-migrate"})
    shown = "".join(capsys.readouterr())
    assert "project_web-migrate: task: non-zero exit (3)\n" in shown
    assert "project_web-migrate: no such table\n" in shown


def test_a_job_that_failed_in_an_earlier_roll_out_is_run_again(no_docker: Path, tmp_path: Path) -> None:
    write_tool(
        no_docker / "docker",
        f"""case "$1 $2" in
        "service inspect") echo >>{tmp_path}/turns ;;
        "stack services") printf "web-migrate\t0/1 ($(($(wc -l <{tmp_path}/turns) > 1))/1 completed)\n" ;;
        "service ps") printf 'before\tFailed 3 seconds ago\t"task: non-zero exit (3)"\n' ;;
        *) exit 99 ;;
        esac""",
    )
    deploy.Rollout(("docker",), ["before"]).converge({"web-migrate"})
    assert len((tmp_path / "turns").read_text().splitlines()) == 2


def test_new_errors_of_tasks_are_told_once_with_their_last_lines(
    no_docker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tool(
        no_docker / "docker",
        f"""case "$1 $2" in
        "service inspect") echo >>{tmp_path}/turns ;;
        "stack services") printf "web\t$(($(wc -l <{tmp_path}/turns) > 2))/1\n" ;;
        "service ps")
            printf '4\tReady\t\n3\tPending 2 seconds ago\t"no suitable node"\n2\tFailed 2 minutes ago\t"non-zero exit (1)"\n1\tFailed 9 seconds ago\t"old"\n'
            printf '5\tRejected 1 second ago\t"container %s: address in use
of gateway"\n' 0123456789ab c123456789ab ;;
        "service logs") [ "$5" = 2 ] && echo && echo "no token in task $5" ;;
        *) exit 99 ;;
        esac""",
    )
    deploy.Rollout(("docker",), ["1"]).converge({"web"})
    *told, last = capsys.readouterr().out.splitlines()
    assert told == [
        "web: no suitable node",
        "web: non-zero exit (1)",
        "web: no token in task 2",
        "web: container 0123456789ab: address in use",
    ]
    assert last.startswith("web ready: ")


@pytest.mark.usefixtures("project")
def test_swarm_is_given_one_step_after_the_other(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has the secrets; what is gone is removed with the last step."""
    plan = {"nodes": {"web": 1}, "files": {"0.yaml": ["migrate"], "1.yaml": ["web"]}, "secrets": ["password"]}
    monkeypatch.setattr(deploy, "translate", lambda *_: plan)
    monkeypatch.setattr(deploy.Rollout, "converge", lambda self, services: output(*self.docker, "wait", *services))
    answers = {"info": "echo true", "node ls": "echo Ready Active"}
    others = ("secret inspect", "stack ps", "stack deploy", "wait")
    fake_docker(no_docker, answers | dict.fromkeys(others, ""))
    deploy.swarm(NO_SESSION, "", "host")
    command = "stack deploy {} --with-registry-auth --detach --compose-file={} ours"
    assert [call for call in calls(no_docker) if call.split()[0] in {"secret", "stack", "wait"}] == [
        *("secret inspect password", "stack ps --quiet --no-trunc ours"),
        *(command.format("--prune=false", "0.yaml"), "wait ours_migrate"),
        *(command.format("--prune", "1.yaml"), "wait ours_web"),
    ]


def test_a_script_of_deploy_is_told_to_the_user(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("install", "python"):
        monkeypatch.setattr(venv, name, lambda *_: sys.executable)
    monkeypatch.setattr(deploy, "model", dict)
    (project / "deploy").mkdir()
    (project / "deploy/swarm.py").write_text("""print('warning: x', '{"nodes": {}}', sep='\\n')""")
    assert deploy.translate(NO_SESSION, "swarm.py", "stack.yaml") == {"nodes": {}}
    assert capsys.readouterr().out == "warning: x\nwrote stack.yaml\n"
    (project / "deploy/swarm.py").write_text("raise SystemExit('web: no port')")
    with pytest.raises(UserError, match=r"^deploy/swarm\.py failed: web: no port$"):
        deploy.translate(NO_SESSION, "swarm.py", "stack.yaml")


def test_a_secret_that_is_missing_is_named(no_docker: Path) -> None:
    write_tool(no_docker / "kubectl", 'printf \'secrets "%s" not found\\n\' "$3" "$4" >&2; exit 1')
    with pytest.raises(
        UserError,
        match=r'^secrets are missing \(docs/deploying\.md\): secrets "password" not found; secrets "token" not',
    ):
        deploy.secrets({"secrets": ["password", "token"]}, "kubectl", "get", "secret")


def test_without_a_release_there_is_nothing_to_deploy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deploy, "RELEASE", tmp_path / "release.json")
    monkeypatch.setattr(deploy, "clean_commit", lambda: "0")
    with pytest.raises(UserError, match=r"published \(No such file or directory\): `nox -s publish` writes it"):
        deploy.published()


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"commit": "0"}', '{"images": []}', '{"commit": "0", "images": [{}]}']
)
def test_a_release_json_that_does_not_say_what_was_published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setattr(deploy, "RELEASE", tmp_path / "release.json")
    monkeypatch.setattr(deploy, "clean_commit", lambda: "0")
    deploy.RELEASE.write_text(text)
    with pytest.raises(
        UserError, match=r"release\.json does not say what was published \(.*\): `nox -s publish` writes"
    ):
        deploy.published()


@pytest.fixture
def production(monkeypatch: pytest.MonkeyPatch, project: Path, no_docker: Path, docker: str) -> Callable[..., None]:
    """Writes the production stack of a project, which Compose reads, with settings of its one service."""
    (no_docker / "docker").unlink()
    (no_docker / "docker").symlink_to(docker)
    monkeypatch.chdir(project)
    monkeypatch.setattr(deploy, "clean_commit", lambda: "0")
    (project / "reports/release.json").write_text('{"commit": "0", "images": []}')

    def write(**settings: object) -> None:
        (project / "docker/compose.prod.yaml").write_text(json.dumps({"services": {"web": settings}}))
        model_module._config.cache_clear()

    return write


def test_images_are_those_of_the_release_and_others_that_compose_names(
    production: Callable[..., None], project: Path
) -> None:
    production(build={"context": ".", "args": {"SERVICE": "pilot"}}, image="here/pilot")
    with pytest.raises(UserError, match=r"^reports/release\.json has no image for web: `nox -s publish` all"):
        deploy.model()
    entry = {"service": "pilot", "name": "there/pilot", "digest": "sha256:1"}
    (project / "reports/release.json").write_text(json.dumps({"commit": "0", "images": [entry]}))
    assert deploy.model()["services"]["web"]["image"] == "there/pilot@sha256:1"
    production(build={"context": "proxy"}, image="there/proxy:1")
    assert deploy.model()["services"]["web"]["image"] == "there/proxy:1"
    production(build={"context": "proxy"})
    with pytest.raises(
        UserError, match=r"^web has a Dockerfile of its own: push its image, and name that under `image:`$"
    ):
        deploy.model()


def test_what_is_deployed_is_the_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that are not committed would go with images that are."""
    monkeypatch.chdir(project)
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.invalid")
    for command in (["init", "--quiet"], ["add", "pyproject.toml"], ["commit", "--quiet", "--message=x"]):
        output(*git, *command)
    (project / ".gitignore").write_text("*\n!pyproject.toml\n")
    commit = output("git", "rev-parse", "HEAD").strip()
    (project / "reports/release.json").write_text('{"commit": "1", "images": []}')
    with pytest.raises(UserError, match=rf"is of commit 1, and not of {commit}: check out"):
        deploy.model()
    (project / "reports/release.json").write_text(json.dumps({"commit": commit, "images": []}))
    (project / "pyproject.toml").write_text("changed")
    with pytest.raises(
        UserError, match=r"^files differ from the commit \(1, such as pyproject\.toml\): commit or discard"
    ):
        deploy.model()


def test_the_users_settings_are_deployed_and_nothing_of_this_machine(production: Callable[..., None]) -> None:
    production(image="web", ports=["${WEB_PORT:-5000}:8000"], environment={"COLOR": "${COLOR:-}"})
    assert deploy.model()["services"]["web"]["environment"] == {"COLOR": ""}
    model_module._config.cache_clear()
    env.ENV.write_bytes("# für mich\nCOLOR=red\n".encode("latin-1"))
    env.write_env({"WEB_PORT": "5003"})
    found = deploy.model()["services"]["web"]
    assert found["ports"][0]["published"] == "5000"
    assert found["environment"] == {"COLOR": "red"}
