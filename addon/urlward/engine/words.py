"""Telling words: by what a path shows that it may be one that a table of programs' paths is of.

Each row of such a table has an expression that all its paths have, which begins with a slash or an escaped
dot. Nearly all paths have none of these, so that one look at them spares all others.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial

BY_CHANCE = "(?=[^/0-9A-Z]*+[0-9A-Z])"
"""Expression in front of a name made by chance: that has a digit or capital, as `overview` has not."""

_EITHER = re.compile(r"\(\?:([^()\[\]]+)\)(?![?*+{])(.*)").fullmatch
_LETTER = re.compile(r"(?:[0-9A-Za-z_@\-]|\\\.)(?![?*+{])").match
_BEGINNING = re.compile(r"(?:(?:[0-9A-Za-z_\-/]|\\\.)(?![?*+{]))+").match


def any_of(expressions: Iterable[str]) -> str:
    """Expression of any of several, by their first letters: behind most slashes is none, which shows soon."""
    of_letter: dict[str, list[str]] = {}
    for expression in dict.fromkeys(each for one in expressions for each in _apart(one)):
        letter = _LETTER(expression)
        first = letter[0] if letter else ""
        of_letter.setdefault(first, []).append(expression[len(first) :])
    return "|".join(
        f"{first}(?:{any_of(rests)})" if first and len(rests) > 1 else "|".join([first + r for r in rests])
        for first, rests in of_letter.items()
    )


def _apart(expression: str) -> list[str]:
    """The expressions, each with a letter of its own, of one that begins with several words."""
    either = _EITHER(expression)
    return [f"{word}{either[2]}" for word in either[1].split("|")] if either else [expression]


@cache
def _compiled(expression: str, flags: int) -> re.Pattern[str]:
    return re.compile(expression, flags)


def at_first_use(expression: str, flags: int = 0) -> Callable[[], re.Pattern[str]]:
    """An expression of a row, for which most processes never have a use: to compile those of all rows takes
    20 ms of each start."""
    return partial(_compiled, expression, flags)


def behind(mark: str, words: Sequence[str]) -> str:
    """Expression of what is behind a mark, ``/`` or an escaped dot, in the words that begin with it."""
    return any_of(word.removeprefix(mark) for word in words if word.startswith(mark))


def search_for(words: Sequence[str]) -> Callable[[str], re.Match[str] | None]:
    """Search for any of several telling words."""
    dots, slashes = behind(r"\.", words), behind("/", words)
    return re.compile(
        "|".join(f"{mark}(?:{more})" for mark, more in ((r"\.", dots), ("/", slashes)) if more)
    ).search


def beginning_of(word: str) -> str:
    """What all paths have of a word, as it is: to look for that takes a third of what an expression does."""
    match = _BEGINNING(word)
    return match[0].replace("\\", "") if match else ""
