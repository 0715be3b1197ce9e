"""A file of this machine, looked at as one that passes through is: decoded in a sandbox, and compared."""

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from urlward.config.proxy import FilesTable
from urlward.engine.errors import UrlwardError
from urlward.engine.perceptual import SIZE, PerceptualList
from urlward.files.media import HEAD, format_of
from urlward.files.sandbox import started
from urlward.files.seen import DONE, MOST_RECORDS, PDQ, FrameSeen, seen_in
from urlward.regular import open_regular

DEADLINE = 60.0
"""Seconds for which a file is decoded; somebody waits for it."""


class Alike(NamedTuple):
    """Listed digest that a picture is as near to as its entry says.

    Attributes:
        list: name of the list.
        row: as `urlward.engine.matcher.Matcher.file_verdict` takes it.
        distance: bits in which the digests differ.
        digest: the listed one, in plain form.
    """

    list: str
    row: int
    distance: int
    digest: bytes


def alike_in(path: Path, lists: Iterable[PerceptualList]) -> list[Alike] | None:
    """Find the listed digests that the pictures of a file are like; None where it has none that is decoded.

    Args:
        path: of the file.
        lists: digests to compare with.

    Raises:
        OSError: the file cannot be read, or is no regular one.
        UrlwardError: it cannot be decoded, or not safely.
    """
    with open_regular(path) as file:
        media = format_of(file.read(HEAD))
        if media is None:
            return None
        seen = _seen(file.fileno(), media)
    try:
        from urlward.files.pdq import QUALITY, Index
    except ImportError as e:
        raise _not_installed(e) from e
    asked = b"".join(each.digests for each in seen if each.kind == PDQ and each.value >= QUALITY)
    found = []
    for listed in lists if asked else ():
        try:
            index = Index(listed.digests, listed.distances, listed.rows)
        except ImportError as e:
            raise _not_installed(e) from e
        for match in index.search(asked):
            at = listed.rows.index(match.row) * SIZE
            found.append(Alike(listed.name, match.row, match.distance, listed.digests[at : at + SIZE]))
    return found


def refusal(files: FilesTable) -> str:
    """Why no picture would be looked at as is configured; empty where pictures are.

    Args:
        files: the table.

    Raises:
        OSError: there is no process.
    """
    try:
        from urlward.files.pdq import Index

        Index(bytes(SIZE), bytes(1), (0,))
    except ImportError as e:
        return f"{e.name} is not there (the extra `files`)"
    process, ours = started(
        deadline=files.deadline, video=files.video, classifier=files.classifier, strictly=files.sandbox
    )
    with ours:
        ours.settimeout(DEADLINE)
        try:
            said = json.loads(ours.recv(MOST_RECORDS) or b"{}")
        except TimeoutError:
            return "a sandbox has no answer in time"
        finally:
            process.kill()
            process.wait()
    return "" if "ready" in said else str(said.get("refused", "no sandbox starts"))


def _not_installed(error: ImportError) -> UrlwardError:
    return UrlwardError(f"pictures are not compared: {error.name} is not there (the extra `files`)")


def _seen(fd: int, media: str) -> list[FrameSeen]:
    """What a sandbox of its own sees in a file."""
    try:
        process, ours = started(deadline=DEADLINE, video=True)
    except OSError as e:
        raise UrlwardError(f"pictures are not compared: {e.strerror}") from e
    with ours:
        ours.settimeout(DEADLINE + 10)
        try:
            said = json.loads(ours.recv(MOST_RECORDS) or b"{}")
            if "ready" not in said:
                raise UrlwardError(f"pictures are not compared: {said.get('refused', 'no sandbox starts')}")
            socket.send_fds(ours, [json.dumps({"format": media}).encode()], [fd])
            how, _, records = ours.recv(2 * MOST_RECORDS).partition(b"\n")
        except OSError as e:
            raise UrlwardError(f"pictures are not compared: {e.strerror or 'no answer in time'}") from e
        finally:
            process.kill()
            process.wait()
    if how.decode() != DONE and not records:
        raise UrlwardError(f"its pictures cannot be decoded ({how.decode() or 'the sandbox has ended'})")
    return list(seen_in(records))
