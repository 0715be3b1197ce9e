"""Edits of a configuration file's text: a table is added, changed or removed, and all else in the file stays
as it was written, comments too.

What an edit makes is read again, and has to be what was there with that one change: a table that is written
in a way that no edit knows, such as in an inline array, is refused, and changed by hand.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import tomli_w

from urlward.config.problem import ConfigError, Pair, Scanner

type Path = tuple[str | int, ...]
"""Keys and indices that lead to a table, such as ``("group", 0, "rule", 1)``."""

_BARE = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_BY_HAND = "it is written in a way that is changed by hand alone"


def change(text: str, path: Path, values: Mapping[str, Any]) -> str:
    """Text with other values in a table.

    Args:
        text: of the file.
        path: of the table.
        values: by key; None where the key goes. Keys that are not here stay.

    Raises:
        ConfigError: there is no such table, or no edit does it.
    """
    wanted = tomllib.loads(text)
    table = _at(wanted, path)
    for key, value in values.items():
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value
    made = text
    for key, value in values.items():
        made = _with_value(made, path, key, value)
    return _sound(made, wanted)


def add(text: str, path: Path, values: Mapping[str, Any]) -> str:
    """Text with another table: the last of an array of tables, or one of that name.

    Args:
        text: of the file.
        path: of the array, such as ``("feed",)``, or of the table, such as ``("schedule", "night")``.
        values: of the table.

    Raises:
        ConfigError: no edit does it.
    """
    named = path[0] == "schedule"
    wanted = tomllib.loads(text)
    parent = _at(wanted, path[:-1], make=True)
    key = str(path[-1])
    if named:
        parent[key] = dict(values)
    else:
        parent.setdefault(key, []).append(dict(values))
    names = ".".join(_key(part) for part in path if isinstance(part, str))
    lines = [f"[{names}]" if named else f"[[{names}]]"]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in values.items()]
    block = "".join(f"{line}\n" for line in lines)
    at = _end_of(text, path[:-1]) if len(path) > 2 else len(text.rstrip("\n"))
    before, after = text[:at].rstrip("\n"), text[at:].strip("\n")
    parts = [f"{before}\n\n" if before else "", block, f"\n{after}\n" if after else ""]
    return _sound("".join(parts), wanted)


def remove(text: str, path: Path) -> str:
    """Text without a table, and what is below it.

    Args:
        text: of the file.
        path: of the table.

    Raises:
        ConfigError: there is no such table, or no edit does it.
    """
    wanted = tomllib.loads(text)
    _at(wanted, path)
    parent, key = _at(wanted, path[:-1]), path[-1]
    del parent[key]
    if not parent:  # the last of an array, or of a table of tables
        del _at(wanted, path[:-2])[path[-2]]
    made = text
    for pair in reversed(_below(text, path)):
        made = _without(made, pair)
    if "\n\n\n" not in text:
        made = made.replace("\n\n\n", "\n\n")
    return _sound(made, wanted)


def _with_value(text: str, path: Path, key: str, value: Any) -> str:
    pairs = _pairs(text)
    found = next((p for p in pairs if p.path == (*path, key) and not p.is_header), None)
    if found is not None:
        if value is None:
            return _without(text, found)
        if tomllib.loads(f"x = {text[found.value : found.end]}") == {"x": value}:
            return text  # as it was written
        return text[: found.value] + _value(value) + text[found.end :]
    if value is None:
        return text
    own = [p for p in pairs if p.path == path or (p.path[:-1] == path and not p.is_header)]
    if not own:
        raise ConfigError(_BY_HAND)
    at = _line_end(text, own[-1].end)
    return f"{text[:at]}\n{_key(key)} = {_value(value)}{text[at:]}"


def _without(text: str, pair: Pair) -> str:
    """Text without a key or header, its line and the comment behind it."""
    start = text.rfind("\n", 0, pair.start) + 1
    return text[:start] + text[_line_end(text, pair.end) + 1 :]


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _end_of(text: str, path: Path) -> int:
    """Offset behind the last line of a table, and of those below it."""
    found = _below(text, path)
    if not found:
        raise ConfigError(_BY_HAND)
    return _line_end(text, found[-1].end)


def _below(text: str, path: Path) -> list[Pair]:
    """Headers and keys of a table, and of those below it."""
    return [pair for pair in _pairs(text) if pair.path[: len(path)] == path]


def _pairs(text: str) -> list[Pair]:
    scanner = Scanner(text)
    scanner.document()
    return scanner.pairs


def _at(data: Any, path: Sequence[str | int], *, make: bool = False) -> Any:
    for part in path:
        try:
            data = data.setdefault(part, {}) if make and isinstance(data, dict) else data[part]
        except (KeyError, IndexError, TypeError) as e:
            raise ConfigError("no such table: the file has changed meanwhile") from e
    return data


def _sound(text: str, wanted: Mapping[str, Any]) -> str:
    """The text, if it has what is wanted.

    Raises:
        ConfigError: it has not.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(_BY_HAND) from e
    if found != wanted:
        raise ConfigError(_BY_HAND)
    return text


def _key(name: str) -> str:
    return name if _BARE(name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return (
            f"{{ {', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())} }}"
            if value
            else "{}"
        )
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").rstrip("\n")
