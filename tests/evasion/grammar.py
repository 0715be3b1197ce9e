"""Requests from a grammar of pieces, mutated: what the fuzzer sends. Pure; all chance comes from `rng`."""

import random
from collections.abc import Callable

from evasion.rows import cut_up

LISTED = (
    ("paged.example", "/listed.html"),
    ("paged.example", "/dir/a.html"),
    ("paged.example", "/dir/deep/b.html"),
    ("paged.example", "/view?topic=q31337q"),
    ("paged.example", "/caf\xc3\xa9/a%20b.html"),
    ("paged.example", "/letters.html"),
    ("plain.example", "/gallery/do-not-visit/1.html"),
    ("blocked.example", "/any.html"),
    ("a.blocked.example", "/"),
    ("hop.test", "/any.html"),
)
UNLISTED = (
    ("paged.example", ("/", "/innocent.html", "/listed.htm", "/LISTED.html", "/dirs.html", "/view?topic=1")),
    ("plain.example", ("/", "/innocent.html", "/listed.html", "/gallery/other/1.html", "/a%20b.html")),
    ("notblocked.example", ("/", "/innocent.html", "/listed.html")),
)

_METHODS = ("GET", "HEAD", "POST", "get", "PROPFIND", "OPTIONS", "XYZ", "G", "GETX")
_SPACES = (" ", "  ", "\t", " \t", "\x0b", "\x0c")
_VERSIONS = ("HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/01.1", "http/1.1", "HTTP/0.9", "HTTP/2.0", "")
_ENDS = ("\r\n", "\n", "\n", "\r\r\n", "\r", " \r\n")
_ASPECTS = (
    "lead",
    "method",
    "space",
    "version",
    "end",
    "name",
    "colon",
    "absolute",
    "fields",
    "target",
    "target",
    "host",
)
_SCHEMES = ("http://",) * 4 + ("HTTP://", "https://", "http:/", "http:\\\\", "ws://", "h:// ")
_NAMES = ("Host", "host", "HOST", "hOST", "Host_", "X-Host")
_COLONS = (": ", ":", " : ", ":\t", ":  ", ":\r\n ", "\t:")
_BLANKS = ("", " ", "\t", "  ")
_LEADS = ("", "\r\n", "\n", "\r\n\r\n", " ", "\r", "\t", "\0")
_HEADERS = (
    "Accept: */*", "X: a", "X: a\r\n b", "X:", "Connection: keep-alive", "Connection: close", "Cookie: a=b",
    "Range: bytes=0-9", "Expect: 100-continue", "Upgrade: websocket", "Upgrade: h2c", "TE: trailers",
    "If-None-Match: *", "X-Forwarded-Host: plain.example", "Host: plain.example", "Host : plain.example",
    "Host: paged.example", "Host:", " Host: plain.example", "X: a\nHost: plain.example", "Content-Length: 0",
    "Transfer-Encoding: identity", "Transfer-Encoding: chunked", "Content-Length: 5", "\x00: a", "no colon",
)  # fmt: skip
_PREFIXES = (
    "GET /innocent.html HTTP/1.1\r\nHost: paged.example\r\n\r\n",
    "HEAD /innocent.html HTTP/1.1\r\nHost: paged.example\r\n\r\n",
    "GET /innocent.html HTTP/1.1\r\nHost: plain.example\r\nContent-Length: 3\r\n\r\nabc",
    "GET / HTTP/1.1\r\nHost: paged.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    "GET /none HTTP/1.0\r\nHost: paged.example\r\nConnection: keep-alive\r\n\r\n",
)
_FRAMES = (
    "Content-Length: {n}\r\n\r\n{r}",
    "Content-Length: 0\r\n\r\n{r}",
    "Content-Length: {n}\r\nContent-Length: 0\r\n\r\n{r}",
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{r}",
    "Transfer-Encoding: chunked\r\n\r\n{x}\r\n{r}\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{r}",
    "Content-Length: {n}\r\nTransfer-Encoding: xchunked\r\n\r\n{r}",
    "Transfer-Encoding: \tchunked\r\n\r\n0;a\r\n\r\n{r}",
    "Transfer-Encoding: chunked\r\n\r\n3;\nabc\n0\n\n{r}",
    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{r}",
    "Transfer-Encoding: chunked\r\n\r\n0\r\nA: {r}",
)
_ODD = b"\0\t\n\r\x0b\x0c !\"#%&'*,-./0:;<=?@A[\\]^_`a|~\x7f\x80\xa0\xad\xc0\xff"


def listed_request(rng: random.Random) -> bytes:
    """Something that an origin might answer with a listed page."""
    text = _request(rng)
    if rng.random() < 0.2:
        text = "".join(rng.choice(_PREFIXES) for _ in range(rng.randint(1, 3))) + text
    elif rng.random() < 0.15:
        frame = rng.choice(_FRAMES).format(r=text, n=len(text), x=f"{len(text):x}")
        text = f"GET /innocent.html HTTP/1.1\r\nHost: paged.example\r\n{frame}"
    data = text.encode("latin-1")
    if rng.random() < 0.25:
        data = mutate(rng, data)
    return data


def innocent_request(rng: random.Random) -> tuple[str, bytes]:
    """Plainly formed, for what is not listed: must be served. With its host."""
    host, targets = rng.choice(UNLISTED)
    target = rng.choice(targets)
    if "?" not in target and rng.random() < 0.5:
        target += "?" + "&".join(
            f"{rng.choice('abcxyz')}={rng.randrange(99)}" for _ in range(rng.randint(1, 4))
        )
    fields = rng.sample(("Accept: */*", "User-Agent: x/1.0", "Cookie: a=b; c=d", "Accept-Language: fil"), 2)
    head = [f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "Connection: close"]
    return host, ("\r\n".join(head) + "\r\n\r\n").encode()


def segments(rng: random.Random, data: bytes) -> list[bytes]:
    """Mostly in one piece."""
    draw = rng.random()
    if draw < 0.7:
        return [data]
    if draw < 0.75 and len(data) < 200:
        return cut_up(data, "every")
    return cut_up(data, sorted({rng.randrange(1, max(2, len(data))) for _ in range(rng.randint(1, 4))}))


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Change a few bytes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(out))
        match rng.randrange(5):
            case 0:
                out[at] = rng.choice(_ODD)
            case 1:
                out.insert(at, rng.choice(_ODD))
            case 2:
                del out[at]
            case 3:
                end = min(len(out), at + rng.randint(1, 12))
                out[at:at] = out[at:end]
            case _:
                out[at] ^= 1 << rng.randrange(8)
        if not out:
            out += b"G"
    return bytes(out)


def _request(rng: random.Random) -> str:
    # Few things are odd at once, or nearly nothing would get a page from any origin.
    odd = set(rng.sample(_ASPECTS, rng.choice((1, 1, 2, 2, 3))))

    def pick(aspect: str, choices: tuple[str, ...]) -> str:
        return rng.choice(choices) if aspect in odd else choices[0]

    host, target = rng.choice(LISTED)
    for _ in range(rng.randint(1, 3) if "target" in odd else 0):
        target = rng.choice(_TARGETS)(rng, target)
    named = host
    for _ in range(rng.randint(1, 2) if "host" in odd else 0):
        named = rng.choice(_HOSTS)(rng, named)
    fields = [rng.choice(_HEADERS) for _ in range(rng.randint(1, 3) if "fields" in odd else 0)]
    if "absolute" in odd:
        target = f"{rng.choice(_SCHEMES)}{named}{target}"
        named = rng.choice((named, host, "plain.example", "", "paged.example"))
    if "absolute" not in odd or rng.random() < 0.8:
        field = f"{pick('name', _NAMES)}{pick('colon', _COLONS)}{named}{pick('colon', _BLANKS)}"
        fields.insert(rng.randint(0, len(fields)), field)
    line = pick("method", _METHODS) + pick("space", _SPACES) + target
    version = pick("version", _VERSIONS)
    line += pick("space", _SPACES) + version if version else pick("space", ("", " "))
    return pick("lead", _LEADS) + pick("end", _ENDS).join([line, *fields, "", ""])


def _at_slash(rng: random.Random, target: str, piece: str) -> str:
    slashes = [i for i, c in enumerate(target.partition("?")[0]) if c == "/"]
    if not slashes:
        return target
    at = rng.choice(slashes)
    return target[:at] + piece + target[at + 1 :]


def _escaped(rng: random.Random, target: str, form: str) -> str:
    at = rng.randrange(len(target)) if target else 0
    return target[:at] + "".join(form.format(ord(c)) for c in target[at : at + 1]) + target[at + 1 :]


_DETOURS = (
    "//", "/./", "/x/../", "/../", "///", "\\", "/%2e/", "/x/%2e%2e/", "%2f", "/x%2f..%2f", "/x/..\\", "/%5c",
    "/a%5Cb/../", "/x//../", "/;/", "/x;a/../", "/..;/", "/x/.%2E/", "/%252e/", "/a\\..\\", "/%2F/",
)  # fmt: skip
_TAILS = (
    "?",
    "?x",
    "?x=1&y",
    "#",
    "#x",
    "?#",
    ";x",
    "%00",
    "%20",
    "/",
    "/.",
    "/x/..",
    "?/../innocent.html",
    "%3f",
    "&a=1",
)
_Change = Callable[[random.Random, str], str]
_TARGETS: tuple[_Change, ...] = (
    lambda rng, t: _at_slash(rng, t, rng.choice(_DETOURS)),
    lambda rng, t: _at_slash(rng, t, rng.choice(_DETOURS)),
    lambda rng, t: _escaped(rng, t, "%{:02x}"),
    lambda rng, t: _escaped(rng, t, "%{:02X}"),
    lambda rng, t: _escaped(rng, t, rng.choice(("%25{:02x}", "%u00{:02x}", "%c1%{:02x}", "&#{};"))),
    lambda rng, t: t + rng.choice(_TAILS),
    lambda rng, t: t.swapcase() if rng.random() < 0.5 else t.title(),
    lambda rng, t: t.replace("?", rng.choice(("?a=1&", "?&", "?topic=1&", "??", "%3f"))),
)
_HOSTS: tuple[_Change, ...] = (
    lambda rng, h: h.upper(),
    lambda rng, h: h.title(),
    lambda rng, h: h + rng.choice((".", "..", ":80", ":", ":0080", ".:443", "\t", "\0", "/", "@", "#", "?")),
    lambda rng, h: rng.choice(("www.", ".", "x@", "x:y@", "WWW.", " ", "sub.", "//")) + h,
    lambda rng, h: h.replace(".", rng.choice(("..", "%2e", "\xe3\x80\x82")), 1),
    lambda rng, h: _escaped(rng, h, "%{:02x}"),
    lambda rng, h: rng.choice((f"plain.example@{h}", f"{h}@plain.example", f"{h},plain.example", f"[{h}]")),
)
