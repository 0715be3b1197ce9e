import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conftest import until
from records.recorder_support import answering
from records.support import own_messages
from rows import each_row
from urlward.engine.errors import UrlwardError
from urlward.records import asking as module
from urlward.records.asking import MAX_LINE, SOCKET, Desk, NotRunningError, Reporter, ask, reply
from urlward.state.folder import StateError


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
        with pytest.raises(UrlwardError, match="no answer within 0 s"):
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


@each_row(
    ("line", "said"),
    [
        (b"", "cut short"),
        (b'{"a": ', "cut short"),
        (b"[1]\n", "no JSON object"),
        (b'{"error": "no such question"}\n', "no such question"),
    ],
)
def test_an_answer_that_is_none(tmp_path: Path, line: bytes, said: str) -> None:
    with answering(tmp_path, lambda _: line), pytest.raises(UrlwardError, match=said) as raised:
        ask(tmp_path, "status")
    assert not isinstance(raised.value, NotRunningError)


def test_the_other_side(tmp_path: Path) -> None:
    def broken() -> dict[str, object]:
        raise StateError("the state cannot be used")

    answers = {"status": lambda: {"ok": True}, "broken": broken}
    with answering(tmp_path, lambda asked: reply(asked, answers)):
        assert ask(tmp_path, "status") == {"ok": True}
        with pytest.raises(UrlwardError, match="the state cannot be used"):
            ask(tmp_path, "broken")
        with pytest.raises(UrlwardError, match="no such question; there are status, broken"):
            ask(tmp_path, "x")
    assert json.loads(reply(["status"], answers))["error"]


class Heard:
    """A desk, and what it has heard."""

    def __init__(self, state: Path) -> None:
        self.measured: list[tuple[str, dict[str, Any]]] = []
        self.desk = Desk(state, {"status": lambda: {"ok": True}}, self._measure)

    def _measure(self, worker: str, metrics: dict[str, Any]) -> None:
        self.measured.append((worker, metrics))


@pytest.fixture
async def heard(tmp_path: Path) -> AsyncIterator[Heard]:
    made = Heard(tmp_path)
    await made.desk.start()
    yield made
    await made.desk.close()
    assert not (tmp_path / SOCKET).exists()


async def test_a_socket_that_is_deleted_under_way_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.01)
    heard, state = Heard(tmp_path / "state"), tmp_path / "state"
    state.mkdir()
    await heard.desk.start()
    worker = Reporter(state, "gw1-0")
    worker.report({"requests": 1})
    await until(lambda: heard.measured)
    (state / SOCKET).unlink()
    await until((state / SOCKET).is_socket)
    state.rename(tmp_path / "elsewhere")
    await asyncio.sleep(0.05)
    state.mkdir()
    (state / SOCKET).mkdir()
    await until((state / SOCKET).is_socket)
    assert await asyncio.to_thread(ask, state, "status") == {"ok": True}
    worker.report({"requests": 2})
    await until(lambda: len(heard.measured) == 2)
    worker.close()
    await heard.desk.close()


async def test_what_a_worker_counts_is_taken_while_questions_are_answered(
    heard: Heard, tmp_path: Path
) -> None:
    one, other = Reporter(tmp_path, "gw1-0"), Reporter(tmp_path, "gw1-1")
    one.report({"requests": 7})
    other.report({"requests": 1})
    await until(lambda: len(heard.measured) == 2)
    assert heard.desk.connected == {"gw1-0", "gw1-1"}
    assert await asyncio.to_thread(ask, tmp_path, "status") == {"ok": True}
    one.report({"requests": 8})
    await until(lambda: len(heard.measured) == 3)
    assert heard.measured[-1] == ("gw1-0", {"requests": 8})
    other.close()
    await until(lambda: heard.desk.connected == {"gw1-0"})
    one.close()
    assert (tmp_path / SOCKET).stat().st_mode & 0o077 == 0


async def test_who_takes_the_place_of_a_recorder_is_told_that_one_has_heard_before(
    heard: Heard, tmp_path: Path
) -> None:
    reporter = Reporter(tmp_path, "gw1-0")
    reporter.report({"requests": 7})
    reporter.report({"requests": 8})
    await until(lambda: len(heard.measured) == 2)
    assert "told" not in heard.measured[1][1]
    await heard.desk.close()
    reporter.report({"requests": 8})  # into the void
    await heard.desk.start()

    def again() -> bool:
        reporter.report({"requests": 9})
        return ("gw1-0", {"requests": 9, "told": True}) in heard.measured

    await until(again)
    reporter.close()


async def test_a_report_that_is_not_taken_at_once_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / SOCKET))
        server.listen(1)
        reporter = Reporter(tmp_path, "gw1-0")
        for _ in range(1000):  # nobody reads
            reporter.report({"requests": "x" * 10_000})
        reporter.close()


async def test_that_nobody_answers_is_said_late_and_taken_back(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await heard.desk.close()
    reporter = Reporter(tmp_path, "gw1-0")
    reporter.report({"requests": 7})
    assert own_messages(caplog) == []
    monkeypatch.setattr(module, "SILENT_FOR", 0.0)
    reporter.report({"requests": 7})
    reporter.report({"requests": 7})
    await heard.desk.start()
    reporter.report({"requests": 7})
    reporter.report({"requests": object()})
    await until(lambda: heard.measured)
    assert own_messages(caplog) == [
        "records: the process that records does not answer; events wait in the outbox",
        "records: the process that records answers again",
        "records: the metrics cannot be told: TypeError",
    ]
    reporter.close()


@pytest.mark.parametrize(
    "said",
    [
        b"?\n", b"[]\n", b"{}\n", b'{"worker": "w"}\n', b'{"worker": "w", "metrics": 1}\n', b"\xff\n",
        b'{"worker": "w\\n", "metrics": {"a": 1}}\n', b'{"ask": 1}\n', b"[" * 100_000 + b"\n",
        b'{"ask": "' + b"x" * 300 + b'"}\n', b"x" * (MAX_LINE + 10) + b"\n", b"cut",
    ],
)  # fmt: skip
async def test_who_talks_nonsense_is_not_listened_to(heard: Heard, tmp_path: Path, said: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
    writer.write(said)
    writer.write_eof()
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    assert heard.measured == []
    assert heard.desk.connected == set()


async def test_a_bug_in_an_answer_is_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> dict[str, object]:
        raise ZeroDivisionError("what is confidential")

    desk = Desk(tmp_path, {"status": fails, "other": lambda: {"a": {1}}}, lambda *_: None)
    await desk.start()
    for question, kind in (("status", "ZeroDivisionError"), ("other", "TypeError")):
        with pytest.raises(UrlwardError, match=rf"records\.sock: a bug: {kind}$"):
            await asyncio.to_thread(ask, tmp_path, question)
    await desk.close()
    assert [(one.name, one.getMessage()) for one in caplog.records] == [
        ("urlward.records", "records: status: a bug: ZeroDivisionError"),
        ("urlward.records", "records: other: a bug: TypeError"),
    ]


async def test_who_says_nothing_is_not_waited_for(
    heard: Heard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_WITHIN", 0.05)
    reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    "then",
    [b'{"worker": "b", "metrics": {"n": 1}}', b'{"worker": "a", "ask": "status"}', b'{"ask": "status"}'],
)
async def test_a_worker_keeps_its_name_and_asks_nothing(
    heard: Heard, tmp_path: Path, then: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_unix_connection(tmp_path / SOCKET)
    writer.write(b'{"worker": "a", "metrics": {"n": 1}}\n' + then + b"\n")
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    assert heard.measured == [("a", {"n": 1})]
    assert [(one.name, one.message) for one in caplog.records] == [
        (
            "urlward.records",
            "records: a worker is not listened to any more: a question, or another name than before",
        )
    ]
