"""From a list file to an artifact in memory, made by whichever worker comes first and read by all.

A source is compiled, in a process of its own where traffic is under way, and an artifact is copied: the
file itself is never mapped, since who cut it short would end every process that reads it.
"""

import asyncio
import json
import logging
import os
import sys
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from urlward.engine.artifact import VERSION
from urlward.engine.digest import Key
from urlward.lists import memory
from urlward.lists.build import Progress, checksum, compile_sources, is_artifact, name_of, silent
from urlward.lists.files import Signature, being_written
from urlward.lists.formats import DEFAULTS, FormatOptions
from urlward.lists.shared import Made, Shared, Turn
from urlward.lists.source import Budget, SourceError

logger = logging.getLogger("urlward.lists")

WORKERS = 2
"""Sources compiled at once; a million lines take a core and several hundred megabytes."""


class SupersededError(Exception):
    """The file has changed since its content was asked for; the next look will see it settle."""


class Read(NamedTuple):
    """What was read.

    Attributes:
        data: the artifact, in memory that nobody can change.
        whole: whether the file's last line has its end.
        content: the file's checksum.
        text: whether the file is a source.
    """

    data: memoryview
    whole: bool
    content: bytes
    text: bool


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
        format: str = "grammar",  # noqa: A002 - the word
        options: FormatOptions = DEFAULTS,
    ) -> None:
        self._key = key
        self._budget = budget
        self._shared = shared
        self._format = format
        self._options = options
        self._compiling = asyncio.Semaphore(WORKERS)

    async def read(self, path: Path, content: bytes, signature: Signature, *, was_whole: bool) -> Read:
        """Read a file while traffic is under way.

        Args:
            path: the file.
            content: its checksum.
            signature: of the file when that was taken.
            was_whole: whether its last line had an end before; then half a line is half a list.

        Raises:
            SourceError: no good, or not readable.
            SupersededError: it has another signature or content by now.
        """
        source = not is_artifact(path)
        async with self._compiling if source else nullcontext():
            with self._turn(path, content) as turn:
                made = await turn.result()
                if made is None:
                    made = await self._make(path, content, signature, source=source)
                    turn.give(made)
        return _opened(path, made, content, text=source, was_whole=was_whole)

    def read_now(self, path: Path, progress: Progress = silent) -> Read:
        """Read a file at once, before there is any traffic.

        Raises:
            SourceError: no good, or not readable.
        """
        last = self.last_good(path)
        if last is not None and being_written(path):
            raise SourceError(f"{path}: being written")
        signature, content = Signature.of(path), checksum(path)
        with self._turn(path, content) as turn:
            made = turn.result_now()
            if made is None:
                made, read = self._make_now(path, content, progress)
                if read == content and Signature.of(path) == signature:
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

    def _turn(self, path: Path, content: bytes) -> Turn:
        return Turn(self._shared, self._slot(path), self._digest(content))

    def _slot(self, path: Path) -> str:
        """Stands for all that an artifact's bytes depend on besides the file's content."""
        how = "" if self._format == "grammar" else f"{self._format} {_said(self._options)} "
        return self._digest(os.fsencode(f"{VERSION} {self._budget} {how}{path.absolute()}"))

    def _digest(self, data: bytes) -> str:
        # Keyed, as everything that is made of an entry's text.
        return blake2b(data, key=self._key.secret, digest_size=16, person=b"urlward shared").hexdigest()

    def _make_now(self, path: Path, content: bytes, progress: Progress) -> tuple[Made, bytes]:
        """What came of a file, and the checksum of what that was."""
        if is_artifact(path):
            fd, read = memory.sealed_copy(path)
            return Made(fd), read
        data, report = compile_sources(
            [path],
            self._key,
            name=name_of(path),
            budget=self._budget,
            progress=progress,
            format=self._format,
            options=self._options,
        )
        if report.bad:
            logger.warning(
                "list %s: %d of %d lines could not be read; first: %s",
                path, report.bad, report.lines, report.bad_lines[0],
            )  # fmt: skip
        if report.unsupported:
            _tell_unsupported(path, report.unsupported, report.unsupported_lines[0])
        made = Made(memory.sealed(data), report.ends_with_newline)
        return made, content if self._shared is None else checksum(path)

    async def _make(self, path: Path, content: bytes, signature: Signature, *, source: bool) -> Made:
        if Signature.of(path) != signature:
            raise SupersededError  # while others were at it
        made, read = (await self._compile(path), None) if source else await _copy(path)
        try:
            if read is None:
                read = await asyncio.to_thread(checksum, path)
            if read != content or Signature.of(path) != signature:
                raise SupersededError
        except BaseException:
            if made.fd is not None:
                os.close(made.fd)
            raise
        return made

    async def _compile(self, path: Path) -> Made:
        """Compile in another process (`urlward.lists.worker`)."""
        fd = memory.new()
        try:
            answer = await self._ask_worker(path, fd)
            if "error" in answer:
                if not answer["lasting"]:
                    raise SourceError(answer["error"])
                os.close(fd)
                return Made(None, error=answer["error"])
            memory.seal(fd)
        except BaseException:
            os.close(fd)
            raise
        if answer["bad"]:
            logger.warning(
                "list %s: %d lines could not be read; first: %s", path, answer["bad"], answer["first"]
            )
        if answer["unsupported"]:
            _tell_unsupported(path, answer["unsupported"], answer["first_unsupported"])
        return Made(fd, answer["ends_with_newline"])

    async def _ask_worker(self, path: Path, fd: int) -> dict[str, Any]:
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "urlward.lists.worker", str(fd),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(fd,),
            process_group=0,  # Ctrl-C is for us; the worker is ended in order
            # It ends with its memory, and is a quarter faster with Python's own allocator.
            env={**os.environ, "PYTHONMALLOC": "default"},
        )  # fmt: skip
        request = {
            "path": str(path),
            "key": self._key.secret.hex(),
            "name": name_of(path),
            "budget": str(self._budget),
            "format": self._format,
            "options": _said(self._options),
            "parent": os.getpid(),
        }
        try:
            out, _ = await worker.communicate(json.dumps(request).encode())
        except asyncio.CancelledError:
            worker.kill()
            await worker.wait()
            raise
        if worker.returncode:
            raise SourceError(f"{path}: the process that compiles it ended with {worker.returncode}")
        answer: dict[str, Any] = json.loads(out)
        return answer


def _said(options: FormatOptions) -> dict[str, Any]:
    """Options as JSON has them."""
    return {
        "columns": dict(sorted(options.columns.items())),
        "delimiter": options.delimiter,
        "category": options.category,
    }


def _tell_unsupported(path: Path, count: int, first: object) -> None:
    # Nothing is wrong with the list, and it is so at each reading.
    logger.info("list %s: %d lines are of a kind that cannot be taken; first: %s", path, count, first)


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
