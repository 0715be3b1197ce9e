"""The tricks, as data: one row each, in ``data/*.toml``, a file a family.

Bytes are TOML strings whose characters are bytes (Latin-1): ``\\r\\n`` and ``\\u00e9`` are what they say.
``repeat`` (mark, text, times) stands for what would be long: the mark becomes that text so many times.
``absolute`` is what is expected in absolute form where that is not as in a tunnel. There the target names the
host, which is looked up, and takes the Host field's place (RFC 9112 section 3.2.2): what is in no name is
refused, an odd or missing Host field is of no account, and a name that leads nowhere is not answered for.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any

from evasion.origins import DATA

MODES = ("transparent", "reverse", "connect", "socks5", "absolute")
FAMILIES = ("spelling", "framing", "segmentation", "connection", "tls", "other")
WORDS = frozenset({"blocked", "refused", "held", "served", "relayed", "any"})

_BEFORE_TARGET = re.compile(rb"\W*+[^\s/:]*+[ \t\v\f]++(?=/)").match
_HEAD_END = re.compile(rb"\r\n\r\n|\n\n").search
_HOST = re.compile(rb"\n(?i:host):[ \t]*+([^\0- \x7f/?#]+)[ \t]*\r?\n").search
_LENGTH = re.compile(rb"\n(?i:content-length):[ \t]*+(\d+)[ \t]*\r?\n").search
_CHUNKED = re.compile(rb"\n(?i:transfer-encoding):[ \t]*+chunked[ \t]*\r?\n").search


@dataclass(frozen=True)
class Tls:
    """What is odd about a row's TLS connection.

    Attributes:
        sni: the server name, or empty for none.
        alpn: offered protocols.
        cut: where the ClientHello is cut into segments; ``every`` for single bytes.
        records: how many TLS records the ClientHello is spread over.
        record_version: of the ClientHello's records; 0 for the client's own.
        resume: whether a first connection is made whose session is resumed.
        version: the highest version offered.
    """

    sni: str = "paged.example"
    alpn: tuple[str, ...] = ()
    cut: str | tuple[int, ...] = ()
    records: int = 1
    record_version: int = 0
    resume: bool = False
    version: str = "1.3"


@dataclass(frozen=True)
class Row:
    """One trick.

    Attributes:
        name: unique.
        turns: what is sent; each further one once a response to the one before has come.
        cut: offsets at which each turn is cut into segments; ``every`` for single bytes.
        expected: by mode, the outcome of each request in order. ``blocked``: the block page, and nothing
            reached the origin. ``refused``: an error or the end of the connection. ``held``: one of
            these two. ``served``: an innocent page. ``relayed``: something that the origin said. ``any``:
            whatever happens, as long as it is not the listed page.
        bare: the origins that serve a listed page for it where no filter stands between.
        engines: the filters that it goes to.
        tls: None for a plain connection's default.
        listed_address: sent to the address that is listed (transparent mode only).
    """

    name: str
    family: str
    turns: tuple[bytes, ...]
    expected: dict[str, tuple[str, ...]]
    bare: tuple[str, ...] = ()
    cut: str | tuple[int, ...] = ()
    pause: float = 0.002
    wires: tuple[str, ...] = ("plain", "tls")
    origins: tuple[str, ...] = ("nginx", "apache")
    engines: tuple[str, ...] = ("layer", "flows")
    tls: Tls = field(default_factory=Tls)
    listed_address: bool = False

    def segments(self, turn: bytes) -> list[bytes]:
        return cut_up(turn, self.cut)

    def in_absolute_form(self) -> "list[Row]":
        """It as an explicit proxy's client sends it: all of its requests in absolute form, and the first
        alone where there are more. What cannot be written so is sent as it is.
        """
        once = (_in_absolute_form(self.turns[0], 1), *self.turns[1:])
        added, cut, expected = len(once[0]) - len(self.turns[0]), self.cut, self.expected["absolute"]
        if added and not isinstance(cut, str):
            target = once[0].index(b"http://")
            cut = tuple(c + added * (c > target) for c in cut)
        turns = tuple(_in_absolute_form(turn) for turn in self.turns)
        rows = [replace(self, turns=turns, cut=cut)]
        if turns != once:
            # What follows names no origin; that of the request before must not be taken for it.
            alone = {"absolute": (expected[0], *("any",) * max(1, len(expected) - 1))}
            rows.append(replace(self, turns=once, cut=cut, expected=alone))
        return rows


def _in_absolute_form(data: bytes, most: int = -1) -> bytes:
    """Requests as an explicit proxy is asked for them: the Host field's value before each target that is a
    path, or a host that has listed pages where that cannot stand in a target.

    Bodies stay as they are, and so does all behind what cannot be told to be one.
    """
    out, at = b"", 0
    while most and at < len(data):
        before, end = _BEFORE_TARGET(data, at), _HEAD_END(data, at)
        head = data[at : end.end() if end else len(data)]
        if before is not None:
            found = _HOST(head)
            out += data[at : before.end()] + b"http://" + (found[1] if found else b"paged.example")
            at, most = before.end(), most - 1
        if end is None:
            break
        stop = end.end()
        if length := _LENGTH(head):
            stop += int(length[1])
        elif _CHUNKED(head):
            last = data.find(b"0\r\n\r\n", stop)
            stop = last + 5 if last >= 0 else len(data)
        out += data[at:stop]
        at = stop
    return out + data[at:]


@dataclass(frozen=True)
class StreamRow:
    """A trick of HTTP/2: header fields of one stream, as written."""

    name: str
    fields: tuple[tuple[str, str], ...]
    expected: str
    bare: tuple[str, ...] = ()
    sni: str = "paged.example"
    before: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    frames: str = ""


def cut_up(data: bytes, cut: str | Sequence[int]) -> list[bytes]:
    """Cut bytes into segments."""
    if cut == "every":
        return [data[i : i + 1] for i in range(len(data))]
    offsets = [0, *(int(c) for c in cut), len(data)]
    return [data[a:b] for a, b in pairwise(offsets) if a < b]


def _strings(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _expected(value: Any, modes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    table = value if isinstance(value, dict) else dict.fromkeys(modes, value)
    if "transparent" in table:
        # A client that names the origin by address gets what one gets whose connection is redirected.
        table = dict.fromkeys(MODES[2:], table["transparent"]) | table
    expected = {mode: _strings(words) for mode, words in table.items()}
    assert all(word in WORDS for words in expected.values() for word in words), value
    return expected


def _row(family: str, data: dict[str, Any]) -> Row:
    data = dict(data)
    mark, filling, times = data.pop("repeat", ("{*}", "", 0))
    turns = tuple(
        turn.replace(mark, filling * times).encode("latin-1") for turn in _strings(data.pop("bytes"))
    )
    expected = _expected(data.pop("expected"), _strings(data.pop("modes", MODES)))
    if "absolute" in data:
        expected["absolute"] = _strings(data.pop("absolute"))
    tls = dict(data.pop("tls", {}))
    for key in ("alpn", "cut"):
        if isinstance(tls.get(key), list):
            tls[key] = tuple(tls[key])
    for key in ("wires", "origins", "engines", "bare"):
        if key in data:
            data[key] = _strings(data[key])
    if isinstance(data.get("cut"), list):
        data["cut"] = tuple(data["cut"])
    return Row(family=family, turns=turns, expected=expected, tls=Tls(**tls), **data)


@cache
def load_rows() -> tuple[Row, ...]:
    """All rows but those of HTTP/2."""
    rows = []
    for family in FAMILIES:
        data = tomllib.loads((DATA / f"{family}.toml").read_text())
        rows += [_row(family, row) for row in data["row"]]
    names = [row.name for row in rows]
    assert len(set(names)) == len(names), [n for n in names if names.count(n) > 1]
    return tuple(rows)


@cache
def load_stream_rows() -> tuple[StreamRow, ...]:
    """The rows of HTTP/2."""
    rows = []
    for data in tomllib.loads((DATA / "http2.toml").read_text())["row"]:
        data = dict(data)
        for key in ("fields", "before"):
            data[key] = tuple((name, value) for name, value in data.get(key, ()))
        if "body" in data:
            data["body"] = data["body"].encode("latin-1")
        if "bare" in data:
            data["bare"] = _strings(data["bare"])
        rows.append(StreamRow(**data))
    return tuple(rows)
