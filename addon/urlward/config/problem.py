"""Problems of a configuration: what is wrong, at which key, and the line of the file that has it."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from urlward.engine.errors import UrlwardError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


class Problem(NamedTuple):
    """Problem of a configuration.

    Attributes:
        key: where, such as ``feed.0.url``; of a flag its name; empty for the whole file.
        text: what, and what to do about it.
        in_file: whether the key stands in the file, and not among the flags.
    """

    key: str
    text: str
    in_file: bool = True

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


class ConfigError(UrlwardError):
    """A configuration that cannot be used.

    Attributes:
        lines: each problem on a line, by file, line and key; the first is the message.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__(lines[0])
        self.lines = lines


def key_of(location: Sequence[str | int]) -> str:
    """A key's place as text, on one line whatever it is called."""
    return ".".join(part if part.isprintable() else repr(part) for part in map(str, location))


def lines_of_keys(text: str) -> dict[str, int]:
    """Map keys to their lines, from 1; those of tables, and of values in arrays by their index, too.

    Args:
        text: TOML that `tomllib` has taken; of other text some lines are missing or wrong.
    """
    scanner = Scanner(text)
    with suppress(IndexError, RecursionError):  # what has been found counts
        scanner.document()
    return scanner.lines


class Pair(NamedTuple):
    """A key and its value in a text, or a table's header.

    Attributes:
        path: of the key, or of the table.
        start: offset of the key, or of the header.
        value: offset of the value; that of the end for a header.
        end: offset behind it.
    """

    path: tuple[str | int, ...]
    start: int
    value: int
    end: int

    @property
    def is_header(self) -> bool:
        """Whether it is a table's header."""
        return self.value == self.end


class Scanner:
    """Scanner for keys in TOML 1.0. `tomllib` has refused what is none, so that nothing is checked here.

    Attributes:
        lines: of the keys, as `lines_of_keys` has them.
        pairs: keys with their values, and headers, in the text's order, without those in inline tables.
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self.pairs: list[Pair] = []
        self._text = text
        self._at = 0
        self._ends = [n for n, letter in enumerate(text) if letter == "\n"]
        self._tables: dict[str, int] = {}
        """The index of each array of tables that the next key goes to."""

    def document(self) -> None:
        """Scan the whole text."""
        table: list[str | int] = []
        self._space()
        while self._at < len(self._text):
            start = self._at
            if self._text[start] == "[":
                table = self._header()
                self.pairs.append(Pair(tuple(table), start, self._at, self._at))
            else:
                path, value = self._pair(table)
                self.pairs.append(Pair(tuple(path), start, value, self._at))
            self._space()

    def _header(self) -> list[str | int]:
        start = self._at
        several = self._text.startswith("[[", start)
        self._at += 1 + several
        path: list[str | int] = []
        parts = self._key()
        for n, part in enumerate(parts):
            path.append(part)
            self._found(path, start)
            name = key_of(path)
            if several and n == len(parts) - 1:
                self._tables[name] = self._tables.get(name, -1) + 1
            if name in self._tables:
                path.append(self._tables[name])
                self._found(path, start)
        self._at += 1 + several
        return path

    def _pair(self, table: Sequence[str | int]) -> tuple[list[str | int], int]:
        """Go past a key and its value; returns the key's path, and where the value begins."""
        start = self._at
        path = list(table)
        for part in self._key():
            path.append(part)
            self._found(path, start)
        self._at += 1  # =
        self._space()
        value = self._at
        self._value(path)
        return path, value

    def _value(self, path: Sequence[str | int]) -> None:
        opening = self._text[self._at]
        if opening not in "[{":
            match = _STRING.match(self._text, self._at) or _SCALAR.match(self._text, self._at)
            if match is None or match.end() == self._at:
                raise IndexError  # no value: nothing would be gone past, and the same found without end
            self._at = match.end()
            return
        closing, count = "]" if opening == "[" else "}", 0
        self._at += 1
        self._space()
        while self._text[self._at] != closing:
            if opening == "{":
                self._pair(path)
            else:
                self._found([*path, count], self._at)
                self._value([*path, count])
                count += 1
            self._space()
            if self._text[self._at] == ",":
                self._at += 1
                self._space()
        self._at += 1

    def _key(self) -> list[str]:
        """Go past a key and the blanks behind it; returns its parts."""
        parts = []
        while True:
            self._space()
            if self._text[self._at] in "\"'":
                parts.append(self._quoted())
            else:
                match = _BARE_KEY.match(self._text, self._at)
                if match is None:
                    raise IndexError
                parts.append(match[0])
                self._at = match.end()
            self._space()
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _quoted(self) -> str:
        match = _STRING.match(self._text, self._at)
        if match is None:
            raise IndexError
        self._at = match.end()
        inner = match[0][1:-1]
        return inner if match[0][0] == "'" else _unescaped(inner)

    def _space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _found(self, path: Sequence[str | int], at: int) -> None:
        self.lines.setdefault(key_of(path), bisect_right(self._ends, at - 1) + 1 if at else 1)


_ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([btnfr"\\]))')
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


def _unescaped(text: str) -> str:
    """Unescape a basic string (TOML 1.0, section String)."""
    return _ESCAPE.sub(lambda m: _ESCAPED[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), text)


class SettingError(UrlwardError):
    """A setting with a value that cannot be used.

    Attributes:
        problem: which, and why.
    """

    def __init__(self, key: str, text: str) -> None:
        self.problem = Problem(key, text)
        super().__init__(str(self.problem))
