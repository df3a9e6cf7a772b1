"""The journal service: forwards requests to echo, and keeps, lists and searches what came back."""

from __future__ import annotations

import plainweb
from flask import Flask
from werkzeug.routing import Rule

from .database import Database
from .settings import Settings
from .views import entries, entry, forward, healthz, readyz, usage


def create_app(settings: Settings | None = None) -> Flask:
    """Make the WSGI application, from ``settings`` or, without them, from the environment.

    Neither echo nor the database has to be there yet: they are asked when a request needs them.
    """
    settings = settings or Settings.from_environment()
    app = Flask(__name__, static_folder=None)
    app.extensions["settings"] = settings
    app.extensions["database"] = Database(settings.database)
    app.url_map.merge_slashes = False
    app.add_url_rule("/", view_func=usage)
    app.add_url_rule("/healthz", view_func=healthz)
    app.add_url_rule("/readyz", view_func=readyz)
    app.add_url_rule("/entries", view_func=entries)
    app.add_url_rule("/entries/<int:number>", view_func=entry)
    # Flask's own routes name their methods; these take every method.
    app.endpoint("forward")(forward)
    app.url_map.add(Rule("/echo/", endpoint="forward"))
    app.url_map.add(Rule("/echo/<path:path>", endpoint="forward"))
    plainweb.init_app(app)
    return app
