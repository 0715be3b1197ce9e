import io
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice

import pytest

from lists.formats.support import DATA, lines, read
from rows import each_row
from urlward.engine.grammar import parse_line
from urlward.lists.formats import FORMATS, FormatError, FormatOptions, convert
from urlward.lists.source import Report, read_source

SAMPLES = [
    # file, kind, lines of the source with entries, entries, bad, unsupported
    ("hosts.txt", "hosts", 4, 5, 3, 1),
    ("adblock.txt", "adblock", 17, 19, 0, 25),
    ("urls.txt", "urls", 12, 12, 5, 1),
    ("urlhaus.csv", "urlhaus", 3, 3, 1, 1),
    ("urlhaus.json", "urlhaus", 3, 3, 2, 1),
    ("phishtank.csv", "phishtank", 3, 3, 0, 1),
    ("phishtank.json", "phishtank", 3, 3, 0, 1),
    ("table.jsonl", "jsonl", 3, 3, 3, 0),
    ("table.json", "json", 3, 3, 1, 0),
    ("projectvic.json", "projectvic", 3, 4, 2, 2),
    ("threatexchange.csv", "threatexchange", 3, 3, 1, 3),
    ("policy.rpz", "rpz", 13, 13, 5, 7),
    ("squidguard", "squidguard", 12, 17, 1, 1),
]


class Nothing:
    """A compiler that forgets."""

    def add(self, entry: object) -> None:
        pass


@each_row(("name", "kind", "taken", "entries", "bad", "unsupported"), SAMPLES)
def test_counts_of_the_samples(
    name: str, kind: str, taken: int, entries: int, bad: int, unsupported: int
) -> None:
    report = Report()
    read_source(DATA / name, Nothing(), report, format=kind)  # type: ignore[arg-type]
    found = (report.lines - report.bad, report.entries, report.bad, report.unsupported)
    assert found == (taken, entries, bad, unsupported)


def test_every_format_has_a_sample() -> None:
    others = {"auto", "grammar", "csv", "squidguard-domains", "squidguard-urls"}
    assert {kind for _, kind, *_ in SAMPLES} | others == set(FORMATS)


NONSENSE = (b"", b"\n", b"\xff\xfe\n", b"\xef\xbb\xbf\n", b"[{\n", b'"\n', b"a" * 300_000, b"(\n" * 9, b"\0")


@each_row("kind", FORMATS)
def test_nonsense_is_never_a_traceback(kind: str) -> None:
    columns = {"url": "1"} if kind == "csv" else {}
    for data in NONSENSE:
        with suppress(FormatError):
            for found in convert(kind, io.BytesIO(data), FormatOptions(columns)):
                assert not isinstance(found, str), data[:9]


@each_row(
    ("kind", "text"),
    [
        ("grammar", "a.example"),
        ("hosts", "0.0.0.0 a.example"),
        ("adblock", "||a.example^"),
        ("urls", "http://a.example/"),
        ("urlhaus", '"1","2026-11-25","http://a.example/"'),
        ("squidguard-domains", "a.example"),
        ("squidguard-urls", "a.example/b/"),
        ("jsonl", '{"host": "a.example"}'),
        ("rpz", "a.example CNAME ."),
    ],
)
def test_byte_order_mark_and_line_ends(kind: str, text: str) -> None:
    plain, _ = read(kind, text)
    assert len(plain) == 1
    assert read(kind, b"\xef\xbb\xbf" + text.encode() + b"\r\n") == (plain, [])


@each_row(
    ("kind", "options", "reason"),
    [
        ("nothing", {}, "is not one of auto, grammar, hosts"),
        ("hosts", {"columns": {"url": "a"}}, "format hosts has no columns"),
        ("auto", {"columns": {"url": "a"}}, "column: needs a format to be said"),
        ("json", {"delimiter": ";"}, "format json has none"),
    ],
)
def test_options_that_do_not_go_with_a_format(kind: str, options: dict[str, object], reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        convert(kind, io.BytesIO(b""), FormatOptions(**options))  # type: ignore[arg-type]


def test_a_line_that_is_not_of_the_grammar_after_all_is_skipped() -> None:
    found, [skipped] = read("urls", "http://a.example:70000/\n")
    assert not found
    assert (skipped.line, skipped.reason) == (1, "port is larger than 65535")


class Endless(io.RawIOBase):
    """A file that is made as it is read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (pieces := list(islice(self._pieces, 500))):
            self._rest += b"".join(pieces)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


BEFORE, AFTER = 4_000, 20_000


def _pieces(kind: str) -> Iterator[bytes]:
    yield b"[" if kind == "phishtank" else b""
    for i in range(BEFORE + AFTER):
        yield STREAMS[kind](i).encode()


STREAMS: dict[str, Callable[[int], str]] = {
    "hosts": lambda i: f"0.0.0.0 host{i}.example\n",
    "adblock": lambda i: f"||host{i}.example^\n",
    "urls": lambda i: f"http://host{i}.example/page\n",
    "urlhaus": lambda i: f'"{i}","2026-11-25 00:00:00","http://host{i}.example/","online"\n',
    "jsonl": lambda i: f'{{"url": "http://host{i}.example/"}}\n',
    "squidguard-urls": lambda i: f"host{i}.example/page\n",
    "phishtank": lambda i: f'{{"phish_id": {i}, "url": "http://host{i}.example/"}},',
    "rpz": lambda i: f"host{i}.example CNAME .\n",
}


@each_row("kind", STREAMS)
def test_memory_does_not_grow_with_the_source(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urlward.lists.formats.rpz.WINDOW", 100)
    found = convert(kind, Endless(_pieces(kind)), FormatOptions())  # type: ignore[arg-type]
    deque(islice(found, BEFORE), maxlen=0)  # buffers have their size, caches their content
    before = sys.getallocatedblocks()
    number = sum(1 for _ in islice(found, AFTER - 200))
    grown = sys.getallocatedblocks() - before
    assert number == AFTER - 200
    assert grown < AFTER / 2  # one object kept for each record would be more


HOSTS = [
    ("straße.test", "xn--strae-oqa.test"),
    ("Straße.TEST", "xn--strae-oqa.test"),
    ("σίγμας.test", "xn--kxaef0b5ab.test"),
    ("क्\u200dष.test", "xn--11b2ezcw70k.test"),
    ("пример.test", "xn--e1afmkfd.test"),
    ("例え.test", "xn--r8jz45g.test"),
    ("MÜNCHEN.test", "xn--mnchen-3ya.test"),
    ("xn--p41h.test", "xn--p41h.test"),
    ("XN--Strae-OQA.test", "xn--strae-oqa.test"),
]
SOURCES = {
    "grammar": ["{}", "http://{}/x", "@@http://{}/x/*", "0.0.0.0 {}"],
    "hosts": ["0.0.0.0 {} www.{}"],
    "adblock": ["||{}^", "@@||{}^", "||{}/x/", "|http://{}/x|", "@@|https://{}/x?a=1|", "|http://{}^"],
    "urls": ["{}", "http://{}/x", "{}/x", "//{}/x?a=1"],
    "csv": ["url\nhttp://{}/x", "host,path\n{},/x", "domain\n{}"],
    "jsonl": ['{{"url": "http://{}/x"}}', '{{"domain": "{}"}}', '{{"host": "{}", "path": "/x"}}'],
    "json": ['[{{"url": "http://{}/x"}}]'],
    "squidguard-domains": ["{}"],
    "squidguard-urls": ["{}/x", "{}"],
    "rpz": ["$ORIGIN rpz.test.\n{} CNAME .\n*.{} CNAME .", "$ORIGIN rpz.test.\n{} CNAME rpz-passthru."],
}


@each_row(("kind", "text"), [(kind, text) for kind in SOURCES for text in SOURCES[kind]])
def test_a_host_in_unicode_is_its_a_labels_in_every_format(kind: str, text: str) -> None:
    def entries(name: str) -> list[object]:
        return [entry for line in lines(kind, text.replace("{}", name)) for entry in parse_line(line)]

    text = text.replace("{{", "{").replace("}}", "}")
    for written, host in HOSTS:
        expected = entries(host)
        assert expected, host
        assert entries(written) == expected, written
