"""Native format: lines of the list grammar (`urlward.engine.grammar`)."""

from collections.abc import Iterator
from typing import BinaryIO

from urlward.engine.grammar import with_attribute
from urlward.lists.formats.format import FormatOptions, Found, Skipped
from urlward.lists.formats.stream import text_lines
from urlward.lists.formats.write import category_of


def read(file: BinaryIO, options: FormatOptions) -> Iterator[Found | Skipped]:
    """See `Format.read`."""
    category = category_of(options.category)
    for line in text_lines(file, (b"#", b"!")):
        if isinstance(line, Skipped):
            yield line
            continue
        number, text = line
        yield Found(with_attribute(text, "category", category) if category else text, number)
