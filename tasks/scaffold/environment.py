"""Finds what an existing project reads from its environment, and the databases and brokers that it uses; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

from ..project import env_prefix, toml
from .service import Skeleton

FOLDER = Path(__file__).with_name("adopting")  # what is written into services
KNOWN = toml((FOLDER / "known.toml").read_text(encoding="utf-8"))
WAITS = "    depends_on:  # tests that need these: TESTS_NEED_NEIGHBOURS in docs/recipes.md\n"
LOOK = {name: re.compile(pattern, re.MULTILINE) for name, pattern in KNOWN["patterns"].items()}


def variables(trees: Iterable[ast.Module]) -> dict[str, bool]:
    """The environment variables that code reads, by functions or by pydantic's settings, and whether it fails without."""
    found: dict[str, bool] = {}
    for text in map(ast.unparse, trees):
        own = "|".join([r"os\.environ", *(name or "environ" for name in LOOK["environ"].findall(text))])
        for function, key, end in re.findall(LOOK["readers"].pattern % own, text):
            asked = re.search(rf"'{key}' in|\bget(env)?\('{key}'\)", text)  # whether there is one
            found[key] = found.get(key, False) or (end == (")" if function else "]") and not asked)
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    bases = {one: {ast.unparse(base).rpartition(".")[2] for base in one.bases} for one in classes}
    settings = [(node, text) for node in classes if LOOK["settings"].search(text := ast.unparse(node))]
    for node, text in settings:  # and what inherits from these
        heirs = [one for one in classes if node.name in bases[one] and one not in dict(settings)]
        settings += [(one, f"{ast.unparse(one)}\n{text}") for one in heirs]
        mixins = [one for one in classes if one.name in bases[node] and one not in dict(settings)]
        for field, value in LOOK["field"].findall("\n".join(map(ast.unparse, [node, *mixins]))):
            name = "".join(LOOK["prefix"].findall(text)[:1]) + field
            # Of a class and another for tests, which has a value, the first counts.
            found.setdefault([*LOOK["alias"].findall(value), name][0].upper(), LOOK["needed"].match(value) is not None)
    return found


def databases(texts: Collection[str], imports: Collection[str], folder: Path, *files: str) -> list[str]:
    """The names of SQLite's files that the ``folder`` lacks: among the ``texts`` of code that uses it, and in ``files``, for Paste or of code."""
    used = any("sqlite" in text.lower() for text in [*texts, *imports])
    found = {*texts, *("/".join(names) for text in files for names in LOOK["joined"].findall(text))} if used else set()
    found.update(name for text in files for name in re.findall(r"%\(here\)s/(\S+)", text))
    names = {it[1] for text in found if (it := LOOK["database"].fullmatch(text)) and not (folder / it[1]).exists()}
    return sorted(name for name in names if not any(other.endswith(f"/{name}") for other in names))


def neighbours(packages: Collection[str], texts: Iterable[str]) -> Iterator[SimpleNamespace]:
    """The databases and brokers that a project's packages and URLs in its code are for, with the driver that a URL names."""
    schemes = {scheme for text in texts for scheme in re.findall(r"^([a-z]+\+\w+$|[a-z]+(?:\+\w+)?(?=://))", text)}
    schemes |= {f"postgresql+{driver}" for driver in LOOK["driver"].findall(" ".join(packages))}
    for one in [SimpleNamespace(**each) for each in KNOWN["neighbour"]]:
        own = [scheme for scheme in schemes if re.fullmatch(one.uses, f"{scheme}:")]
        if own or any(re.fullmatch(one.uses, package) for package in packages):
            # Where code has several, it replaces one by the other.
            url = re.sub(r"^\w+", own[0], one.url) if len(own) == 1 and "+" in own[0] else one.url
            yield SimpleNamespace(**vars(one) | {"url": url})


def compose_lines(service: str, found: Iterable[SimpleNamespace], read: Mapping[str, bool]) -> tuple[str, str, str]:
    """Lines of compose.yaml that provide neighbours, and variables that the code needs: of the service itself, further services, and volumes."""
    provided = [one for one in found if one.url]
    values = {name: '"8000"' if name == "PORT" else '""' for name in sorted(read) if read[name] or name == "PORT"}
    for one in provided:
        told = [(one.variable, one.url), *one.parts.items()]
        own = {name: value for pattern, value in told for name in sorted(read) if re.fullmatch(pattern, name)}
        values |= own or {one.usual: one.url}
    variables = "".join(f"      {name}: {value}\n" for name, value in values.items())
    waits = [f"      %name-{one.name}: {{condition: service_healthy}}\n" for one in provided]
    itself = "".join(["    environment: &environment\n", variables, *(waits and [WAITS, *waits])]) if values else ""
    words = {"name": service, "PREFIX": env_prefix(service)}
    services = "".join("\n" + template(f"{one.name}.yaml", words) for one in provided)
    volumes = "".join(template("volume.yaml", words | {"volume": one.name}) for one in provided)
    return Skeleton(itself).substitute(words), services, volumes


def template(file: str, words: Mapping[str, str]) -> str:
    """The text of a file in adopting/ with these words in it."""
    return Skeleton((FOLDER / file).read_text(encoding="utf-8")).substitute(words)


def text_of(path: Path) -> str:
    """The text of a file, "" where there is none, in UTF-8 or, as of PowerShell, UTF-16; other bytes, as of a comment, are replaced."""
    content = path.read_bytes() if path.is_file() else b""
    return content.decode("utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig", "replace")
