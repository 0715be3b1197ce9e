"""Following a file that is being written, as ``tail -F`` does."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from urlward.assignments.importing import FileReader, Imported
from urlward.assignments.interval import Source
from urlward.assignments.parsers import ReadOptions
from urlward.assignments.store import AssignmentStore

logger = logging.getLogger("urlward.records")


def follow(
    store: AssignmentStore,
    source: Source,
    path: Path,
    options: ReadOptions,
    *,
    clock: Callable[[], float] = time.time,
    pause: Callable[[], bool],
) -> Iterator[Imported]:
    """Read what is written to a file, also when it is renamed and begun anew, cut, or not there for a while.

    Args:
        store: where to.
        source: what the file is of.
        path: of the file.
        options: how to read it.
        clock: seconds since 1970-01-01 UTC.
        pause: waits for a while; False to end.

    Yields:
        What has been read of the file that has the path, after each look at it.

    Raises:
        AssignmentError: not of the source's format, or the store refuses.
    """
    reader: FileReader | None = None
    try:
        while True:
            if reader is None and path.exists():
                reader = FileReader(store, source, path, options, clock)
            if reader is not None:
                # Asked before reading: what was written to the old file till then is read too.
                replaced = reader.is_replaced
                yield reader.read()
                if replaced or reader.is_cut:
                    logger.info(
                        "%s: %s, read from its beginning", path, "another file" if replaced else "cut"
                    )
                    reader.close()
                    reader = None
                    continue
            if not pause():
                return
    finally:
        if reader is not None:
            reader.close()
