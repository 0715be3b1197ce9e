"""Compiling a source in a process of its own.

A million lines take a dozen seconds of Python; the process that filters must not spend them, nor
hold their text. The parent passes the secret key on standard input and a file descriptor to write
the artifact to; the report comes back on standard output as one JSON object.
"""

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from urlward.engine.digest import Key
from urlward.engine.errors import UrlwardError
from urlward.lists.build import compile_sources
from urlward.lists.formats import FormatOptions
from urlward.lists.source import Budget

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run as ``python -m urlward.lists.worker FD``."""
    request = read_request()
    try:
        data, report = compile_sources(
            [Path(request["path"])],
            Key(bytes.fromhex(request["key"])),
            name=request["name"],
            budget=Budget.parse(request["budget"]),
            format=request.get("format", "grammar"),
            options=FormatOptions(**request.get("options", {})),
        )
        with os.fdopen(int(sys.argv[1]), "wb") as file:
            file.write(data)
        answer = {
            "bad": report.bad,
            "first": str(report.bad_lines[0]) if report.bad_lines else "",
            "unsupported": report.unsupported,
            "first_unsupported": str(report.unsupported_lines[0]) if report.unsupported_lines else "",
            "ends_with_newline": report.ends_with_newline,
        }
    except UrlwardError as e:
        # Whoever is told this need not try the same content again, unless it was the system that refused.
        answer = {"error": str(e), "lasting": not isinstance(e.__cause__, OSError | ValueError)}
    json.dump(answer, sys.stdout)


def read_request() -> dict[str, Any]:
    """What is asked of this process, which works for its parent from here on, and ends with it."""
    end_with_parent(signal.SIGKILL)
    # Signals that are meant for the parent and sent to all processes of that name.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Traffic comes first: the parent's event loop is on the same machine.
    os.nice(5)
    request: dict[str, Any] = json.load(sys.stdin)
    check_parent(request["parent"])
    return request


def end_with_parent(by: signal.Signals) -> None:
    """Get a signal when the parent ends.

    What a killed process had begun, another begins anew: two at once would only take its memory.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)


def check_parent(parent: int) -> None:
    """End where the parent has ended before `end_with_parent`."""
    if parent != os.getppid():
        sys.exit(1)


if __name__ == "__main__":
    main()
