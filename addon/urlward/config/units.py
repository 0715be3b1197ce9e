"""Units of time and size in texts: ``6h``, ``1h30m``, ``512MB``."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo

WRITTEN = "as an operator wrote it"
"""Context of a validation that refuses numbers without a unit; the program's own are seconds and bytes."""

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES = {None: 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})\s?(?:([kmg])i?b?|b)", re.IGNORECASE | re.ASCII)

_TIME = "write a time such as 90s, 15m, 6h, 2d or 1h30m"
_SIZE_TEXT = "write a size such as 512MB, 64kB or 1GB"


def seconds(value: object) -> object:
    """Parse seconds of a text such as ``90s``, ``6h``, ``2d`` or ``1h30m``; what is no text stays as it is.

    Raises:
        ValueError: a text of another form.
    """
    if not isinstance(value, str):
        return value
    parts = _PART.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(_TIME)
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def size(value: object) -> object:
    """Parse bytes of a text such as ``512MB`` (units of 1024); what is no text stays as it is.

    Raises:
        ValueError: a text of another form.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(_SIZE_TEXT)
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


def _seconds(value: object, info: ValidationInfo) -> object:
    _refuse_bare(value, info, _TIME)
    return seconds(value)


def _size(value: object, info: ValidationInfo) -> object:
    _refuse_bare(value, info, _SIZE_TEXT)
    return size(value)


def _refuse_bare(value: object, info: ValidationInfo, text: str) -> None:
    if info.context == WRITTEN and isinstance(value, (int, float)):
        raise ValueError(f"{text}, in quotes and with its unit")


Seconds = Annotated[float, BeforeValidator(_seconds), Field(strict=False, allow_inf_nan=False)]
Bytes = Annotated[int, BeforeValidator(_size)]
