"""Short-lived processes: the only ones that see a source's text.

Text that a process has read stays in memory that it has freed, so whatever reads a source ends with its
work. It also spares the process that filters a dozen seconds of Python for a million lines. A parent asks
with one JSON object on the child's standard input, which may hold secrets, and is answered with one on its
standard output, behind JSON arrays that say how far it is, or what there is to log, as soon as there is.
None of them ever quotes from a source.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.lists import memory
from urlward.lists.build import checksum, compile_sources, is_artifact, silent
from urlward.lists.formats import AUTO, FormatOptions
from urlward.lists.source import Budget, SourceError, unreadable
from urlward.process import keep_private, module_command, told, used_by

COMPILER = "urlward.lists.worker"
"""The module that compiles one source, or tells its checksum."""

LOOK, LOOKS = 5.0, 12
"""Seconds between two looks at such a process, and how many find no processor used by one that hangs."""


class NoCompilerError(SourceError):
    """The process for a source could not be started, or has not come to its end: the source may be good."""


class _Progress:
    """What a process has used of a processor. Millions of lines take minutes, and some of it each second; one
    that is stopped, or waits for a file system that hangs, would be waited for for ever."""

    def __init__(self, module: str, process: int) -> None:
        self._process = process if module == COMPILER else 0  # others wait for the network
        self._used = 0.0
        self._looks = 0

    @property
    def hangs(self) -> bool:
        """Whether it has used none for too long."""
        return self._looks >= LOOKS

    def look(self) -> bool:
        """`hangs`, as of now; to be asked each `LOOK` seconds."""
        used = used_by(self._process) if self._process else 0.0
        self._looks = self._looks + 1 if used == self._used and self._process else 0
        self._used = used
        return self.hangs


def ask(
    module: str,
    request: Mapping[str, Any],
    fds: Sequence[int] = (),
    meanwhile: Callable[..., None] = silent,
) -> dict[str, Any]:
    """Have a process do something, and wait for its end.

    Args:
        module: that it runs.
        request: what it is told, besides who its parent is.
        fds: descriptors that it inherits.
        meanwhile: called with what each array holds that the process writes before its answer (`say`).

    Returns:
        Its answer.

    Raises:
        OSError: it could not be started, or ended without an answer.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        module_command(module),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=fds,
        process_group=0,  # Ctrl-C is for us
        env=_environment(),
    )
    line = b""
    progress, over = _Progress(module, process.pid), threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            if progress.look():
                process.kill()
                return

    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        threading.Thread(target=look, daemon=True).start()
        try:
            with contextlib.suppress(BrokenPipeError):  # what has ended says so by its code
                process.stdin.write(_told(request))
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            for line in process.stdout:
                if line.startswith(b"["):
                    meanwhile(*json.loads(line))
        except BaseException:
            process.kill()
            raise
        finally:
            over.set()
    return _answer(process.returncode, line, progress)


async def ask_async(module: str, request: Mapping[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
    """`ask` on an event loop; where it is cancelled, the process is killed."""
    import asyncio  # not in the child, whose start is half of what a small list takes

    process = await asyncio.create_subprocess_exec(
        *module_command(module),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        pass_fds=fds,
        process_group=0,
        env=_environment(),
    )
    progress = _Progress(module, process.pid)

    async def look() -> None:
        while not progress.look():
            await asyncio.sleep(LOOK)
        with contextlib.suppress(ProcessLookupError):
            process.kill()

    looking = asyncio.create_task(look())
    try:
        out, _ = await process.communicate(_told(request))
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    finally:
        looking.cancel()
    return _answer(process.returncode, out.rpartition(b"\n")[2], progress)


def _environment() -> dict[str, str]:
    # It ends with its memory, and is a quarter faster with Python's own allocator.
    return {**os.environ, "PYTHONMALLOC": "default"}


def _told(request: Mapping[str, Any]) -> bytes:
    return json.dumps({**request, "parent": os.getpid()}).encode()


def _answer(code: int | None, line: bytes, progress: _Progress) -> dict[str, Any]:
    if progress.hangs:
        raise OSError(0, f"the process that compiles it used no processor for {LOOK * LOOKS:.0f} s")
    if code or not line:
        raise OSError(0, f"the process that compiles it ended with {code}")
    said: dict[str, Any] = json.loads(line)
    return said


def content_of(path: Path) -> bytes:
    """A list file's checksum (`build.checksum`), for which a source is read in a process of its own.

    Raises:
        NoCompilerError: that does not do its work.
        SourceError: not readable.
    """
    if is_artifact(path):
        return checksum(path)
    with told_of(path):
        answer = ask(COMPILER, {"path": str(path), "at_once": True})
    if "error" in answer:
        raise SourceError(answer["error"])
    return bytes.fromhex(answer["content"])


@contextlib.contextmanager
def told_of(path: Path) -> Iterator[None]:
    """A process that the system does not give or ends, or that hangs, as an error of the source."""
    try:
        yield
    except OSError as e:
        raise NoCompilerError(str(unreadable(path, e))) from e


def say(*parts: object) -> None:
    """Tell whoever asks this process something before its answer."""
    print(json.dumps(parts), flush=True)


def read_request() -> dict[str, Any]:
    """What is asked of this process, which works for its parent from here on, and ends with it."""
    keep_private()
    # Signals that are meant for the parent and sent to all processes of that name.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    request = told(signal.SIGKILL)
    if not request.get("at_once"):
        # Traffic comes first: the parent's event loop is on the same machine.
        os.nice(5)
    return request


def main() -> None:
    """Compile a source into a descriptor; without one, tell the source's checksum alone."""
    json.dump(answer(read_request()), sys.stdout)


def answer(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the process that compiles says to a request; the artifact is in the descriptor then."""
    path = Path(request["path"])
    try:
        return _compile_whole(request, path) if "fd" in request else {"content": checksum(path).hex()}
    except memory.ChangingError as e:
        return {"changing": str(e)}
    except UrlwardError as e:
        # Whoever is told this need not try the same content again, unless it was the system that refused.
        return {"error": str(e), "lasting": not isinstance(e.__cause__, OSError | ValueError)}


def _compile_whole(request: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Compile a source as it is at one time, whatever becomes of the file while that takes."""
    fd, content, signature = memory.whole_copy(path, as_is=request.get("as_is", False))
    copy = Path(f"/proc/self/fd/{fd}")
    try:
        found = _compile(request, copy)
    except SourceError as e:
        # The path of a descriptor says nothing to anybody.
        raise SourceError(str(e).replace(str(copy), str(path)), bad_lines=e.bad_lines) from e.__cause__
    finally:
        os.close(fd)
    for name in ("first", "first_unsupported"):
        found[name] = found[name].replace(str(copy), str(path))
    return found | {"content": content.hex(), "signature": signature}


def _compile(request: Mapping[str, Any], path: Path) -> dict[str, Any]:
    data, report = compile_sources(
        [path],
        Key(bytes.fromhex(request["key"])),
        name=request["name"],
        budget=Budget.parse(request["budget"]),
        format=request.get("format", AUTO),
        options=FormatOptions(**request.get("options", {})),
        progress=say if request.get("progress") else silent,
    )
    with os.fdopen(request["fd"], "wb", closefd=False) as file:
        file.write(data)
    return {
        "format": report.recognised.get(str(path), ""),
        "lines": report.lines,
        "bad": report.bad,
        "first": str(report.bad_lines[0]) if report.bad_lines else "",
        "unsupported": report.unsupported,
        "first_unsupported": str(report.unsupported_lines[0]) if report.unsupported_lines else "",
        "partly": report.partly,
        "ends_with_newline": report.ends_with_newline,
    }


if __name__ == "__main__":
    main()
