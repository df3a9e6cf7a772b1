"""The echo service's answers."""

from __future__ import annotations

import base64

from flask import Response, current_app, jsonify, request
from plainweb import read_body


def healthz() -> Response:
    """Answer the healthcheck."""
    return Response("ok\n", mimetype="text/plain")


def echo(path: str = "") -> Response:  # noqa: ARG001 (the raw path is shown, not the decoded one)
    """Answer with the request's method, path, query, headers and body.

    The answer is ``text/plain; charset=utf-8``, or JSON where the client's ``Accept`` prefers it. A body in UTF-8 is shown
    as it came, byte for byte. Any other body is shown in Base64 (RFC 4648), under ``BODY (base64):`` in the text and with
    ``"body_encoding": "base64"`` in the JSON, so no byte of it is lost. Path and query are shown as they were sent, still
    percent-encoded.
    """
    body, encoding = as_text(read_body(current_app.extensions["settings"].max_body_bytes))
    target = request.environ.get("RAW_URI") or request.full_path
    shown_path, _, query = target.partition("?")
    accept = request.accept_mimetypes
    if accept["application/json"] > accept["text/plain"]:
        return jsonify(
            method=request.method,
            path=shown_path,
            query=query,
            headers=list(request.headers),
            body=body,
            body_encoding=encoding,
        )
    label = "BODY:" if encoding == "utf-8" else f"BODY ({encoding}):"
    headers = "".join(f"{name}: {value}\n" for name, value in request.headers)
    text = f"METHOD: {request.method}\nPATH: {shown_path}\nQUERY: {query}\nHEADERS:\n{headers}\n{label}\n{body}"
    return Response(text, mimetype="text/plain")


def as_text(body: bytes) -> tuple[str, str]:
    """Turn bytes into text without loss: ``(text, "utf-8")`` or ``(text, "base64")``."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode("ascii"), "base64"
