"""Asking the recorder over its socket in the state folder: one JSON object a line, each way."""

import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from urlward.engine.errors import UrlwardError
from urlward.lists.state import unusable

SOCKET = "records.sock"
TIMEOUT = 5.0

_MOST = 16 << 20


class AskError(UrlwardError):
    """The recorder gave no answer, or none that makes sense."""


class NotRunningError(AskError):
    """There is none."""


def ask(state: Path, question: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Ask the recorder.

    Args:
        state: the state folder.
        question: such as ``status``.
        timeout: seconds to wait for each piece of the answer.

    Raises:
        NotRunningError: nobody listens.
        AskError: no answer in time, or none that makes sense.
        StateError: the folder cannot be used.
    """
    path = state / SOCKET
    try:
        line = _exchange(state, _line({"ask": question}), timeout)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError) as e:
        raise NotRunningError(f"{path}: no recorder runs") from e
    except TimeoutError as e:
        raise AskError(f"{path}: no answer within {timeout:.0f} s") from e
    except OSError as e:
        raise unusable(path, e) from e
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise AskError(f"{path}: an answer that is cut short, or is no JSON") from e
    if not isinstance(answer, dict):
        raise AskError(f"{path}: an answer that is no JSON object")
    if isinstance(said := answer.get("error"), str):
        raise AskError(f"{path}: {said}")
    return answer


def reply(question: object, answers: Mapping[str, Callable[[], Mapping[str, Any]]]) -> bytes:
    """The line that the recorder sends back.

    Args:
        question: the value of ``ask`` in what came.
        answers: what gives the answer to each question.
    """
    give = answers.get(question) if isinstance(question, str) else None
    if give is None:
        return _line({"error": f"no such question; there are {', '.join(answers)}"})
    try:
        return _line(give())
    except UrlwardError as e:
        return _line({"error": str(e)})


def _line(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _exchange(state: Path, line: bytes, timeout: float) -> bytes:
    folder = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            # The folder's own path may be longer than an address may be (unix(7): 107 bytes).
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET}")
            connection.sendall(line)
            with connection.makefile("rb") as answer:
                return answer.readline(_MOST)
    finally:
        os.close(folder)
