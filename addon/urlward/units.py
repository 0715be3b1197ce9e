"""Numbers in texts, with units of time and size: ``12``, ``6h``, ``1h30m``, ``512MB``."""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES = {None: 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})\s?(?:([kmg])i?b?|b)", re.IGNORECASE | re.ASCII)

DAY_MS = 86_400_000
"""Milliseconds of a day; times of what is recorded are in these."""

TIME = "write a time such as 90s, 15m, 6h, 2d or 1h30m"
"""What to do where a text is no time."""

SIZE = "write a size such as 512MB, 64kB or 1GB"
"""What to do where a text is no size."""


def seconds(value: object) -> object:
    """Parse seconds of a text such as ``90s``, ``6h``, ``2d`` or ``1h30m``; what is no text stays as it is.

    Raises:
        ValueError: a text of another form.
    """
    if not isinstance(value, str):
        return value
    parts = _PART.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(TIME)
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def whole(text: str, most: int = (1 << 64) - 1) -> int:
    """Parse a whole number in plain digits; int() also takes ``1_0``, ``+5``, blanks and all scripts.

    Raises:
        ValueError: something else, or more than `most`.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) <= most):
        raise ValueError(f"not a number from 0 to {most}")
    return int(text)


def size(value: object) -> object:
    """Parse bytes of a text such as ``512MB`` (units of 1024); what is no text stays as it is.

    Raises:
        ValueError: a text of another form.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(SIZE)
    return int(match[1]) * _BYTES[match[2] and match[2].lower()]


def in_words(length: float) -> str:
    """Format a length of time in its largest unit that is whole or nearly so: ``45s``, ``12m``, ``6h``,
    ``3d``."""
    for unit in ("d", "h", "m"):
        if length >= 2 * _SECONDS[unit] or (length >= _SECONDS[unit] and length % _SECONDS[unit] == 0):
            return f"{length / _SECONDS[unit]:.0f}{unit}"
    return f"{length:.0f}s"


def counted(number: int, one: str) -> str:
    """Format a number of things, such as ``1 entry`` or ``2 entries``, by the English name of one."""
    if number == 1:
        return f"1 {one}"
    return f"{number} {one[:-1]}ies" if one.endswith("y") else f"{number} {one}s"
