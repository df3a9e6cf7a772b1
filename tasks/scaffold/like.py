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
    hidden = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")
    shutil.copytree(SERVICES / model, folder, symlinks=True, ignore=hidden)
    if (folder / old).is_dir():
        (folder / old).rename(folder / package)
    else:
        package = old  # a service that was adopted: its package has another name, and keeps it
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # no text
        # WEB_CONCURRENCY is no setting of a service called web.
        text = re.sub(rf"\b(?!WEB_CONCURRENCY){env_prefix(model)}_(?=[A-Z])", f"{env_prefix(service)}_", text)
        if path.suffix == ".py":
            text = re.sub(rf"(?m)^(\s*import) {old}$", rf"\1 {package} as {old}", text)
            text = re.sub(rf"(?m)^(\s*(?:from|import)) {old}\b", rf"\1 {package}", text)
            text = re.sub(rf"(?<=[\"']){old}(?=\.\w)", package, text)  # such as mock.patch("pilot.views.ask")
            if path.parent.name == "stack":
                text = re.sub(rf"(?<=[\"']){model}(?=[\"'-])", service, text)
        elif path == folder / "compose.yaml":
            text = rename_in_compose(text, model, service, package)
            text = re.sub(r"(_PORT:-)\d+", rf"\g<1>{port}", text)
        path.write_bytes(text.encode())
        if path.name == f"test_{old}.py":
            path.rename(path.with_name(f"test_{package}.py"))


def rename_in_compose(text: str, model: str, service: str, package: str) -> str:
    """Rename the services, volumes, secrets and the module of a compose file that begin with the ``model``'s name."""
    # Whole words, and names such as pilot-database; not the first part of a path, as in /pilot/data.
    name = r"(?<![\w.-])(?<![\s:\"'\[,=]/){}(?!\w)"
    text = re.sub(name.format(model), service, text)
    text = re.sub(name.format(model.replace("-", "_")), package, text)
    module = rf"(?:(?<=PACKAGE: )|(?<=APPLICATION: )|(?<=-[mA] )|(?<=-m, )){service}\b|\b{service}(?=\.[a-z_])"
    text = re.sub(module, package, text)
    if "PACKAGE: " not in text and package != service:
        text = text.replace(f"SERVICE: {service}\n", f"SERVICE: {service}\n        PACKAGE: {package}\n")
    return text
