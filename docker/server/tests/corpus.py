"""Requests that two servers could understand differently (request smuggling), or that are none, by the answer's status.

A vertical bar is CRLF. HEADS are rejected before the application is called, BODIES as soon as it reads the body.
"""

G, P = "GET / HTTP/1.1|Host: x|", "POST / HTTP/1.1|Host: x|"
T, C = P + "Transfer-Encoding", P + "Transfer-Encoding: chunked||"

HEADS = {
    400: [
        P + "Content-Length: 6|Transfer-Encoding: chunked||0||G",
        *(P + f"{fields}||0||{G}|" for fields in ("Transfer-Encoding: chunked|Content-Length: 4", "Content_Length: 5")),
        *(P + f"{name}: chunked|Content-Length: 5||0||{G}|" for name in ("Transfer_Encoding", "Script_Name")),
        *(P + f"Content-Length: 5|Content-Length: {length}||hello!" for length in (5, 6)),
        *(P + f"Content-Length: {length}||hello" for length in ("", "+5", "-5", "0x5", "5, 5", "5 5", "1_0", "5.0")),
        *(P + f"Content-Length: {length}||hello" for length in ("\xb2", "9" * 5000, "0" * 5000 + "5")),
        *(P + f"Transfer-Encoding: {coding}||0||" for coding in ("chunked, identity", "chunked, chunked", "\vchunked")),
        *(T + f"{rest}||0||" for rest in (" : chunked", ":| chunked", ": chunked|Transfer-Encoding: chunked")),
        P + "Transfer-Encoding: identity|Content-Length: 5||hello",
        *(G + f"{field}||" for field in ("A: b| c", "A: b\0c", "A\0: b", "A B: c", ": b", "nonsense", "Host: y", "\n")),
        *(f"GET / HTTP/1.1|Host: {host}||" for host in ("", "a b", "a,b", "a/b", "a@b", "a:b", "a\\b", "[::1", "a?b")),
        *(f"GET / HTTP/1.1{rest}" for rest in ("||", "| A: b|Host: x||", "\nHost: x\n\n", "\r|Host: x\r|\r|")),
        *(f"GET / HTTP/1.1{rest}A: b||" for rest in ("\nHost: x|", "|Host: x\n", "|Host: x\r")),
        *(f"{line} HTTP/1.1|Host: x||" for line in ("GET  /", "GET /\t", "G(T /", "CONNECT x:80", "CONNECT /")),
        *(f"GET {target} HTTP/1.1|Host: x||" for target in ("x:80", "*", "x?://x")),
        *(f"GET {target} HTTP/1.1|Host: x||" for target in ("http://y/", "http://x:1/", "http://a@x/", "/#a", "/?b#a")),
        *(f"GET / HTTP/{version}|Host: x||" for version in ("2.0", "3.0", "1.1 ")),
        *(f"{empty}{G}|" for empty in ("\n", "||", " ")),
        *("GET /|", "PRI * HTTP/2.0||SM||", "\0\1\2\3||", C.replace("1.1", "1.0") + "0||"),
    ],
    414: ["GET /" + "a" * 20_000 + " HTTP/1.1|Host: x||"],
    431: [
        *(G + f"A: {'a' * size}|" * number + "|" for size, number in ((20_000, 1), (1, 200), (8000, 5))),
        *(G + f"A: {'a' * size}|" * number for size, number in ((8000, 97), (1, 100_000))),  # they do not end
    ],
    501: [T + f": {coding}||0||" for coding in ("gzip, chunked", "gzip|Transfer-Encoding: chunked", "x", "")],
}
SIZES = ("", "zz", "0x5", "+5", "-5", "0_5", " 5", "5 ", "5;=", "5;a\nb", "8" + "0" * 15, "f" * 99)
BODIES = {
    200: [
        *(f"{G.replace('/', target, 1)}|" for target in ("http://x/?a=b://c", "http://x", "http://x?a=b")),
        *(f"|{G}|", G.replace("GET /", "OPTIONS *") + "|", C + "5;a=b|hello|0|A: b||"),
        P.replace("1.1", "1.0") + "Expect: 100-continue|Content-Length: 5||hello",  # HTTP/1.0 has no 100 Continue
        G.replace("/", "/short", 1) + f"|{P}|",  # a second answer would complete the first
    ],
    400: [
        *(C + f"{size}|hello|0||" for size in SIZES),
        *(C + f"5{rest}" for rest in ("|hello!|0||", "|hello\n0||", "\nhello|0||", "\nhello\n0\n\n", "\r\rhello|0||")),
        *(C + f"0|{trailer}" for trailer in ("A: b\n\n", "nonsense||", "Content-Length: 5||", "A b: c||")),
        *(C + f"0|{trailer}" for trailer in ("A: " + "b" * 200_000, "A: b|" * 40_000)),  # they do not end
    ],
}
# The client hangs up before the body is complete: 400.
TRUNCATED = [P + "Content-Length: 10||hello", C + "a|hello", C + "5|hello|", C + "5|hello|0|"]

# httptools, which parses for ASGI, accepts these, waits for more, or has 400 where 501 would be right.
DIFFERENT = ("GET  /", "\nGET", "||GET", "GET /|", "Encoding: x|", "Encoding: |", "5;=|", "8000000000000000")


def differs(request: str) -> bool:
    """Whether uvicorn leaves no choice but to treat a request in another way."""
    return any(part in request for part in DIFFERENT)


def encoded(request: str) -> bytes:
    """What is sent."""
    return request.replace("|", "\r\n").encode("latin-1")
