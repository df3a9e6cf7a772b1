"""How a roll-out on Kubernetes is planned, watched and told; kubectl is pretended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .. import deploy
from ..shell import UserError
from .conftest import write_tool
from .test_deploy import script


@pytest.mark.usefixtures("project")
def test_kubernetes_is_given_one_step_after_the_other(no_docker: Path, tmp_path: Path) -> None:
    """And asked for what the step has started, not for all that has its label: a former version's job may have failed."""
    write_tool(no_docker / "kubectl", f'echo "$*" >>{tmp_path}/log')
    plan = json.loads(script("kubernetes.py", str(tmp_path / "base")))
    deploy.kubernetes(plan, tmp_path / "base")
    told = [line.removeprefix("--namespace ours ") for line in (tmp_path / "log").read_text().splitlines()]
    steps = [line.partition("stack.step=")[2][:1] for line in told if "stack.step=" in line]
    assert steps == sorted(steps)
    assert set(steps) == {"0", "1", "2"}
    applied, waited, rolled = (
        next(number for number, line in enumerate(told) if line.startswith(command))
        for command in (
            f"apply --kustomize {tmp_path}/base --selector=stack.step=1",
            "wait job/web-migrate-",
            "rollout status deployment/web",
        )
    )
    assert applied < waited < rolled
    assert "apply --filename" in "\n".join(told[:2])  # the namespace is not there
    assert "get secret password" in told
    # Two of what must run once would be started by the autoscaler of a former version.
    assert told.index("delete hpa --selector=stack.step,app.kubernetes.io/name notin (web)") < applied
    waited_for = [line.split()[2] for line in told if line.startswith("rollout status")]
    assert waited_for == ["statefulset/store", "deployment/web"]
    (job,) = {line.split()[1] for line in told if line.startswith("wait")}
    assert job.startswith("job/web-migrate-")


PLAN = {"secrets": [], "autoscaled": "", "steps": {"0": ["job/migrate-2"], "1": []}}


@pytest.mark.usefixtures("project")
def test_a_step_that_is_not_applied(no_docker: Path, tmp_path: Path) -> None:
    write_tool(no_docker / "kubectl", """case "$*" in *step=0*) echo "is immutable" >&2; exit 1 ;; esac""")
    with pytest.raises(UserError, match=r"^step 0 was not applied, or not all of it; what ran before still runs$"):
        deploy.kubernetes(PLAN, tmp_path)


@pytest.mark.usefixtures("project")
def test_a_namespace_that_is_there_is_left_as_it_is(no_docker: Path, tmp_path: Path) -> None:
    """Whoever may do everything in a namespace may still not change the namespace."""
    write_tool(
        no_docker / "kubectl",
        """case "$*" in
        "get namespace ours "*) echo namespace/ours ;;
        *--filename*) echo "namespaces is forbidden" >&2; exit 1 ;;
        esac""",
    )
    deploy.kubernetes(PLAN, tmp_path)


@pytest.mark.parametrize("found", ["job/migrate-2", "deployment/web"])
def test_what_does_not_get_ready_on_kubernetes_is_told_with_the_newest_warnings(
    no_docker: Path, capfd: pytest.CaptureFixture[str], found: str
) -> None:
    """A job that goes on is not said to have failed."""
    write_tool(
        no_docker / "kubectl",
        """case "$*" in
        "wait job/migrate-2 --for=jsonpath="*|"rollout status deployment/web "*) exit 1 ;;
        "get events --field-selector=type=Warning "*) echo "no such image" ;;
        esac""",
    )
    with pytest.raises(UserError, match=rf"^{found} is not ready, see the warnings above"):
        deploy.wait(("kubectl",), found)
    assert "no such image" in capfd.readouterr().out


def test_a_job_that_fails_on_kubernetes_is_told_at_once(no_docker: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_tool(
        no_docker / "kubectl",
        """case "$1 $2 $3" in
        *--for=jsonpath=*) ;;
        *--for=condition=Complete) exit 1 ;;
        "logs --tail=5 "*) echo "no such table for $3" ;;
        *) exit 99 ;;
        esac""",
    )
    with pytest.raises(
        UserError, match=r"^job\.batch/web-migrate-abababab failed; .*`kubectl delete job\.batch/web-mig"
    ):
        deploy.wait(("kubectl",), "job.batch/web-migrate-abababab")
    assert "no such table for job.batch/web-migrate-abababab\n" in "".join(capfd.readouterr())
