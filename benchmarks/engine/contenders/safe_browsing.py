"""The Safe Browsing way: hash up to 30 expressions of a URL, look each up in a set.

https://developers.google.com/safe-browsing/reference/URLs.and.Hashing
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from ipaddress import IPv4Address
from urllib.parse import unquote_to_bytes

from benchmarks.engine.contenders.base import Contender, Steps
from benchmarks.engine.material import Files, Request

_PLAIN_HOST = re.compile(r"[a-z0-9\-_]+(?:\.[a-z0-9\-_]+)*\.[a-z][a-z0-9\-_]*").fullmatch
_PLAIN_PATH = re.compile(r"/[!$&'()*+,\-./0-9:;=@A-Z\[\]^_`a-z{|}~]*").fullmatch
_UNSAFE = re.compile(r"[^!-\"$&-~]")
_STEP = 1024


class Engine(Contender):
    """A set of SHA-256 digests."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def build(self, files: Files) -> Steps:
        """Hash each expression; the set grows as it goes."""
        with files.expressions.open() as lines:
            for number, line in enumerate(lines):
                self._digests.add(sha256(line.rstrip("\n").encode()).digest())
                if not number % _STEP:
                    yield
        yield

    def run(self, requests: Sequence[Request]) -> int:
        """Canonicalise, hash, look up, until one is found."""
        digests = self._digests
        blocked = 0
        for host, target in requests:
            for expression in expressions(host, target):
                if sha256(expression.encode("latin-1")).digest() in digests:
                    blocked += 1
                    break
        return blocked


def expressions(host: str, target: str) -> Iterator[str]:
    """Host suffixes times path prefixes, at most 5 times 6."""
    host = canonical_host(host)
    path, mark, query = target.partition("?")
    path = canonical_path(path)
    if mark:
        query = _UNSAFE.sub(_escape, _unescape(query)) if "%" in query else query
        paths = [f"{path}?{query}", path]
    else:
        paths = [path]
    cut = 0
    for _ in range(4):
        cut = path.find("/", cut) + 1
        if not cut:
            break
        if cut < len(path):
            paths.append(path[:cut])
    for suffix in _suffixes(host):
        for path in paths:
            yield suffix + path


def _suffixes(host: str) -> Iterator[str]:
    yield host
    if host.endswith("]") or host[-1:].isdigit():
        return
    labels = host.split(".")
    for start in range(max(len(labels) - 5, 1), len(labels) - 1):
        yield ".".join(labels[start:])


def canonical_host(host: str) -> str:
    if _PLAIN_HOST(host):
        return host
    host = re.sub(r"\.+", ".", _unescape(host)).strip(".").lower()
    try:
        return str(IPv4Address(int(host, 0)))
    except ValueError:
        return host


def canonical_path(path: str) -> str:
    if _PLAIN_PATH(path) and "//" not in path and "/." not in path:
        return path
    path = _unescape(path.translate({9: None, 10: None, 13: None}))
    parts = path.split("/")
    kept: list[str] = []
    for part in parts:
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    tail = "/" if kept and parts[-1] in ("", ".", "..") else ""
    return _UNSAFE.sub(_escape, f"/{'/'.join(kept)}{tail}")


def _unescape(text: str) -> str:
    while "%" in text:
        decoded = unquote_to_bytes(text.encode("latin-1")).decode("latin-1")
        if decoded == text:
            break
        text = decoded
    return text


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"
