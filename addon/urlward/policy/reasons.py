"""Reasons that operators give for their actions: one line of words, which the audit log keeps for ever."""

import re
import unicodedata
from ipaddress import ip_address, ip_network

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


def names(host: str, words: str) -> bool:
    """Whether words contain a host, in Unicode or its A-labels, or an address or network in any spelling; a
    name without a dot may be a word like any other.

    Args:
        host: as entries have it, such as ``www.xn--strae-oqa.test`` or ``192.0.2.7/32``.
        words: of an operator.
    """
    name, words = host.strip("[]").removeprefix("www."), unicodedata.normalize("NFKC", words).casefold()
    if not name or name.isalnum():
        return False
    try:
        network = ip_network(name)
    except ValueError:
        return name in words or _in_unicode(name) in words
    alone = {str(network.network_address)} if network.num_addresses == 1 else {str(network)}
    return bool(alone & {_network(word) for word in _WORD(words)}) or any(one in words for one in alone)


_WORD = re.compile(r"[0-9a-f.:]{2,}(?:/[0-9]+)?").findall


def _network(word: str) -> str:
    """An address or network as it is usually written; empty for none."""
    word = word.rstrip(".:") if not word.endswith("::") else word
    try:
        return str(ip_network(word, strict=False)) if "/" in word else str(ip_address(word))
    except ValueError:
        return ""


def _in_unicode(name: str) -> str:
    """A host with its A-labels as people write them."""
    labels = []
    for label in name.split("."):
        try:
            text = label[4:].encode().decode("punycode") if label.startswith("xn--") else label
        except ValueError:  # need not be valid
            text = label
        labels.append(text)
    return unicodedata.normalize("NFKC", ".".join(labels)).casefold()
