"""From a feed's text to an artifact in memory, in another process (`urlward.lists.feed_worker`)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from urlward.config import FeedTable
from urlward.engine.digest import Key
from urlward.lists import memory
from urlward.lists.feed_guards import RefusedError
from urlward.lists.source import Budget


class Compiled(NamedTuple):
    """What came of a text.

    Attributes:
        data: the artifact.
        equal: whether it is the list in force but for serial and date.
        added, removed: entries, against the list in force.
        bad, unsupported: lines that were not taken.
        first: where the first of the bad lines is, and what is wrong there.
    """

    data: bytes
    equal: bool
    added: int
    removed: int
    bad: int
    unsupported: int
    first: str


def compile_text(
    feed: FeedTable, text: int | Path, *, key: Key, budget: str, serial: int, old: Path
) -> Compiled:
    """Compile a text; takes ten seconds for a million entries.

    Args:
        feed: whose text it is.
        text: a descriptor of its bytes, or the folder that they are in.
        key: to compile under.
        budget: of bad lines.
        serial: of the artifact.
        old: the artifact in force, which need not be there.

    Raises:
        RefusedError: no list in this format.
        OSError: the system has no process or memory for it.
    """
    try:
        Budget.parse(budget)
    except ValueError as e:
        raise RefusedError("settings", f"max_errors: {e}") from e
    path = Path(f"/proc/self/fd/{text}") if isinstance(text, int) else text
    fd = memory.new()
    try:
        asked = {
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
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-P", "-m", "urlward.lists.feed_worker", str(fd)],
            input=json.dumps(asked).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd, text) if isinstance(text, int) else (fd,),
            process_group=0,  # Ctrl-C is for us
            # It ends with its memory, and is a quarter faster with Python's own allocator.
            env={**os.environ, "PYTHONMALLOC": "default"},
            check=False,
        )
        if done.returncode:
            raise OSError(0, f"the process that compiles it ended with {done.returncode}")
        answer = json.loads(done.stdout)
        if "error" in answer:
            # The path of a descriptor says nothing to anybody.
            error = answer["error"].removeprefix(f"{path}: ").replace(str(path), feed.name)
            raise RefusedError(answer["reason"], error)
        answer["first"] = answer["first"].replace(str(path), feed.name)
        return Compiled(os.pread(fd, os.fstat(fd).st_size, 0), **answer)
    finally:
        os.close(fd)
