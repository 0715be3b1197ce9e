import json
import os
import socket
from pathlib import Path

import pytest

from records.recorder_support import answering
from urlward.lists.state import StateError
from urlward.records.asking import SOCKET, AskError, NotRunningError, ask, reply


def test_an_answer(tmp_path: Path) -> None:
    with answering(tmp_path, lambda asked: b'{"asked": "%s"}\n' % asked.encode()):
        assert ask(tmp_path, "status") == {"asked": "status"}


def test_a_folder_with_a_long_path(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a" * 50] * 3)
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(folder, os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/{SOCKET}")
        os.close(here)
        server.listen()
        with pytest.raises(AskError, match="no answer within 0 s"):
            ask(folder, "status", timeout=0.05)


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError, match=r"records\.sock: no recorder runs"):
        ask(tmp_path, "status")
    with pytest.raises(NotRunningError):
        ask(tmp_path / "none", "status")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / SOCKET))
    with pytest.raises(NotRunningError):
        ask(tmp_path, "status")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "cut short"),
        (b'{"a": ', "cut short"),
        (b"[1]\n", "no JSON object"),
        (b'{"error": "no such question"}\n', "no such question"),
    ],
)
def test_an_answer_that_is_none(tmp_path: Path, line: bytes, said: str) -> None:
    with answering(tmp_path, lambda _: line), pytest.raises(AskError, match=said) as raised:
        ask(tmp_path, "status")
    assert not isinstance(raised.value, NotRunningError)


def test_the_other_side(tmp_path: Path) -> None:
    def broken() -> dict[str, object]:
        raise StateError("the state cannot be used")

    answers = {"status": lambda: {"ok": True}, "broken": broken}
    with answering(tmp_path, lambda asked: reply(asked, answers)):
        assert ask(tmp_path, "status") == {"ok": True}
        with pytest.raises(AskError, match="the state cannot be used"):
            ask(tmp_path, "broken")
        with pytest.raises(AskError, match="no such question; there are status, broken"):
            ask(tmp_path, "x")
    assert json.loads(reply(["status"], answers))["error"]
