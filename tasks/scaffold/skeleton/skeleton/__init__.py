"""The skeleton service."""

from __future__ import annotations

from flask import Flask, Response


def create_app() -> Flask:
    """Make the WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.add_url_rule("/", view_func=hello)
    app.add_url_rule("/healthz", view_func=healthz)
    return app


def hello() -> Response:
    """Say that the service is there."""
    return Response("Hello from skeleton\n", mimetype="text/plain")


def healthz() -> Response:
    """Answer the healthcheck."""
    return Response("ok\n", mimetype="text/plain")
