"""Languages of the dashboard: its texts, numbers and plural forms, and which language a visitor reads.

Texts are TOML files in ``texts``, one a language, as those of the block page (`urlward.page.words`). Those
below ``message.`` are the English messages that the program itself raises, with a placeholder for each part
that varies: a message that fits one is shown in the visitor's language, any other as it is, said
to be English.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any, Final

from markupsafe import Markup, escape

from urlward.page.words import SHIPPED, Texts, choose_language, read_texts

TEXTS: Final = Path(__file__).with_name("texts")

_ENGLISH = "en"
_MESSAGE = "message."
_TERM = "term."
_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?").fullmatch
_TERMS = frozenset({"action", "state", "use"})
"""Placeholders of messages whose values are words of ours."""
_LONGEST = 1_000
"""Characters of a message that is looked for: what is longer has a text of somebody else's in it."""
_SPACE = "\N{NARROW NO-BREAK SPACE}"


class Language:
    """A language that the dashboard speaks.

    Args:
        tag: one of `SHIPPED`.
        texts: by language and key.
    """

    def __init__(self, tag: str, texts: Mapping[str, Texts]) -> None:
        self.tag = tag
        self._own = texts[tag]
        self._english = texts[_ENGLISH]
        self._messages = [
            (_pattern(text).fullmatch, self._own.get(key, text))
            for key, text in self._english.items()
            if key.startswith(_MESSAGE)
        ]

    def __call__(self, key: str, **values: Any) -> Markup:
        """Text of a key, its placeholders filled in; what is no key is a text already.

        Args:
            key: where ``count`` is among the values, that of ``KEY.one`` or ``KEY.other``.
            values: whatever is no markup is escaped, and numbers are written as this language has them.
        """
        if "count" in values:
            key = f"{key}.{'one' if values['count'] == 1 else 'other'}"
        found = self._own.get(key, self._english.get(key))
        if found is None:
            return escape(key)
        shown = {
            name: self.number(value) if isinstance(value, int | float) else value
            for name, value in values.items()
        }
        return escape(found).format(**shown)

    def has(self, key: str) -> bool:
        """Tell whether there is a text of that key."""
        return key in self._english

    def plain(self, prefix: str) -> dict[str, str]:
        """Texts below a key, for scripts, without that part of their keys."""
        start = f"{prefix}."
        return {
            key.removeprefix(start): self._own.get(key, text)
            for key, text in self._english.items()
            if key.startswith(start)
        }

    def term(self, word: str) -> str:
        """A word of ours that scripts rely on, such as ``would-block``, as people read it."""
        return self._own.get(_TERM + word, word)

    def message(self, text: str) -> Markup:
        """A message of the program, in this language where it is one of those below ``message.``."""
        for fits, own in self._messages:
            if len(text) <= _LONGEST and (found := fits(text)):
                parts = found.groupdict()
                return escape(own).format(
                    **parts | {name: self.term(parts[name]) for name in _TERMS & parts.keys()}
                )
        return escape(text) if self.tag == _ENGLISH else Markup('<span lang="en">{}</span>').format(text)

    def number(self, value: float | str) -> str:
        """A number with groups of three digits (ISO 80000-1) and this language's decimal sign."""
        found = _NUMBER(str(value))
        if found is None:
            return str(value)
        sign, whole, part = found.groups()
        grouped = f"{sign}{int(whole):,}".replace(",", _SPACE)
        return f"{grouped}{self._own['base.decimal']}{part}" if part else grouped


@cache
def languages() -> dict[str, Language]:
    """All languages, by tag."""
    texts = read_texts(TEXTS)
    return {tag: Language(tag, texts) for tag in SHIPPED}


def language_of(chosen: str, accept: str) -> Language:
    """The language that a visitor reads.

    Args:
        chosen: tag that was chosen at a page's foot; empty where none was.
        accept: ``Accept-Language``.
    """
    known = languages()
    return known[chosen if chosen in known else choose_language(accept, SHIPPED, _ENGLISH)]


def _pattern(text: str) -> re.Pattern[str]:
    parts = [
        re.escape(literal) + (f"(?P<{name}>.*?)" if name else "")
        for literal, name, _, _ in Formatter().parse(text)
    ]
    return re.compile("".join(parts), re.DOTALL)
