"""Compiling a feed's text in a process of its own, which ends with its memory.

As `urlward.lists.worker`, but told the text's format, and what is in force: it says what the new list
changes there, and whether anything. Asked by `urlward.lists.feed_text.compile_text`.
"""

import json
import os
import sys
from collections.abc import Buffer
from pathlib import Path
from typing import Any

from urlward.engine.artifact import HEADER_SIZE, parse
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.lists.build import compile_sources, read_artifact
from urlward.lists.feed_counts import changes
from urlward.lists.formats import FormatError, FormatOptions
from urlward.lists.issue import Issue
from urlward.lists.source import Budget, SourceError
from urlward.lists.worker import read_request


def main() -> None:
    """Run as ``python -m urlward.lists.feed_worker FD``."""
    asked = read_request()
    try:
        answer = _compile(asked, int(sys.argv[1]))
    except SourceError as e:
        answer = {"error": str(e), "reason": _reason(e)}
    json.dump(answer, sys.stdout)


def _compile(asked: dict[str, Any], fd: int) -> dict[str, Any]:
    data, report = compile_sources(
        [Path(asked["path"])],
        Key(bytes.fromhex(asked["key"])),
        name=asked["name"],
        budget=Budget.parse(asked["budget"]),
        issue=Issue(serial=asked["serial"]),
        format=asked["format"],
        options=FormatOptions(asked["columns"], asked["delimiter"], asked["category"]),
    )
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    answer = {
        "bad": report.bad,
        "first": str(report.bad_lines[0]) if report.bad_lines else "",
        "unsupported": report.unsupported,
    }
    return answer | _compare(data, Path(asked["old"]))


def _reason(error: SourceError) -> str:
    if isinstance(error.__cause__, FormatError):
        return "format"
    if isinstance(error.__cause__, OSError):
        return "unreadable"
    return "bad-lines" if error.bad_lines else "empty"


def _compare(data: Buffer, path: Path) -> dict[str, Any]:
    new = parse(data)
    try:
        before = read_artifact(path)
        old = parse(before)
    except UrlwardError:
        return {"equal": False, "added": new.meta["entries"], "removed": 0}
    if old.header.key_id != new.header.key_id:
        return {"equal": False, "added": new.meta["entries"], "removed": old.meta["entries"]}
    added, removed = changes(old, new)
    # All but serial, dates and signature: the same list is the same bytes.
    equal = memoryview(before)[HEADER_SIZE:] == memoryview(data)[HEADER_SIZE:]
    return {"equal": equal, "added": added, "removed": removed}


if __name__ == "__main__":
    main()
