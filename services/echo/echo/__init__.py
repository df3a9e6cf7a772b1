"""The echo service: answers every request with what it received."""

from __future__ import annotations

import plainweb
from flask import Flask
from werkzeug.routing import PathConverter, Rule

from .settings import Settings
from .views import echo, healthz


class Anything(PathConverter):
    """The rest of a path, also where it has line breaks or begins with another slash."""

    regex = r"[\s\S]+"
    part_isolating = False


def create_app(settings: Settings | None = None) -> Flask:
    """Make the WSGI application, from ``settings`` or, without them, from the environment."""
    app = Flask(__name__, static_folder=None)
    app.extensions["settings"] = settings or Settings.from_environment()
    app.url_map.merge_slashes = False
    app.add_url_rule("/healthz", view_func=healthz)
    # Flask's own routes name their methods; these take every method, also ones that nobody has thought of yet.
    app.endpoint("echo")(echo)
    app.url_map.add(Rule("/", endpoint="echo"))
    app.url_map.converters["anything"] = Anything
    app.url_map.add(Rule("/<anything:path>", endpoint="echo"))
    plainweb.init_app(app)
    return app
