"""Native format: lines of the list grammar (`urlward.engine.grammar`), taken as they are."""

from collections.abc import Iterator
from typing import BinaryIO

from urlward.lists.formats.format import FormatOptions, Found, Skipped
from urlward.lists.formats.stream import text_lines


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:  # noqa: ARG001 - no option counts
    """See `Format.read`."""
    for line in text_lines(file, (b"#", b"!")):
        yield line if isinstance(line, Skipped) else Found(line[1], line[0])
