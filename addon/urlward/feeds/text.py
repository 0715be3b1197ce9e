"""Compilation of a feed's text, and what that changes; in a process that ends with the refresh."""

from collections.abc import Buffer
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from urlward.engine.artifact import HEADER_SIZE, parse
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.feeds.apart import Own
from urlward.feeds.counts import changes
from urlward.feeds.guards import RefusedError
from urlward.lists.build import compile_sources
from urlward.lists.formats import FormatError, FormatOptions
from urlward.lists.issue import Issue
from urlward.lists.source import Budget, SourceError, read_artifact
from urlward.progress import Progress, silent

if TYPE_CHECKING:
    from urlward.config import FeedTable


class Compiled(NamedTuple):
    """Result of compiling a text.

    Attributes:
        data: the artifact.
        equal: whether it is the list in force but for serial and date.
        added, removed: entries, against the list in force.
        lines: that it has.
        bad, unsupported, partly: lines that were not taken, or not all of.
        whole: whether the last line has its end.
        format: that it was recognised to be of; empty where that was said, or is the grammar.
        first, first_unsupported: where the first of those lines is, and what is wrong there.
    """

    data: bytes
    equal: bool
    added: int
    removed: int
    lines: int
    bad: int
    unsupported: int
    partly: int
    whole: bool
    first: str = ""
    first_unsupported: str = ""
    format: str = ""


def compile_text(
    feed: "FeedTable",
    text: int | Path,
    *,
    key: Key,
    budget: str,
    serial: int,
    old: Path,
    own: Own | None = None,
    progress: Progress = silent,
) -> Compiled:
    """Compile a text; takes ten seconds for a million entries.

    Args:
        feed: whose text it is.
        text: a descriptor of its bytes, or the folder that they are in.
        key: to compile under.
        budget: of bad lines.
        serial: of the artifact.
        old: the artifact in force, which need not be there.
        own: where the list is one.
        progress: told how far it is.

    Raises:
        RefusedError: no list in this format.
    """
    try:
        allowed = Budget.parse(budget)
    except ValueError as e:
        raise RefusedError("settings", f"max_errors: {e}") from e
    path = Path(f"/proc/self/fd/{text}") if isinstance(text, int) else text
    # The path of a descriptor says nothing to anybody.
    shown = feed.name if own is None else own.path
    try:
        data, report = compile_sources(
            [path],
            key,
            name=feed.name if own is None else own.name,
            budget=allowed,
            issue=Issue(serial=serial),
            format=feed.format,
            options=FormatOptions(feed.columns, feed.delimiter, feed.category),
            progress=progress,
        )
    except SourceError as e:
        words = str(e).removeprefix(f"{path}: ").replace(str(path), shown)
        raise RefusedError(_reason(e), words) from e
    first, first_unsupported = (
        str(lines[0]).replace(str(path), shown) if lines else ""
        for lines in (report.bad_lines, report.unsupported_lines)
    )
    return Compiled(
        data,
        *_compare(data, old, count=own is None),
        report.lines,
        report.bad,
        report.unsupported,
        report.partly,
        report.ends_with_newline,
        first,
        first_unsupported,
        report.recognised.get(str(path), ""),
    )


def _reason(error: SourceError) -> str:
    if isinstance(error.__cause__, FormatError):
        return "format"
    if isinstance(error.__cause__, OSError):
        return "unreadable"
    return "bad-lines" if error.bad_lines else "empty"


def _compare(data: Buffer, path: Path, *, count: bool) -> tuple[bool, int, int]:
    """Compare with the list in force: whether they are the same, and, if asked, how many entries are new
    and gone."""
    new = parse(data)
    try:
        before = read_artifact(path)
        old = parse(before)
    except UrlwardError:
        return False, new.meta["entries"], 0
    if old.header.key_id != new.header.key_id:
        return False, new.meta["entries"], old.meta["entries"]
    # All but serial, dates and signature: the same list is the same bytes.
    equal = memoryview(before)[HEADER_SIZE:] == memoryview(data)[HEADER_SIZE:]
    return equal, *(changes(old, new) if count else (0, 0))
