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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.lists import memory
from urlward.lists.build import checksum, compile_sources, is_artifact, silent
from urlward.lists.formats import AUTO, FormatOptions
from urlward.lists.source import Budget, SourceError, unreadable
from urlward.process import keep_private, module_command, told

COMPILER = "urlward.lists.worker"
"""The module that compiles one source, or tells its checksum."""


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
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
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
    return _answer(process.returncode, line)


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
    try:
        out, _ = await process.communicate(_told(request))
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return _answer(process.returncode, out.rpartition(b"\n")[2])


def _environment() -> dict[str, str]:
    # It ends with its memory, and is a quarter faster with Python's own allocator.
    return {**os.environ, "PYTHONMALLOC": "default"}


def _told(request: Mapping[str, Any]) -> bytes:
    return json.dumps({**request, "parent": os.getpid()}).encode()


def _answer(code: int | None, line: bytes) -> dict[str, Any]:
    if code or not line:
        raise OSError(0, f"the process that compiles it ended with {code}")
    said: dict[str, Any] = json.loads(line)
    return said


def content_of(path: Path) -> bytes:
    """A list file's checksum (`build.checksum`), for which a source is read in a process of its own.

    Raises:
        SourceError: not readable.
    """
    if is_artifact(path):
        return checksum(path)
    try:
        answer = ask(COMPILER, {"path": str(path), "at_once": True})
    except OSError as e:
        raise unreadable(path, e) from e
    if "error" in answer:
        raise SourceError(answer["error"])
    return bytes.fromhex(answer["content"])


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
