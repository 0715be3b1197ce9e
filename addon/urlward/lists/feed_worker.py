"""Compiling a feed's text in a process of its own, which ends with its memory.

As `urlward.lists.worker`, but told the text's format, and what is in force: it says what the new list
changes there, and whether anything.
"""

import json
import os
import sys
from collections.abc import Buffer
from pathlib import Path
from typing import Any

from urlward.config import FeedTable
from urlward.engine.artifact import HEADER_SIZE, parse
from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.lists.build import compile_sources, read_artifact
from urlward.lists.feed_counts import changes
from urlward.lists.formats import FormatOptions
from urlward.lists.issue import Issue
from urlward.lists.source import Budget, SourceError
from urlward.lists.worker import prepare_process


def request(feed: FeedTable, *, path: Path, key: Key, budget: str, serial: int, old: Path) -> dict[str, Any]:
    """What to write to the process's standard input, as JSON.

    Args:
        feed: whose text it is.
        path: of the text.
        key: to compile under.
        budget: of bad lines.
        serial: of the artifact.
        old: the artifact in force, which need not be there.
    """
    return {
        "path": str(path),
        "key": key.secret.hex(),
        "name": feed.name,
        "format": feed.format,
        "columns": feed.columns,
        "delimiter": feed.delimiter,
        "category": feed.category,
        "budget": budget,
        "serial": serial,
        "old": str(old),
        "parent": os.getpid(),
    }


def main() -> None:
    """Run as ``python -m urlward.lists.feed_worker FD``."""
    asked = json.load(sys.stdin)
    prepare_process(asked["parent"])
    try:
        answer = _compile(asked, int(sys.argv[1]))
    except SourceError as e:
        answer = {"error": str(e), "reason": "bad-lines" if e.bad_lines else "format"}
    except UrlwardError as e:
        answer = {"error": str(e), "reason": "format"}
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
