"""The journal service's answers."""

from __future__ import annotations

import re
from urllib.parse import quote, urlencode

from flask import Response, current_app, jsonify, request
from plainweb import read_body
from werkzeug.exceptions import BadRequest, NotFound

from .neighbour import ask

LONGEST_BODY = 1024 * 1024  # bytes, as in echo
PAGE = 20  # entries


USAGE = """\
This is journal. It sends requests on to echo and keeps the answers.

/echo/PATH         send a request to echo, and store what it answers
/entries           what is stored, the newest first; ?q= searches, ?page= turns pages
/entries/NUMBER    one answer, as it came
"""


def usage() -> Response:
    """Tell a human what the service does."""
    return Response(USAGE, mimetype="text/plain")


def healthz() -> Response:
    """Answer the health check: the process is alive. Neighbours are not asked: a restart here would not help them."""
    return Response("ok\n", mimetype="text/plain")


def readyz() -> Response:
    """Answer the readiness probe: echo and the database answer, too; raises ServiceUnavailable otherwise."""
    ask(current_app.extensions["settings"].echo_url, "GET", "/healthz", {}, b"")
    current_app.extensions["database"].find("", 0, 1)
    return healthz()


def forward(path: str = "") -> Response:
    """Send the request on to echo, store what comes back, and pass it on; ``Location`` says where it is stored."""
    target = quote(f"/{path}")
    if request.query_string:
        target += "?" + quote(request.query_string, safe="%/?:@!$&'()*+,;=[]")
    body = read_body(LONGEST_BODY)
    echo = current_app.extensions["settings"].echo_url
    answer = ask(echo, request.method, target, dict(request.headers), body)
    number = current_app.extensions["database"].store(request.method, target, answer)
    location = {"Location": f"/entries/{number}"}
    return Response(answer.body, answer.status, location, content_type=answer.content_type)


def entries() -> Response:
    """List what is stored, the newest first, as JSON: ``?q=`` searches, ``?page=`` turns pages.

    ``next`` is where the next page is, null on the last one. Raises BadRequest for a page that can be none.
    """
    query, page = request.args.get("q", ""), request.args.get("page", "1")
    if not re.fullmatch(r"[1-9][0-9]{0,8}", page):
        raise BadRequest("page must be a whole number, from 1 on")
    offset = (int(page) - 1) * PAGE
    found = current_app.extensions["database"].find(query, offset, PAGE + 1)  # one more tells whether there is more
    more = "/entries?" + urlencode({"q": query, "page": int(page) + 1}) if len(found) > PAGE else None
    shown = [row | {"written_at": row["written_at"].isoformat(), "url": f"/entries/{row['id']}"} for row in found]
    return jsonify(entries=shown[:PAGE], next=more)


def entry(number: int) -> Response:
    """What echo answered then, as it came."""
    found = current_app.extensions["database"].get(number)
    if not found:
        raise NotFound(f"there is no entry {number}")
    return Response(found["answer"], content_type=found["content_type"])
