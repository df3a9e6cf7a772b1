"""Makes a service of an existing project, and changes nothing in its code: `new NAME --from DIR [--app MODULE:NAME] [--extra NAME] [--unpin] [--own-lock]`.

Optional, with application.py, requirements.py, resolve.py, environment.py, adopting/ and their tests: delete these and the line in noxfile.py that names it.
"""

from __future__ import annotations

import json
import re
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from textwrap import indent

from nox import Session
from packaging.specifiers import SpecifierSet

from .. import cli
from ..images.target import has_tests
from ..project import ROOT, SERVICES, pyproject
from ..shell import UserError, ask
from ..terminal import say
from . import environment, resolve, service
from .application import CACHES, DATA, TESTS, Application, Code, find_application, matches, said
from .environment import KNOWN, LOOK, text_of
from .requirements import LINTERS, LOCKS, Needs, by_name, find_needs, parse


def add_options(parser: ArgumentParser) -> None:
    """Add its options to ``new``'s command line."""
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="adopt the project in this folder")
    parser.add_argument("--app", metavar="MODULE:NAME", default="", help="with --from: the application or a command")
    parser.add_argument("--extra", action="append", metavar="NAME", help="with --from: an extra or a group, too")
    parser.add_argument("--unpin", action="store_true", help="with --from: newer versions than pins, of the same major")
    parser.add_argument("--own-lock", action="store_true", help="with --from: resolve what it needs by itself")


def adopt(session: Session, args: Namespace) -> None:
    """Copy the project ``args.source`` to the service ``args.name``, with its tests, data and requirements.

    Raises UserError where no application, several, or no requirements are found.
    """
    if args.like or not args.source:
        raise UserError("--app, --extra, --unpin and --own-lock go with --from DIR, and none of them with --like")
    source, folder = args.source.resolve(), SERVICES / args.name
    if not source.is_dir() or folder.is_relative_to(source):
        raise UserError(f"there is no folder {args.source}, or it has this project in it")
    code = Code(source)
    found = find_application(code, args.app)
    if second := next((line for _, line in said(source, "workers")), ""):
        service.check_name(f"{args.name}-worker")
    needs = find_needs(session, source, args.extra or (), found.root)
    packages = {*by_name(map(str, needs.main))}
    for name in [name for name, parts in KNOWN["implied"].items() if code.imports & {*parts} and name not in packages]:
        needs.main.extend(parse("", [name]))
        say(f"{name} is required, too, because the code imports {' or '.join(KNOWN['implied'][name])}")
    locked = {*needs.pins, *(one for name in LOCKS for one in resolve.versions(source / name))}
    if args.unpin:
        unpin(needs, locked)
    taken, left = copy(code, found.root, folder)
    if (own := found.module.partition(".")[0] + ".py") in left and not (folder / own[:-3]).is_dir():
        raise UserError(f"{own} cannot be adopted: this name is not free in services/{args.name} or in its images")
    place_tests(folder)
    kept = environment.databases(code.texts, code.imports, folder, *map(text_of, [*source.glob("*.ini"), *code.trees]))
    keep(source, folder, kept)
    arguments = build_arguments(found, needs, packages)
    service.fill(args.name, {"SERVICE": args.name} | arguments, "compose.yaml.in")
    variables = environment.variables(code.trees.values())
    neighbours = [*environment.neighbours(packages, code.texts)]
    possible = next((one.call for one in code.every if one.interface == "command"), "")
    finish(args.name, found, second, possible, environment.compose_lines(args.name, neighbours, variables))
    write_settings(code, folder, needs, django="django" in packages and has_tests(args.name))
    left += lock(session, args, found.interface, needs, set() if args.unpin else locked)
    say(f"{json.loads(arguments['APPLICATION'])} ({found.interface}), named by {found.said_by}")
    say(f"taken: {', '.join(taken)}; left out: {', '.join(left) or 'nothing'}")
    if kept:
        say(f"kept in instance/, a volume in production: {', '.join(kept)}")
    if told := ", ".join(name + " (needed)" * variables[name] for name in sorted(variables)):
        say(f"the code reads variables, which services/{args.name}/compose.yaml can set: {told}")
    if found.interface != "command" and possible and not second:
        say(f"it has a worker, {possible}: uncomment it in services/{args.name}/compose.yaml")
    for near in neighbours:
        say(f"it seems to use {near.name}: {near.how} in services/{args.name}/compose.yaml")


def unpin(needs: Needs, locked: resolve.Versions) -> None:
    """Ask for newer versions of the same major in place of pins, limits below 1, and the versions in the project's own lock."""
    for one in [one for one in [*needs.main, *needs.tests] if not one.url]:
        fitting = [*one.specifier.filter((it for name, it in locked if name in by_name([str(one)])), prereleases=True)]
        pin = f"=={fitting[0]}" if len(fitting) == 1 else re.sub(r"<0\.[\d.]+", "<1", str(one.specifier))
        one.specifier = SpecifierSet(re.sub(r"[=~]=((\d+)[\w.]*)$", lambda it: f">={it[1]},<{int(it[2]) + 1}", pin))


def write_settings(code: Code, folder: Path, needs: Needs, *, django: bool) -> None:
    """Write the settings of pytest, linters and other tools; with ``django``, its tests run by pytest-django."""
    if not (folder / "ruff.toml").exists():
        shutil.copy(environment.FOLDER / "ruff.toml", folder)
    settings: dict[str, object] = {"python_files": ["test*.py", "*_test.py"]} if any(folder.rglob("tests.py")) else {}
    if django:
        needs.tests.extend(parse("", ["pytest-django"]))
        files = [path for path in (code.source / "tox.ini", *code.trees) if path.name in {"tox.ini", "manage.py"}]
        # Where these take the name from a variable, the first module that has such settings.
        modules = [code.importable(path)[1] for path in code.trees if "\nINSTALLED_APPS" in text_of(path)]
        if named := LOOK["django"].findall("".join(map(text_of, files))) or modules:
            settings |= {"DJANGO_SETTINGS_MODULE": named[0], "python_files": ["test*.py"]}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in (settings | needs.settings).items()]
    lines += LOOK["tools"].findall(text_of(code.source / "pyproject.toml"))
    (folder / "pyproject.toml").write_text(environment.template("pytest.toml", {}) + "".join(lines), encoding="utf-8")


def keep(source: Path, folder: Path, files: list[str]) -> None:
    """Have ``files`` that the code keeps beside itself in instance/, which production has on a volume and git ignores."""
    if files or (source / "instance").is_dir():
        shutil.copytree(environment.FOLDER / "data", folder / "instance")
        (folder / ".gitignore").write_text(f"{text_of(folder / '.gitignore')}\n!instance/\n", encoding="utf-8")
    for name in files:
        place = (folder / name).parent
        if not place.exists():
            place.symlink_to("instance")
        elif place.name != "instance" and not place.is_symlink():
            (folder / name).symlink_to("../" * name.count("/") + f"instance/{Path(name).name}")


def build_arguments(app: Application, needs: Needs, packages: set[str]) -> dict[str, str]:
    """The arguments of the image's build, which gets all that was taken; ``packages`` is what it needs."""
    application = KNOWN["forms"].get(app.interface, "{0.module}:{0.call}").format(app)
    told = {"APPLICATION": application, "DISTRIBUTION": needs.distribution, "ENTRY_POINTS": needs.entry_points}
    arguments = {"PACKAGE": "."} | {key: json.dumps(text) for key, text in told.items() if text}
    if headers := [text for name, text in KNOWN["compiled"].items() if name in packages]:
        arguments["BUILD_PACKAGES"] = " ".join(["gcc libc6-dev python3-dev", *headers])
    return arguments | ({} if app.interface == "wsgi" else {"INTERFACE": app.interface.replace("aiohttp", "command")})


def place_tests(folder: Path) -> None:
    """Have tests where those of services are, also in the verification of production images."""
    if (folder / "test").is_dir() and not (folder / "tests").exists():
        (folder / "test").rename(folder / "tests")
    (folder / "tests").mkdir(exist_ok=True)
    # Those inside packages need a conftest.py above them, where it is.
    moved = [path for path in folder.glob("*.py") if matches(path.name, TESTS) and path.name != "conftest.py"]
    for path in [path for path in moved if not (folder / "tests" / path.name).exists()]:
        path.rename(folder / "tests" / path.name.replace("tests.py", "test_tests.py"))
    if not any((folder / "tests").iterdir()):
        (folder / "tests" / "__init__.py").touch()  # git has no empty folders, and images are verified with this one


def lock(session: Session, args: Namespace, interface: str, needs: Needs, locked: resolve.Versions) -> list[str]:
    """Lock what a service needs, with our server, and what its tests need; return what is left out of that."""
    server = service.SERVERS.get(interface, ())
    servers = {"uwsgi", *by_name(line for lines in service.SERVERS.values() for line in lines)} if server else set()
    # pytest does not belong in production.
    tools = [one for one in needs.main if re.match("pytest|coverage", one.name)]
    lines = [str(one) for one in needs.main if one not in tools and not by_name([str(one)]).keys() & servers]
    more = [str(one) for one in [*needs.tests * has_tests(args.name), *tools] if not matches(one.name, LINTERS)]
    theirs = {it: one for it, one in by_name(more).items() if it not in {*servers, *by_name(lines), *KNOWN["compiled"]}}
    own = by_name(["pytest", "pytest-cov"]) | theirs
    shared = by_name(line for line in pyproject()["dependency-groups"]["tests"] if isinstance(line, str))
    why = "--own-lock asks for it" * args.own_lock or "it has the versions of the project's own" * bool(locked)
    why = why or "its tests need more than the shared test tools" * bool(theirs.keys() - shared.keys())
    # Beside the shared tools, such as FastAPI's test client, else without these at its own versions, else at any.
    choices = [[*({name: name for name in shared} | theirs).values()], [*own.values()], sorted(own)]
    resolve.lock(session, args.name, [*lines, *server], choices, why, locked)
    return [str(one) for one in needs.main if str(one) not in lines] + [f"extra or group {one}" for one in needs.left]


def finish(name: str, found: Application, said: str, seen: str, lines: tuple[str, str, str]) -> None:
    """Add to a service's compose.yaml what the skeleton lacks: a volume, a second process, and, as comments, neighbours.

    The second process is the one that is ``said`` to be run, or, as a comment, too, one that is ``seen`` in the code.
    """
    folder, compose = SERVICES / name, SERVICES / name / "compose.yaml"
    text = compose.read_text(encoding="utf-8")
    # A command line with our port is a server's, and is asked whether it is healthy.
    if found.interface == "command" and "8000" not in found.call:
        text = f"{text.partition('    ports:')[0]}{environment.template('health.yaml', {})}"
    kept = (folder / "instance").exists() or any(map(LOOK["instance"].search, map(text_of, folder.rglob("*.py"))))
    volumes = f"  {name}-data:\n" if kept else ""
    itself, services, more = (indent(text, "#") for text in lines)
    text += (f"    volumes:\n      - {name}-data:/app/instance\n" if kept else "") + itself
    if (said or seen) and found.interface != "command":
        shared = "      <<: *environment\n" if itself else ""
        words = {"name": name, "command": json.dumps(said or seen), "health": environment.template("health.yaml", {})}
        block = environment.template("worker.yaml", words | {"shared": indent(shared, "#") if said else shared})
        text = text.replace(f"  {name}:\n", f"  {name}: &{name}\n", 1) + (block if said else indent(block, "#"))
    text += services + (f"\n{'' if volumes else '#'}volumes:\n{volumes}{more}" if volumes or more else "")
    compose.write_text(text, encoding="utf-8")


def copy(code: Code, root: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Copy what is in ``root``, and what is beside it in the code's folder; return what was taken and what was left out.

    A file with data is taken if git has it, and nothing that git ignores.
    """
    # Production images have these files in the same place; and the folder itself must be no package, as pytest has it.
    leave = [*code.left, "__init__.py", *(path.name for path in (ROOT / "docker/server").iterdir() if path.is_file())]
    folder.mkdir(parents=True)  # git has no empty services/
    source, left = code.source, []
    # The files with data that git has; none where this is no clone.
    data = ask("git", "-C", str(source), "ls-files", "-z", *DATA).communicate()[0].split("\0")
    # What it ignores, such as keys and a developer's data, but for modules, which a build may have made.
    told = ask("git", "-C", str(source), "ls-files", "-zoi", "--exclude-standard", "--directory").communicate()[0]
    ignored = {source / name for name in told.split("\0") if name and not name.endswith(".py")}
    # What is imported from src/ is installed where it was written; not where src itself is imported.
    roots = [root, *(path for path in source.glob("src/") if not code.is_package(path)), source]
    above = {above for place in roots for above in (place, *place.parents)}
    found = [path for place in dict.fromkeys(roots) for path in sorted(place.iterdir()) if path not in above]
    for path in sorted(found, key=lambda path: matches(path.name, leave)):  # documents after the code that reads them
        target, name = folder / path.name, str(path.relative_to(source))
        is_left = (matches(path.name, leave) and name not in data) or path in ignored
        named = LOOK["documents"].findall("".join(map(text_of, folder.rglob("*.py")))) if is_left else ()
        if target.exists() or (is_left and path.name not in named):
            left.append(name)
        elif path.is_dir():
            ignore = lambda at, names: [it for it in names if matches(it, CACHES) or Path(at) / it in ignored]  # noqa: E731 (no longer than that)
            shutil.copytree(path, target, symlinks=True, ignore=ignore)
        else:
            shutil.copy(path, target, follow_symlinks=False)
    return sorted(path.name for path in folder.iterdir()), left


cli.OPTIONS["new"].append(add_options)
service.WAYS |= {"source": adopt, "app": adopt, "extra": adopt, "unpin": adopt, "own_lock": adopt}
