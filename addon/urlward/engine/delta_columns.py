"""Columns of a delta, and the rules that its maker and its reader share."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from urlward.engine.artifact import Artifact, Section
from urlward.engine.errors import ArtifactError


class Column(IntEnum):
    """The columns of a delta, in order. *Script* columns hold a `Script`, *number* columns numbers."""

    HEADER = 0  # of the new artifact, as it is
    META = 1  # script of the items of META
    META_ITEMS = 2
    ROWS = 3  # script of the rows
    DIGESTS = 4  # of inserted rows, likewise the next seven
    SHAPES = 5  # numbers
    LENGTHS = 6  # numbers
    BELOW = 7
    ID_LENGTHS = 8  # numbers
    IDS = 9
    PARAM_ROWS = 10  # numbers: which inserted rows have further parameters, each less the one before
    PARAM_COUNTS = 11  # numbers: how many
    PARAMS = 12
    PATTERNS = 13  # script of the patterns
    SHARED = 14  # of inserted patterns, likewise the next two
    ADDED = 15
    LETTERS = 16
    GROUP_ROWS = 17  # numbers: first row of each group that an edit touches, each less the one before
    GROUP_SIZES = 18  # numbers: its rows
    NETWORKS = 19  # script of the networks
    NETWORK_ITEMS = 20
    SIEVE = 21  # the bits of the sieve where it has another size
    SIEVE_AT = 22  # numbers: which of its bytes differ, each less the one before
    SIEVE_XOR = 23  # what to change in each
    NAMES = 24  # script of its names
    NAME_ITEMS = 25
    SEGMENTS = 26  # script of its segments
    SEGMENT_ITEMS = 27


CONTRADICTIONS = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
    ArtifactError,
)
"""Exceptions that contradictory bytes lead to; the checksum finds what goes unnoticed."""

META_SEPARATOR = b"],["
NETWORK_SEPARATOR = b","


def is_plain(artifact: Artifact) -> bool:
    """Whether it has the sections that deltas know, and no more."""
    return len(artifact.sections) == len(Section)


def shape_numbers(old: dict[str, Any], new: dict[str, Any]) -> list[int]:
    """For each shape of an old META its number in the new one, or -1: equal in words, not in numbers.

    Raises:
        ValueError, KeyError, TypeError, IndexError: no META of an artifact.
    """
    numbers = {shape: number for number, shape in enumerate(_shapes_in_words(new))}
    return [numbers.get(shape, -1) for shape in _shapes_in_words(old)]


def _shapes_in_words(meta: dict[str, Any]) -> list[Sequence[object]]:
    categories = meta["categories"]
    return [
        (kind, flags, categories[category], expires, port)
        for kind, flags, category, expires, port in meta["shapes"]
    ]
