"""Production images with hard cases in them: C extensions, what the runtime leaves out, what scanners see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.env import env
from tasks.project import pyproject
from tasks.sizes import weigh

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Clone

HARD = """
import concurrent.futures, contextlib, ctypes, decimal, multiprocessing, socket, sqlite3, ssl, subprocess, sys, threading, uuid, zoneinfo
import cryptography.fernet, lxml.etree, numpy, psycopg

def square(number):
    return number * number

def check():
    assert cryptography.fernet.Fernet(cryptography.fernet.Fernet.generate_key()).encrypt(b"x")
    assert lxml.etree.fromstring("<a><b/></a>").xpath("count(//b)") == 1
    assert float(numpy.linalg.inv(numpy.eye(3) * 2)[0, 0]) == 0.5
    assert psycopg.pq.__impl__ == "binary" and psycopg.pq.version() > 150000
    assert ssl.create_default_context().get_ca_certs() and ssl.OPENSSL_VERSION_INFO >= (3,)
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        assert database.execute("select 6 * 7").fetchone() == (42,)
    assert ctypes.CDLL(None).getpid() > 0
    assert str(zoneinfo.ZoneInfo("Europe/Berlin")) == "Europe/Berlin"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert socket.getaddrinfo("localhost", 80)
    try:
        socket.getaddrinfo("no-such-host.invalid", 80)
    except socket.gaierror:
        pass
    assert b"\\xa4\\xa2".decode("euc_jp") == "あ"
    assert not ssl.cert_time_to_seconds("Jan  5 09:34:43 2018 GMT") < 0
    return "all of it works"

if __name__ == "__main__":
    print(check())
"""


@pytest.fixture(scope="module")
def hard(make_clone: Callable[[str], Clone]) -> Clone:
    """A clone with a second service, `hard`, full of C extensions and of what is easily cut away."""
    clone = make_clone("hard")
    clone.nox("-s", "new", "--", "hard", "--like", "echo")
    folder = clone.root / "services/hard"
    (folder / "hard/check.py").write_text(HARD)
    (folder / "tests/test_check.py").write_text(
        "from hard import check\n\n\ndef test_all_of_it() -> None:\n    assert check.check()\n"
    )
    packages = ("cryptography", "lxml", "numpy", "psycopg[binary]", "tzdata")
    text = (clone.root / "pyproject.toml").read_text()
    more = "".join(f'    "{package}",\n' for package in packages)
    (clone.root / "pyproject.toml").write_text(text.replace("hard = [\n", f"hard = [\n{more}", 1))
    clone.nox("-s", "lock")
    return clone


def run(clone: Clone, service: str, flavor: str, *command: str) -> str:
    image = f"{clone.name}/{service}:{flavor}"
    hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--shm-size=64m")
    return clone.docker("run", "--rm", *hardened, image, "python3", *command).strip()


@pytest.mark.parametrize("flavor", ["prod", "tiny"])
def test_c_extensions_work_in_the_sliced_system(hard: Clone, flavor: str) -> None:
    """`build` itself runs the service's tests there; this runs the same code as the image's own user, hardened."""
    text = hard.nox("-s", "build", "--", "hard", "--flavor", flavor)
    assert "built hard, hard-proof" in text
    assert run(hard, "hard", flavor, "-m", "hard.check") == "all of it works"


def test_all_services_share_the_runtime_layer(hard: Clone) -> None:
    hard.nox("-s", "build")
    layers = {
        s: json.loads(hard.docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", f"{hard.name}/{s}:prod"))
        for s in ("echo", "hard")
    }
    shared = [mine for mine, other in zip(layers["echo"], layers["hard"], strict=False) if mine == other]
    assert shared[0] == layers["echo"][0]
    weighed = weigh.weigh([f"{hard.name}/{service}:prod" for service in layers])
    runtime, *own = (layer for layer in weighed[0].layers if layer.raw_bytes > 100_000)
    assert runtime.shared_with == [f"{hard.name}/hard:prod"]
    assert [layer.shared_with for layer in own] == [[]]


def test_heavy_parts_come_only_with_the_service_that_names_them(hard: Clone) -> None:
    find = "import importlib.util as u; print([bool(u.find_spec(n)) for n in ('_sqlite3', '_codecs_jp')])"
    assert run(hard, "hard", "prod", "-c", find) == "[True, True]"
    assert run(hard, "echo", "prod", "-c", find) == "[False, False]"


def test_a_service_that_fails_its_tests_there_is_not_built(hard: Clone) -> None:
    """What a test finds missing in production fails the build, in one line."""
    tests = hard.root / "services/echo/tests/test_missing.py"
    tests.write_text("import tkinter\n\n\ndef test_it() -> None:\n    assert tkinter\n")
    text = hard.nox("-s", "build", "--", "echo", code=1)
    tests.unlink()
    told = [line for line in text.splitlines() if "Session build aborted" in line]
    assert len(told) == 1
    assert "the build failed in [echo-proof proof" in told[0]


def test_tracebacks_show_the_services_own_source(hard: Clone) -> None:
    """The service's code keeps its source; the library's frames name file and line."""
    code = "import hard.settings as s\ntry: s.Settings.from_environment({'HARD_MAX_BODY_BYTES': 'x'})\nexcept ValueError: import traceback; traceback.print_exc(file=__import__('sys').stdout)"
    text = run(hard, "hard", "prod", "-c", code)
    assert 'File "/app/hard/settings.py", line ' in text
    assert "raise ValueError(" in text


def test_scanners_see_what_is_inside(hard: Clone) -> None:
    hard.nox("-s", "build", "--", "echo", "--sbom")
    bill = json.loads((hard.root / "reports/sbom-echo-prod.cdx.json").read_text())
    found = {part["name"].lower(): part.get("version", "") for part in bill["components"]}
    probe = "import ssl, sys, importlib.metadata as m; print(sys.version.split()[0], ssl.OPENSSL_VERSION.split()[1], m.version('flask'), m.version('gunicorn'))"
    python, openssl, flask, gunicorn = run(hard, "echo", "prod", "-c", probe).split()
    assert found["flask"] == flask
    assert found["gunicorn"] == gunicorn
    assert found["python"] == python
    assert found["libssl3t64"].startswith(openssl)


def test_the_official_layout(hard: Clone) -> None:
    """An interpreter in /usr/local with a shared libpython, as the official image has it."""
    base = "slipway-test/python:usrlocal"
    if not hard.docker("image", "ls", "--quiet", base).strip():
        pytest.skip(f"there is no {base} on this engine")
    settings = hard.root / ".env"
    settings.write_text(f"{settings.read_text()}STACK_BASE={base}\n")
    hard.nox("-s", "build", "--", "echo", "hard")
    assert run(hard, "hard", "prod", "-c", "import sys; print(sys.base_prefix)") == "/usr/local"
    assert run(hard, "hard", "prod", "-m", "hard.check") == "all of it works"
    settings.write_text(settings.read_text().replace(f"STACK_BASE={base}\n", ""))


def test_a_library_that_the_base_lacks_is_told(hard: Clone) -> None:
    """An extension module without what it links to, sliced in the base image."""
    spoil = (
        "mkdir -p /venv; cp /usr/lib/python3.13/lib-dynload/_sqlite3*.so /venv/x.so; rm /usr/lib/*/libsqlite3.so*;"
        "python3 /slice service /root/cut /venv 2>&1; echo code $?"
    )
    mount = f"type=bind,source={hard.root}/docker/build/slice,target=/slice,readonly"
    said = hard.docker("run", "--rm", "--mount", mount, "--entrypoint", "sh", env()["STACK_BASE"], "-c", spoil)
    assert said.splitlines()[0].startswith(
        "error: /venv/x.so needs libsqlite3.so.0, which the base image does not have"
    )
    assert said.splitlines()[1:] == ["code 1"]


def test_a_reference_for_every_recipe() -> None:
    assert Path("template/references/notes.Dockerfile").is_file()
    assert pyproject()["tool"]["slipway"]["budgets"]
