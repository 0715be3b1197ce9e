"""Reading list files, alone and beside other workers: several readers and one broker in this process."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import wait_for
from lists.support import HTML, SECRET, SENTINEL, artifact, descriptors
from urlward.engine.digest import Key
from urlward.engine.loaded import load
from urlward.lists import memory, reader, shared
from urlward.lists.broker import Broker
from urlward.lists.build import checksum
from urlward.lists.files import Signature, being_written
from urlward.lists.formats import FormatOptions
from urlward.lists.reader import Read, Reader, SupersededError
from urlward.lists.shared import Shared
from urlward.lists.source import Budget, SourceError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("a.example\n")
    return path


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    # Its thread has to have its turn among all others of the machine.
    monkeypatch.setattr(shared, "ANSWER_WITHIN", 60.0)
    before = descriptors()
    broker = Broker()
    broker.start()
    yield broker
    broker.close()
    assert descriptors() <= before


@pytest.fixture
def workers(broker: Broker) -> list[Reader]:
    return [new(Shared(broker.door)) for _ in range(3)]


def new(shared: Shared | None, budget: str = "50%") -> Reader:
    return Reader(Key(SECRET), Budget.parse(budget), shared)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that have been compiled."""
    seen: list[str] = []
    at_once, under_way = reader.ask, reader.ask_async

    def ask(module: str, request: dict[str, Any], *more: Any) -> dict[str, Any]:
        seen.append(Path(request["path"]).name)
        return at_once(module, request, *more)

    async def ask_async(module: str, request: dict[str, Any], *more: Any) -> dict[str, Any]:
        seen.append(Path(request["path"]).name)
        return await under_way(module, request, *more)

    monkeypatch.setattr(reader, "ask", ask)
    monkeypatch.setattr(reader, "ask_async", ask_async)
    return seen


async def read(one: Reader, path: Path, *, was_whole: bool = True) -> Read:
    signature = Signature.of(path)
    assert signature is not None
    return await one.read(path, checksum(path), signature, was_whole=was_whole)


def is_good(got: Read, entries: int = 1) -> bool:
    return load(got.data, Key(SECRET)).entries == entries


@pytest.mark.usefixtures("compiles_here")
class TestAlone:
    async def test_a_source(self, path: Path, compiled: list[str]) -> None:
        for got in (new(None).read_now(path), await read(new(None), path)):
            assert is_good(got)
            assert got.whole
            assert got.content == checksum(path)
        assert compiled == ["list.txt"] * 2

    async def test_an_artifact_is_a_copy(self, path: Path) -> None:
        data = artifact(["a.example", "b.example"])
        path.write_bytes(data)
        both = [new(None).read_now(path), await read(new(None), path)]
        path.write_bytes(b"")
        assert all(bytes(got.data) == data for got in both)

    def test_there_is_no_last_good_one_of_others(self, path: Path) -> None:
        assert new(None).last_good(path) is None
        new(None).keep(path, b"content")

    @pytest.mark.parametrize("apart", [True, False])
    async def test_another_format(self, path: Path, apart: bool, caplog: pytest.LogCaptureFixture) -> None:
        path.write_text("Link\nhttp://a.example/\nhttp://b.example/\nftp://c.example/\n")
        options = FormatOptions({"url": "Link"}, category="phishing")
        one = Reader(Key(SECRET), Budget(), None, "csv", options)
        with caplog.at_level(logging.INFO):
            assert is_good(await read(one, path) if apart else one.read_now(path), 2)
        assert [record.getMessage() for record in caplog.records if record.name == "urlward.lists"] == [
            f"list {path}: 1 lines are of a kind that cannot be taken; "
            f"first: {path}:4:1: a scheme that is not filtered: entries are http or https"
        ]

    @pytest.mark.parametrize("apart", [True, False])
    async def test_a_recognised_format(
        self, path: Path, apart: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        path.write_text("! rules\n||a.example/b\nc##d\n")
        with caplog.at_level(logging.INFO):
            assert is_good(await read(new(None), path) if apart else new(None).read_now(path), 2)
        assert [record.getMessage() for record in caplog.records if record.name == "urlward.lists"] == [
            f"list {path}: read as format adblock, by its first lines",
            f"list {path}: 1 lines are of a kind that cannot be taken; "
            f"first: {path}:3:1: a cosmetic rule: it changes pages",
            f"list {path}: 1 lines are taken in part: they mean more than entries can say",
        ]

    async def test_half_a_list(self, path: Path) -> None:
        path.write_text("a.example\nb.ex")
        assert not (await read(new(None), path, was_whole=False)).whole
        with pytest.raises(SourceError, match="half-written"):
            await read(new(None), path)

    async def test_a_source_that_changed_before_its_turn_is_read_as_it_is(self, path: Path) -> None:
        signature, content = Signature.of(path), checksum(path)
        assert signature is not None
        path.write_text("a.example\nb.example\n")
        got = await new(None).read(path, content, signature, was_whole=True)
        assert is_good(got, 2)
        assert (got.content, got.signature) == (checksum(path), Signature.of(path))

    async def test_an_artifact_that_changed_before_its_turn(self, path: Path) -> None:
        path.write_bytes(artifact(["a.example"]))
        signature, content = Signature.of(path), checksum(path)
        assert signature is not None
        path.write_bytes(artifact(["a.example", "b.example"]))
        with pytest.raises(SupersededError):
            await new(None).read(path, content, signature, was_whole=True)

    async def test_one_that_is_being_written_is_not_read(self, path: Path) -> None:
        with path.open("a") as file:
            file.write("b.exam")
            file.flush()
            assert being_written(path)  # the main thread sees to it that leases harm nobody; others would not
            with pytest.raises(SupersededError):
                await read(new(None), path)

    @pytest.mark.parametrize("kind", ["source", "artifact"])
    async def test_changed_to_the_same_size_within_a_tick_of_the_clock(self, path: Path, kind: str) -> None:
        good, other = (
            (artifact([f"{c}.example"]) if kind == "artifact" else f"{c}.example\n".encode()) for c in "ab"
        )
        path.write_bytes(good)
        signature, content = Signature.of(path), checksum(path)
        assert signature is not None
        path.write_bytes(other)
        os.utime(path, ns=(signature.modified, signature.modified))
        assert Signature.of(path) == signature
        if kind == "source":
            got = await new(None).read(path, content, signature, was_whole=True)
            assert got.content == checksum(path)
            return
        with pytest.raises(SupersededError):
            await new(None).read(path, content, signature, was_whole=True)

    async def test_a_copy_that_nobody_waits_for_is_closed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_bytes(artifact(["a.example"]))
        real, copied = memory.sealed_copy, list[Path]()

        def copy(path: Path) -> tuple[int, bytes]:
            made = real(path)
            copied.append(path)
            return made

        monkeypatch.setattr(memory, "sealed_copy", copy)
        before = descriptors()
        for _ in range(5):
            reading = asyncio.create_task(read(new(None), path))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
        async with asyncio.timeout(60):
            while len(copied) < 5 or not descriptors() <= before:  # their threads go on
                await asyncio.sleep(0.01)


async def now(one: Reader, path: Path) -> Read:
    return one.read_now(path)


@pytest.mark.usefixtures("compiles_here")
@pytest.mark.parametrize("how", [now, read], ids=["at once", "under way"])
class TestShared:
    async def test_a_source_is_compiled_once(
        self,
        how: Callable[[Reader, Path], Awaitable[Read]],
        path: Path,
        workers: list[Reader],
        compiled: list[str],
    ) -> None:
        got = [await how(one, path) for one in workers]
        assert compiled == ["list.txt"]
        assert all(is_good(each) for each in got)
        path.write_text("a.example\nb.example\n")
        got = [await how(one, path) for one in workers]
        assert compiled == ["list.txt"] * 2
        assert all(is_good(each, 2) for each in got)

    async def test_so_is_one_that_is_no_good_and_all_say_the_same(
        self,
        how: Callable[[Reader, Path], Awaitable[Read]],
        path: Path,
        workers: list[Reader],
        compiled: list[str],
    ) -> None:
        path.write_text(f"a.example\n{SENTINEL}\n?\n")
        said = set()
        for one in (new(workers[0]._shared), *workers):
            with pytest.raises(SourceError, match="2 of 3 lines") as raised:
                await how(one, path)
            said.add(str(raised.value))
        assert len(said) == 1
        assert len(compiled) == (1 if how is read else 4)

    async def test_an_artifact_is_copied_once(
        self,
        how: Callable[[Reader, Path], Awaitable[Read]],
        path: Path,
        workers: list[Reader],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        path.write_bytes(artifact(["a.example"]))
        copied: list[Path] = []
        real = reader.memory.sealed_copy
        monkeypatch.setattr(reader.memory, "sealed_copy", lambda path: (copied.append(path), real(path))[1])
        for one in workers:
            assert is_good(await how(one, path))
        assert copied == [path]

    async def test_bad_lines_are_told_once(
        self,
        how: Callable[[Reader, Path], Awaitable[Read]],
        path: Path,
        workers: list[Reader],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        path.write_text("a.example\n?\n")
        for one in workers:
            await how(one, path)
        assert [r.levelname for r in caplog.records if "could not be read" in r.getMessage()] == ["WARNING"]

    async def test_another_budget_name_key_or_format_is_another_list(
        self,
        how: Callable[[Reader, Path], Awaitable[Read]],
        path: Path,
        workers: list[Reader],
        compiled: list[str],
    ) -> None:
        await how(workers[0], path)
        shared = workers[0]._shared
        await how(new(shared, "3"), path)
        await how(Reader(Key(bytes(32)), Budget.parse("50%"), shared), path)
        for options in (FormatOptions(), FormatOptions(category="x")):
            await how(Reader(Key(SECRET), Budget.parse("50%"), shared, "urls", options), path)
        other = path.with_name("other.txt")
        other.write_bytes(path.read_bytes())
        got = await how(workers[1], other)
        assert compiled == ["list.txt"] * 5 + ["other.txt"]
        assert load(got.data, Key(SECRET)).name == "other"


@pytest.mark.usefixtures("compiles_here")
class TestTogether:
    async def test_at_the_same_time(self, path: Path, workers: list[Reader], compiled: list[str]) -> None:
        got = await asyncio.gather(*(read(one, path) for one in workers))
        assert compiled == ["list.txt"]
        assert all(is_good(each) for each in got)

    async def test_what_killed_one_may_kill_all_but_ends_nobody(
        self, path: Path, workers: list[Reader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def ask(self: Reader, path: Path, fd: int) -> dict[str, object]:
            await asyncio.sleep(0.05)
            raise SourceError(f"{path}: the process that compiles it ended with -9")

        monkeypatch.setattr(Reader, "_ask_worker", ask)
        results = await asyncio.gather(*(read(one, path) for one in workers), return_exceptions=True)
        assert [str(result).rpartition(" ")[2] for result in results] == ["-9"] * 3
        monkeypatch.undo()
        assert is_good(await read(workers[0], path))

    async def test_what_the_system_refused_is_tried_again(
        self, path: Path, workers: list[Reader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def ask(self: Reader, path: Path, fd: int) -> dict[str, object]:
            return {"error": f"{path}: Input/output error", "lasting": False}

        monkeypatch.setattr(Reader, "_ask_worker", ask)
        with pytest.raises(SourceError, match="Input/output"):
            await read(workers[0], path)
        monkeypatch.undo()
        assert is_good(await read(workers[1], path))

    async def test_nothing_is_given_that_may_be_of_another_content(
        self, path: Path, workers: list[Reader], monkeypatch: pytest.MonkeyPatch, compiled: list[str]
    ) -> None:
        real = reader.ask

        def ask(*args: Any) -> dict[str, Any]:
            path.write_text("b.example\nc.example\n")
            return real(*args)

        content = path.read_bytes()
        monkeypatch.setattr(reader, "ask", ask)
        assert is_good(workers[0].read_now(path), 2)
        monkeypatch.undo()
        path.write_bytes(content)
        assert is_good(workers[1].read_now(path), 1)

    @pytest.mark.parametrize(
        "content", [HTML, b"", b"a.example\nb.ex", None], ids=["html", "empty", "half", "gone"]
    )
    def test_what_is_in_force_elsewhere_is_to_be_had_whatever_has_become_of_the_file(
        self, path: Path, workers: list[Reader], content: bytes | None
    ) -> None:
        good = workers[0].read_now(path)
        assert workers[1].last_good(path) is None
        workers[0].keep(path, good.content)
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(SourceError):
            workers[1].read_now(path)
        last = workers[1].last_good(path)
        assert last is not None
        assert bytes(last.data) == bytes(good.data)

    def test_a_list_that_is_being_written_is_not_read(self, path: Path, workers: list[Reader]) -> None:
        workers[0].keep(path, workers[0].read_now(path).content)
        with path.open("a") as writer:
            writer.write("b.example\n")
            writer.flush()
            assert is_good(new(None).read_now(path), 2)  # which has nothing else
            with pytest.raises(SourceError, match="being written"):
                workers[2].read_now(path)

    async def test_without_the_supervisor_each_makes_its_own(
        self,
        path: Path,
        broker: Broker,
        workers: list[Reader],
        compiled: list[str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        for one in workers:
            await read(one, path)
        broker.close()
        path.write_text("a.example\nb.example\n")
        got = [await read(one, path) for one in workers]
        assert all(is_good(each, 2) for each in got)
        assert compiled == ["list.txt"] * 4
        said = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert len(said) == 3  # one a worker

    def test_no_memory_is_left_open(self, path: Path, workers: list[Reader]) -> None:
        before = descriptors()
        for number in range(10):
            path.write_text(f"a{number}.example\n")
            for one in workers:
                got = one.read_now(path)
                one.keep(path, got.content)
        del got
        # Nobody is told when the broker has come to it.
        wait_for(lambda: len(descriptors() - before) == 1, "all but the last to be let go")


@pytest.mark.usefixtures("compiles_here")
async def test_what_others_ask_for_and_has_changed_is_compiled_once_as_it_is(
    path: Path, workers: list[Reader], compiled: list[str]
) -> None:
    signature, content = Signature.of(path), checksum(path)
    assert signature is not None
    path.write_text("a.example\nb.example\n")
    got = await asyncio.gather(*(worker.read(path, content, signature, was_whole=True) for worker in workers))
    assert all(is_good(each, 2) for each in got)
    assert compiled == ["list.txt"]
    assert sorted(each.content for each in got)[:-1] == [b""] * (len(workers) - 1)
    # And who asks for what the file has now has it too; what it had before is in nobody's way.
    assert is_good(await read(workers[-1], path), 2)
    assert compiled == ["list.txt"]
    # Who sees the change later than all others, too.
    late = await workers[0].read(path, content, signature, was_whole=True)
    assert is_good(late, 2)
    assert late.content == b""
    assert compiled == ["list.txt"]
    # But not one that it has been changed back to.
    path.write_text("a.example\n")
    assert is_good(await read(workers[-1], path), 1)
    assert compiled == ["list.txt"] * 2
