"""The application that APPLICATION names, as MODULE:EXPRESSION, such as blog:app, blog:create_app("production") or dash:app.server."""

import importlib
import os

module, _, expression = os.environ["APPLICATION"].partition(":")
application = eval(expression or "application", vars(importlib.import_module(module)))  # noqa: S307 (the image's own words)
