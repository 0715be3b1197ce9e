"""Files of a configuration: the one that is named, and those that it includes, read as one.

An included file has lists, feeds, groups, rules, schedules and pages, which follow those of the files before
it, and nothing else: what there is once stands in the file that is named. Relative paths in it are from its
own folder.
"""

import glob
import json
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from pwd import getpwuid
from typing import Any, NamedTuple

from urlward.config.problem import ConfigError, Problem, key_of, lines_of_keys
from urlward.process import IN_FORCE
from urlward.regular import open_given, other_encoding, without_bom

ARRAYS, TABLES = ("list", "feed", "group", "rule"), ("schedule", "pages")
"""Keys that an included file may have: arrays, which are joined, and tables, whose keys are."""

_MOST = 16 << 20
_ELEMENT = re.compile(r"\b(?:feed|group|rule)\.\d+(?:\.[a-z]+(?:\.\d+)?)?")
"""A key of an array's element, in a message."""
_WHERE = re.compile(r" \(at (?:line (\d+), (column \d+)|end of document)\)$")


class ConfigFile(NamedTuple):
    """One file of a configuration.

    Attributes:
        path: of it, as it was given.
        data: its text; None where it is not there, which the last included one need not be.
    """

    path: Path
    data: bytes | None


class Sources:
    """Files of a configuration.

    Args:
        files: the one that is named, and those that it includes, in their order.

    Raises:
        ConfigError: one is not TOML, or an included one has what does not belong there.
    """

    def __init__(self, files: Sequence[ConfigFile]) -> None:
        self.files = tuple(files)
        self._lines_of: dict[int, dict[str, int]] = {}
        """Lines of the keys of files that were asked for, which problems alone need."""
        self._moved: dict[str, tuple[int, str]] = {}
        """Place of what an included file has: number of the file, and the key there."""
        first, *others = (_parsed(each) for each in self.files)
        self.merged = first
        """All of it, as of one file."""
        problems = [text for n, other in enumerate(others, 1) for text in self._merge(n, other)]
        if problems:
            raise ConfigError(*problems)

    @property
    def path(self) -> Path:
        """The file that is named."""
        return self.files[0].path

    @property
    def text(self) -> bytes:
        """All files' texts as one, for `in_force`."""
        return json.dumps([None if d is None else d.decode("latin-1") for _, d in self.files]).encode()

    @cached_property
    def digests(self) -> tuple[bytes, ...]:
        """Digests of the files' texts, which each of thousands of tables asks for."""
        return tuple(sha256(each.data or b"").digest() for each in self.files)

    def changed(self, remedy: str) -> str:
        """Words where the files say other things now than what was read; empty where they do not.

        Args:
            remedy: how what they say now comes into force.
        """
        try:
            now = read_sources(self.path)
        except ConfigError as e:
            return f"{e}: what it said before is in force"
        if now.files == self.files or now.merged == self.merged:
            return ""
        return f"{self.path}: what it says now is not in force: {remedy}"

    def place(self, key: str) -> tuple[int, str]:
        """Number of the file that has a key of the whole, and the key in that file."""
        at = key
        while at:
            if at in self._moved:
                number, there = self._moved[at]
                return number, there + key[len(at) :]
            at = at.rpartition(".")[0]
        if key not in self.merged or key in self._lines(0):
            return 0, key
        return next(((n, key) for at, (n, _) in self._moved.items() if at.startswith(f"{key}.")), (0, key))

    def folder(self, key: str) -> Path:
        """Folder from which file names under a key are taken."""
        return self.files[self.place(key)[0]].path.resolve().parent

    def refused(self, problems: Sequence[Problem]) -> ConfigError:
        """Error to raise for problems, of which there is one at least, by file, line and key."""
        located = [self._located(each) for each in problems]
        return ConfigError(*(text for _, _, text in sorted(located, key=lambda each: each[:2])))

    def _located(self, problem: Problem) -> tuple[int, int, str]:
        """Number of the file and line of a problem, 0 where it has none, and the problem with both in front.

        What the file lacks is missed on the line of the table that should have it.
        """
        if not problem.in_file:
            return 0, 0, str(problem)
        number, key = self.place(problem.key)
        text = _ELEMENT.sub(lambda match: self._shown(match[0], number), problem.text)
        told, path, lines = Problem(key, text), self.files[number].path, self._lines(number)
        while key and key not in lines:
            key = key.rpartition(".")[0]
        return (number, lines[key], f"{path}:{lines[key]}: {told}") if key else (number, 0, f"{path}: {told}")

    def _shown(self, key: str, number: int) -> str:
        """A key of the whole, for a message about a file: as it is there, or with the file that has it."""
        there, shown = self.place(key)
        return shown if there == number else f"{shown} of {self.files[there].path}"

    def _lines(self, number: int) -> dict[str, int]:
        if number not in self._lines_of:
            self._lines_of[number] = lines_of_keys((self.files[number].data or b"").decode())
        return self._lines_of[number]

    def _merge(self, number: int, other: dict[str, Any]) -> Iterator[str]:
        """Add what an included file has; yields what is wrong with it."""
        for key, value in other.items():
            for problem in self._merge_key(number, key, value):
                line = self._lines(number).get(problem.key)
                where = f"{self.files[number].path}:{line}" if line else f"{self.files[number].path}"
                yield f"{where}: {problem}"

    def _merge_key(self, number: int, key: str, value: Any) -> Iterator[Problem]:
        shown = key_of([key])
        if key not in (*ARRAYS, *TABLES):
            yield Problem(shown, f"not of an included file, which has {', '.join((*ARRAYS, *TABLES))}")
            return
        there = self.merged.setdefault(key, [] if key in ARRAYS else {})
        if key in ARRAYS and not isinstance(value, list):
            yield Problem(shown, "input should be an array")
        elif key in TABLES and not isinstance(value, dict):
            yield Problem(shown, "input should be a table")
        elif isinstance(value, list) and isinstance(there, list):
            for n, each in enumerate(value):
                self._moved[f"{key}.{len(there)}"] = number, f"{key}.{n}"
                there.append(each)
        elif isinstance(value, dict) and isinstance(there, dict):
            for name, each in value.items():
                place = key_of([key, name])
                if name in there:
                    yield Problem(place, f"in {self.files[self.place(place)[0]].path} already")
                else:
                    self._moved[place] = number, place
                    there[name] = each


def in_force(path: Path) -> Sources | None:
    """Files of the configuration that is in force in the filter that has started this process, as they were
    read; None where none has.

    Args:
        path: of the one that is named.
    """
    text = _in_force()
    if text is None:
        return None
    try:
        first, *others = (None if each is None else each.encode("latin-1") for each in json.loads(text))
    except (ValueError, TypeError, AttributeError):  # of a filter that was started before there was `include`
        first, others = text, []
    main = ConfigFile(path, first)
    names = _included(main)
    return Sources([main, *(ConfigFile(*each) for each in zip(names, others, strict=True))])


def read_sources(path: Path) -> Sources:
    """Read a configuration's files as they are now.

    Raises:
        ConfigError: one is unreadable, too large or not TOML, or includes what it cannot.
    """
    main = ConfigFile(path, _read(path))
    names = _included(main)
    last = len(names) - 1
    return Sources(
        [main, *(ConfigFile(each, _read(each, by=path, absent=n == last)) for n, each in enumerate(names))]
    )


def _included(main: ConfigFile) -> list[Path]:
    """Paths of the files that a configuration includes."""
    names = _parsed(main).get("include", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        return []  # which is refused with all else that does not fit
    folder = main.path.resolve().parent
    try:
        found = [folder / Path(name).expanduser() for name in names]
    except RuntimeError as e:
        raise ConfigError(f"{main.path}: include: ~: no such user, or no home directory") from e
    seen = [os.path.realpath(main.path)]
    for n, each in enumerate(found):
        if "\0" in str(each):
            raise ConfigError(f"{main.path}: include.{n}: a file's name holds no NUL")
        with suppress(OSError):  # what may not be looked at is told as it is read
            if each.is_dir() or (glob.has_magic(names[n]) and not each.exists()):
                raise ConfigError(
                    f"{main.path}: include.{n}: {names[n]}: name each file, no folder or pattern"
                )
        if (real := os.path.realpath(each)) in seen:
            raise ConfigError(f"{main.path}: include.{n}: {each}: read already")
        seen.append(real)
    return found


@cache
def _in_force() -> bytes | None:
    """The text that is in force in the filter that has started this process; None where none has."""
    number = os.environ.pop(IN_FORCE, "")
    if not number:
        return None
    with os.fdopen(int(number), "rb") as file:
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)  # others read from it too


def _read(path: Path, *, by: Path | None = None, absent: bool = False) -> bytes | None:
    """Read a file; None where it is not there and may be `absent`.

    Args:
        path: of it.
        by: the file that includes it.
        absent: whether it may be.

    Raises:
        ConfigError: unreadable, or too large.
    """
    try:
        with open_given(path) as file:
            data = without_bom(file.read(_MOST + 1))
    except FileNotFoundError as e:
        if absent:
            return None
        raise ConfigError(f"{path}: {e.strerror}") from e
    except PermissionError as e:
        raise ConfigError(f"{path}: {e.strerror}{_whose(path, by)}") from e
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from e
    if len(data) > _MOST:
        raise ConfigError(f"{path}: more than {_MOST >> 20} MB: no configuration")
    return data


def _whose(path: Path, by: Path | None) -> str:
    """What to do about a file that this user may not read."""
    if by is None:
        return ""
    for each in (path, *path.parents):
        with suppress(OSError, KeyError):
            owner = getpwuid(each.stat().st_uid).pw_name
            others = f" or {owner}" if owner != "root" else ""
            return f": {by} includes it, so only root{others} can use that configuration here"
    return f": {by} includes it"


def _parsed(source: ConfigFile) -> dict[str, Any]:
    """Parse a file's text.

    Raises:
        ConfigError: not TOML.
    """
    path, data = source.path, source.data or b""
    try:
        return tomllib.loads(data.decode())
    except tomllib.TOMLDecodeError as e:
        where = _WHERE.search(str(e))
        line = data.count(b"\n") + 1 if where is None or where[1] is None else where[1]
        column = f" ({where[2]})" if where is not None and where[2] else ""
        raise ConfigError(f"{path}:{line}: not TOML: {_WHERE.sub('', str(e))}{column}") from e
    except UnicodeDecodeError as e:
        if other := other_encoding(data):
            raise ConfigError(f"{path}: {other}") from e
        line = e.object.count(b"\n", 0, e.start) + 1
        raise ConfigError(f"{path}:{line}: not TOML: not UTF-8") from e
    except RecursionError as e:
        raise ConfigError(f"{path}: not TOML: nested too deeply") from e
    except ValueError as e:  # of `int`, which reads no more digits than sys.get_int_max_str_digits says
        raise ConfigError(f"{path}: not TOML: a value cannot be read: {str(e).partition(':')[0]}") from e
