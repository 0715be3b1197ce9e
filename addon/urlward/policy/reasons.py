"""Reasons that operators give for their actions: one line of words, which the audit log keeps for ever."""

import re

from urlward.engine.errors import UrlwardError

MAX_WHY = 500

_URL = re.compile(r"//|\bwww\.|(?<![\w@.-])(?:[\w-]+\.)+[^\W\d_]{2,}(?::[0-9]+)?/", re.IGNORECASE).search
"""A URL, with its scheme or without; a number of a case, a date and a mail address are none."""


def reason_of(text: str) -> str:
    """Check and strip a reason.

    Args:
        text: as typed.

    Raises:
        UrlwardError: none, more than a line, or a URL, which may be an entry's.
    """
    text = text.strip()
    if not text or not text.isprintable() or len(text) > MAX_WHY:
        raise UrlwardError(f"why: needed, one line of at most {MAX_WHY} characters")
    if _URL(text):
        raise UrlwardError(
            "why: has a URL in it, and is kept as it is: say it without, by a reference or an entry's id"
        )
    return text
