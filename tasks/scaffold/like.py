"""Copies a service: `new NAME --like SERVICE`."""

from __future__ import annotations

import re
import shutil

from ..project import SERVICES, env_prefix


def copy(model: str, service: str, port: int) -> None:
    """Copy a service's folder under a new name, with a package, settings, a ``port`` and volumes of its own.

    In the copy's Python files only imports of its package and the names of its settings change.
    """
    folder, old, package = SERVICES / service, model.replace("-", "_"), service.replace("-", "_")
    hidden = shutil.ignore_patterns("__pycache__", "*.pyc", ".git", ".[!g]*")  # .gitignore and .gitkeep come along
    shutil.copytree(SERVICES / model, folder, symlinks=True, ignore=hidden)
    if (folder / old).is_dir():
        (folder / old).rename(folder / package)
    else:
        package = old  # a service that was adopted: its package has another name, and keeps it
    # What a link leads to may be another's.
    for path in [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]:
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # no text
        # WEB_CONCURRENCY, BUILD_PACKAGES and DJANGO_SETTINGS_MODULE are no settings of services called web, build and django.
        text = re.sub(rf"\b(?!WEB_CON|BUILD_PA|DJANGO_S){env_prefix(model)}_(?=[A-Z])", f"{env_prefix(service)}_", text)
        if path.suffix == ".py":
            # After `import pilot.views`, pilot.views is the module; and there is mock.patch("pilot.views.ask").
            before = r"(?<![\w.])" if re.search(rf"(?m)^\s*import {old}\.", text) else "(?<=[\"'])"
            text = re.sub(rf"{before}{old}(?=\.\w)", package, text)
            text = re.sub(rf"(?m)^(\s*import) {old}(?=\s*(#|$))", rf"\1 {package} as {old}", text)
            text = re.sub(rf"(?m)^(\s*(?:from|import)) {old}\b", rf"\1 {package}", text)
            if path.parent.name == "stack":
                text = re.sub(rf"(?<=[\"']){model}(?=[\"'-])", service, text)
        elif path == folder / "compose.yaml":
            text = rename_in_compose(text, model, service, package)
            # Not the port of a database, to which the service connects.
            for number, published in enumerate(dict.fromkeys(re.findall(r"_PORT:-(\d+)\}:\d", text))):
                text = text.replace(f"_PORT:-{published}}}", f"_PORT:-{port + number}}}")
        path.write_bytes(text.encode())
        path.rename(path.with_name(path.name.replace(f"test_{old}.py", f"test_{package}.py")))


def rename_in_compose(text: str, model: str, service: str, package: str) -> str:
    """Rename the services, volumes, secrets and the module of a compose file that begin with the ``model``'s name."""
    # Whole words, and names such as pilot-database, unless that is another service; not the first part of a path, as in
    # /pilot/data, nor what code asks importlib.metadata for.
    others = "|".join(["$^", *(path.name.removeprefix(model) for path in SERVICES.glob(f"{model}-*"))])
    before, after = r"(?<![\w.-])(?<![\s:\"'\[,=]/)(?<!DISTRIBUTION: \")", rf"(?!\w)(?!({others})(?![\w-]))"
    names = f"{before}({model}|{model.replace('-', '_')}){after}"
    text = re.sub(names, lambda found: service if found[1] == model else package, text)
    module = rf"((?<=PACKAGE: )|(?<=APPLICATION: )|(?<=-[mA] )|(?<=app=|-m, )){service}\b|\b{service}(?=[.:][a-z_])"
    text = re.sub(module, package, text)
    if "PACKAGE: " not in text and package != service:
        text = text.replace(f"SERVICE: {service}\n", f"SERVICE: {service}\n        PACKAGE: {package}\n")
    return text
