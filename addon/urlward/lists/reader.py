"""From a list file to an artifact in memory, made by whichever worker comes first and read by all.

A source is compiled in a process of its own (`urlward.lists.worker`), so that none of its text is ever here,
and an artifact is copied: the file itself is never mapped, since who cut it short would end every process
that reads it.
"""

import asyncio
import logging
import os
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from urlward.engine.artifact import VERSION
from urlward.engine.digest import Key
from urlward.lists import memory
from urlward.lists.build import Progress, is_artifact, name_of, silent
from urlward.lists.files import Signature, being_written
from urlward.lists.formats import AUTO, DEFAULTS, FormatOptions
from urlward.lists.shared import Made, Shared, Turn
from urlward.lists.source import Budget, SourceError
from urlward.lists.worker import COMPILER, ask, ask_async, content_of, told_of

logger = logging.getLogger("urlward.lists")

WORKERS = 2
"""Sources compiled at once; a million lines take a core and several hundred megabytes."""


class SupersededError(Exception):
    """The file has changed since its content was asked for, or while it was read; the next look will see it
    settle."""


class Read(NamedTuple):
    """What was read.

    Attributes:
        data: the artifact, in memory that nobody can change.
        whole: whether the file's last line has its end.
        content: the file's checksum; empty where another worker has read a later one than was asked for.
        text: whether the file is a source.
        signature: of the file as it was read, where that is known to be another than was asked for.
    """

    data: memoryview
    whole: bool
    content: bytes
    text: bool
    signature: Signature | None = None


class Reader:
    """Reads list files, and shares what comes of them.

    Args:
        key: to compile under.
        budget: of bad lines in a source.
        shared: what this process shares with other workers, if it does.
        format: of the sources, one of `urlward.lists.formats.FORMATS`.
        options: how to read it.
    """

    def __init__(
        self,
        key: Key,
        budget: Budget,
        shared: Shared | None,
        format: str = AUTO,  # noqa: A002 - the word
        options: FormatOptions = DEFAULTS,
    ) -> None:
        self._key = key
        self._budget = budget
        self._shared = shared
        self._format = format
        self._options = options
        self._compiling = asyncio.Semaphore(WORKERS)

    async def read(self, path: Path, content: bytes, signature: Signature, *, was_whole: bool) -> Read:
        """Read a file while traffic is under way; a source that changes meanwhile as it was at one time.

        Args:
            path: the file.
            content: its checksum.
            signature: of the file when that was taken.
            was_whole: whether its last line had an end before; then half a line is half a list.

        Raises:
            SourceError: no good, or not readable.
            SupersededError: it has another signature or content by now, and is no good, or an artifact.
        """
        source = not is_artifact(path)
        seen = None
        async with self._compiling if source else nullcontext():
            with self._turn(path, content, str(signature)) as turn:
                made = await turn.result()
                if made is not None:
                    content = b"" if made.content else content
                elif source:
                    made, content, seen = await self._compiled(path, content, signature)
                    turn.give(made._replace(content=self._digest(content)))
                else:
                    made = await self._copied(path, content, signature)
                    turn.give(made)
        return _opened(path, made, content, text=source, was_whole=was_whole)._replace(signature=seen)

    def read_now(self, path: Path, progress: Progress = silent) -> Read:
        """Read a file at once, before there is any traffic.

        Raises:
            SourceError: no good, or not readable.
        """
        last = self.last_good(path)
        if last is not None and being_written(path):
            raise SourceError(f"{path}: being written")
        signature = Signature.of(path)
        # With nobody to ask for it, what is compiled tells its checksum.
        alone = self._shared is None and not is_artifact(path)
        content = b"" if alone else content_of(path)
        with self._turn(path, content) as turn:
            made = turn.result_now()
            if made is None:
                made, read = self._make_now(path, progress)
                if alone:
                    content = read
                elif read == content and Signature.of(path) == signature:
                    turn.give(made)
        was_whole = last is not None and last.whole
        return _opened(path, made, content, text=not is_artifact(path), was_whole=was_whole)

    def last_good(self, path: Path) -> Read | None:
        """What the other workers have in force, whatever has become of the file."""
        made = self._shared.current(self._slot(path)) if self._shared is not None else None
        return _opened(path, made, b"") if made is not None else None

    def keep(self, path: Path, content: bytes) -> None:
        """Say that this content is in force."""
        if self._shared is not None:
            self._shared.keep(self._slot(path), self._digest(content))

    def _turn(self, path: Path, content: bytes, as_of: str = "") -> Turn:
        return Turn(self._shared, self._slot(path), self._digest(content), as_of)

    def _slot(self, path: Path) -> str:
        """Stands for all that an artifact's bytes depend on besides the file's content."""
        how = "" if self._format == AUTO else f"{self._format} {_said(self._options)} "
        return self._digest(os.fsencode(f"{VERSION} {self._budget} {how}{path.absolute()}"))

    def _digest(self, data: bytes) -> str:
        # Keyed, as everything that is made of an entry's text.
        return blake2b(data, key=self._key.secret, digest_size=16, person=b"urlward shared").hexdigest()

    def _make_now(self, path: Path, progress: Progress) -> tuple[Made, bytes]:
        """What came of a file, and the checksum of what that was."""
        if is_artifact(path):
            fd, read = memory.sealed_copy(path)
            return Made(fd), read
        fd = memory.new()
        try:
            request = self._request(path, fd) | {
                "progress": progress is not silent,
                "at_once": True,
                "as_is": True,
            }
            with told_of(path):
                answer = ask(COMPILER, request, [fd], progress)
            made = _made(path, fd, answer)
        except BaseException:
            os.close(fd)
            raise
        if made.fd is None:
            raise SourceError(made.error)
        return made, bytes.fromhex(answer["content"])

    async def _copied(self, path: Path, content: bytes, signature: Signature) -> Made:
        """An artifact, of this content."""
        if Signature.of(path) != signature:
            raise SupersededError  # while others were at it
        made, read = await _copy(path)
        if read != content or Signature.of(path) != signature:
            assert made.fd is not None
            os.close(made.fd)
            raise SupersededError
        return made

    async def _compiled(
        self, path: Path, content: bytes, signature: Signature
    ) -> tuple[Made, bytes, Signature | None]:
        """What came of a source, which may have changed since; checksum and signature of what was read.

        A source may change faster than it compiles: who waits for one that stays as it is waits for ever.
        """
        fd = memory.new()
        try:
            answer = await self._ask_worker(path, fd)
            if "changing" in answer:
                raise SupersededError
            made = _made(path, fd, answer)
        except BaseException:
            os.close(fd)
            raise
        if made.fd is not None:
            return made, bytes.fromhex(answer["content"]), Signature(*answer["signature"])
        if await asyncio.to_thread(content_of, path) != content or Signature.of(path) != signature:
            raise SupersededError  # what is there now may be good
        return made, content, None

    async def _ask_worker(self, path: Path, fd: int) -> dict[str, Any]:
        with told_of(path):
            return await ask_async(COMPILER, self._request(path, fd), [fd])

    def _request(self, path: Path, fd: int) -> dict[str, Any]:
        return {
            "fd": fd,
            "path": str(path),
            "key": self._key.secret.hex(),
            "name": name_of(path),
            "budget": str(self._budget),
            "format": self._format,
            "options": _said(self._options),
        }


def _made(path: Path, fd: int, answer: dict[str, Any]) -> Made:
    """What came of a source, and a word in the log; closes the descriptor where that is nothing.

    Raises:
        SourceError: nothing for now.
    """
    if "error" in answer:
        if not answer["lasting"]:
            raise SourceError(answer["error"])
        os.close(fd)
        return Made(None, error=answer["error"])
    memory.seal(fd)
    _tell_format(path, answer["format"])
    if answer["bad"]:
        logger.warning(
            "list %s: %d of %d lines could not be read; first: %s",
            path, answer["bad"], answer["lines"], answer["first"],
        )  # fmt: skip
    if answer["unsupported"]:
        # Nothing is wrong with the list, and it is so at each reading.
        logger.info(
            "list %s: %d lines are of a kind that cannot be taken; first: %s",
            path, answer["unsupported"], answer["first_unsupported"],
        )  # fmt: skip
    _tell_partly(path, answer["partly"])
    return Made(fd, answer["ends_with_newline"])


def _said(options: FormatOptions) -> dict[str, Any]:
    """Options as JSON has them."""
    return {
        "columns": dict(sorted(options.columns.items())),
        "delimiter": options.delimiter,
        "category": options.category,
        "white": options.white,
    }


def _tell_format(path: Path, name: str) -> None:
    if name:
        logger.info("list %s: read as format %s, by its first lines", path, name)


def _tell_partly(path: Path, count: int) -> None:
    if count:
        logger.info("list %s: %d lines are taken in part: they mean more than entries can say", path, count)


async def _copy(path: Path) -> tuple[Made, bytes]:
    copying = asyncio.ensure_future(asyncio.to_thread(memory.sealed_copy, path))
    try:
        fd, read = await asyncio.shield(copying)
    except asyncio.CancelledError:
        copying.add_done_callback(_close_result)  # the thread goes on
        raise
    return Made(fd), read


def _close_result(copied: "asyncio.Future[tuple[int, bytes]]") -> None:
    if copied.exception() is None:
        os.close(copied.result()[0])


def _opened(path: Path, made: Made, content: bytes, *, text: bool = False, was_whole: bool = False) -> Read:
    if made.fd is None:
        raise SourceError(made.error)
    try:
        if was_whole and not made.whole:
            raise SourceError(f"{path}: its last line has no end: half-written?")
        return Read(memory.view(made.fd), made.whole, content, text)
    finally:
        os.close(made.fd)
