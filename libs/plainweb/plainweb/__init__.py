"""What our Flask services have in common: errors in plain text, and bodies with a limit."""

from __future__ import annotations

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge


def init_app(app: Flask) -> None:
    """Make an application tell its errors in plain text, and keep browsers from taking any answer for HTML."""
    app.register_error_handler(HTTPException, error)
    app.after_request(never_html)


def error(problem: HTTPException) -> Response:
    """Say an HTTP error in one line of plain text, where Flask would send a page of HTML.

    What the service itself has to say about it, its ``description``, stands behind the name.
    """
    ours = problem.description if problem.description != type(problem).description else None
    line = f"{problem.code} {problem.name}" + (f": {ours}" if ours else "")
    response = Response(f"{line}\n", status=problem.code, mimetype="text/plain")
    response.headers.extend(h for h in problem.get_headers() if h[0] != "Content-Type")
    return response


def never_html(response: Response) -> Response:
    """Keep a browser from taking what a client sent for anything but text."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def read_body(limit: int) -> bytes:
    """Read the whole body of the current request, whatever its content type.

    Raises RequestEntityTooLarge for one of more than ``limit`` bytes. Werkzeug's own limit is not enough here: it cuts
    a chunked body off without a word.
    """
    if (request.content_length or 0) > limit:
        raise RequestEntityTooLarge
    body = bytearray()
    while chunk := request.stream.read(min(64 * 1024, limit + 1 - len(body))):
        body += chunk
        if len(body) > limit:
            raise RequestEntityTooLarge
    return bytes(body)
