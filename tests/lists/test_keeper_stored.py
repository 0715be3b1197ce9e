"""Feeds' artifacts in the store: there or not, replaced at once, and changed before the whole comes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from conftest import until
from lists.support import OTHER_SECRET, SECRET, blocks
from urlward.engine.artifact import parse
from urlward.engine.digest import Key, format_key
from urlward.engine.loaded import load
from urlward.engine.signing import SigningKey
from urlward.feeds import keeper
from urlward.feeds.keeper import Keeper, ListFile
from urlward.lists.build import Issue, compile_sources
from urlward.lists.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("compiles_here")

MANY = "".join(f"n{n}.example\n" for n in range(300))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "INTERVAL", 0.02)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "feed.ward"


def issue(
    folder: Path, serial: int, text: str, secret: bytes = SECRET, sign: SigningKey | None = None
) -> bytes:
    path = folder / "text"
    path.write_text(MANY + text)
    return compile_sources([path], Key(secret), name="body", issue=Issue(serial=serial, key=sign))[0]


def put(path: Path, data: bytes) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(data)
    beside.replace(path)


@asynccontextmanager
async def watched(*files: ListFile, run: RunFolder | None = None) -> AsyncIterator[Keeper]:
    kept = Keeper(files, Key(SECRET), run=run)
    kept.load()
    watch = asyncio.create_task(kept.watch())
    try:
        yield kept
    finally:
        watch.cancel()
        await asyncio.wait([watch])


def feed(path: Path, **more: object) -> ListFile:
    return ListFile(path, name="feed", stored=True, **more)  # type: ignore[arg-type]


async def test_it_may_come_later(stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with watched(feed(stored)) as kept:
        assert "list feed: not there yet" in caplog.text
        assert not blocks(kept.matcher, "http://a.example/")
        assert kept.names == ["feed"]
        put(stored, issue(tmp_path, 1, "a.example\n"))
        await until(lambda: blocks(kept.matcher, "http://a.example/"), "the first")
        assert kept.matcher.check_url("http://a.example/").list == "feed", (
            "the feed's name, not the artifact's"
        )
        assert kept.failures == 0


async def test_one_that_is_damaged_does_not_stop_the_start(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = issue(tmp_path, 1, "a.example\n")
    stored.write_bytes(data[:-1])
    async with watched(feed(stored)) as kept:
        assert "nothing on it is blocked until it comes anew" in caplog.text
        put(stored, data)
        await until(lambda: blocks(kept.matcher, "http://a.example/"), "the whole one")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    "cut": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "noise": lambda data: b"\x81\x02\x00" * 100,
    "text": lambda data: b"other.example\n",
}


@pytest.fixture
def in_state(tmp_path: Path) -> Path:
    """A stored artifact in a state folder."""
    (tmp_path / "state/feeds").mkdir(parents=True)
    path = tmp_path / "state/feeds/feed.ward"
    path.write_bytes(issue(tmp_path, 1, "a.example\n"))
    return path


@pytest.mark.parametrize("damage", DAMAGES)
async def test_one_that_is_damaged_is_set_aside(
    in_state: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good, state = in_state.read_bytes(), tmp_path / "state"
    damaged = DAMAGES[damage](good)
    in_state.write_bytes(damaged)
    own = tmp_path / "own.txt"
    own.write_text("own.example\n")
    async with watched(ListFile(own), feed(in_state, state=state)) as kept:
        assert blocks(kept.matcher, "http://own.example/"), "from the first second"
        assert not blocks(kept.matcher, "http://other.example/")
        assert not in_state.exists()
        (aside,) = (state / "damaged").iterdir()
        assert aside.read_bytes() == damaged
        (line,) = caplog.messages
        assert line.endswith(
            f"set aside as damaged/{aside.name}; list feed: nothing on it is blocked until it comes anew"
        )
        put(in_state, good)
        await until(lambda: blocks(kept.matcher, "http://a.example/"), "the whole one")
        # And while the filter runs.
        put(in_state, damaged)
        await until(lambda: not in_state.exists(), "that it is set aside")
        await until(lambda: "the last good one stays in force" in caplog.text, "a word")
        assert blocks(kept.matcher, "http://a.example/")
        caplog.set_level(logging.INFO)
        put(in_state, good)
        await until(lambda: "list feed: 301 entries in force, as before" in caplog.text, "the same again")
        assert not any("gone" in message for message in caplog.messages)


@pytest.fixture
def run() -> Iterator[RunFolder]:
    made = RunFolder()
    yield made
    made.close()


async def test_one_that_cannot_be_copied_is_no_damage_and_is_tried_again(
    in_state: Path,
    tmp_path: Path,
    run: RunFolder,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keeper, "AGAIN", 0.2)
    in_the_way = run._copy_of(in_state).with_suffix(".tmp")
    in_the_way.mkdir()
    async with watched(feed(in_state, state=tmp_path / "state"), run=run) as kept:
        (line,) = caplog.messages
        why = f"list {in_state}: no copy in {run.path}: Is a directory"
        assert line.startswith(f"{why}: nothing on it is blocked until that is mended (tried each")
        await until(lambda: f"{why}; nothing on it is blocked" in caplog.messages, "another try")
        in_the_way.rmdir()
        await until(lambda: blocks(kept.matcher, "http://a.example/"), "the same, tried again")
        assert not kept.refused
        # And while the filter runs.
        in_the_way.mkdir()
        put(in_state, issue(tmp_path, 2, "b.example\n"))
        await until(lambda: "the last good one stays in force" in caplog.text, "a word")
        assert blocks(kept.matcher, "http://a.example/")
        assert kept.refused
        in_the_way.rmdir()
        await until(lambda: blocks(kept.matcher, "http://b.example/"), "the next, tried again")
        assert not kept.refused
    assert not (tmp_path / "state/damaged").exists()


async def test_who_only_reads_sets_nothing_aside(in_state: Path) -> None:
    in_state.write_bytes(b"")
    async with watched(feed(in_state)):
        assert in_state.exists()


async def test_a_key_that_takes_anothers_place_is_read_again(in_state: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.key"
    file.write_bytes(format_key(OTHER_SECRET))
    in_state.write_bytes(issue(tmp_path, 1, "a.example\n", OTHER_SECRET))
    third = bytes(32)
    spec = feed(in_state, keys=(Key(OTHER_SECRET),), key_files=(file,), state=tmp_path / "state")
    async with watched(spec) as kept:
        assert blocks(kept.matcher, "http://a.example/")
        file.write_bytes(format_key(third))
        put(in_state, issue(tmp_path, 2, "b.example\n", third))
        await until(lambda: blocks(kept.matcher, "http://b.example/"), "one under the new key")
        assert not (tmp_path / "state/damaged").exists()
    # As at a start with the new key, where the artifact from before is still in the store.
    put(in_state, issue(tmp_path, 2, "b.example\n", OTHER_SECRET))
    spec = feed(in_state, keys=(Key(third),), key_files=(file,), state=tmp_path / "state")
    async with watched(spec) as kept:
        assert not in_state.exists(), "set aside, so that it is fetched anew"
        put(in_state, issue(tmp_path, 3, "c.example\n", third))
        await until(lambda: blocks(kept.matcher, "http://c.example/"), "the next")


async def test_a_newer_version_is_no_damage_while_the_last_good_one_is_in_force(
    in_state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, state = in_state.read_bytes(), tmp_path / "state"
    newer = good[:8] + b"\x63" + good[9:]
    async with watched(feed(in_state, state=state)) as kept:
        put(in_state, newer)
        await until(lambda: "the last good one stays" in caplog.text, "a word")
        assert in_state.exists()
        assert blocks(kept.matcher, "http://a.example/")
    async with watched(feed(in_state, state=state)):
        assert not in_state.exists()


async def test_it_may_be_under_a_key_of_its_own(stored: Path, tmp_path: Path) -> None:
    stored.write_bytes(issue(tmp_path, 1, "a.example\n", OTHER_SECRET))
    text = tmp_path / "own.txt"
    text.write_text("b.example\n")
    async with watched(ListFile(text), feed(stored, keys=(Key(OTHER_SECRET),))) as kept:
        assert blocks(kept.matcher, "http://a.example/")
        assert blocks(kept.matcher, "http://b.example/")
        assert kept.networks() == []
        put(stored, issue(tmp_path, 2, "c.example\n192.0.2.7\n", SECRET))
        await until(lambda: blocks(kept.matcher, "http://c.example/"), "one under the lists' key")
        assert kept.networks() == ["192.0.2.7/32"]


async def test_where_it_is_under_neither_its_own_is_named(
    stored: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored.write_bytes(issue(tmp_path, 1, "a.example\n", bytes(32)))
    async with watched(feed(stored, keys=(Key(OTHER_SECRET),))):
        assert f"the key given is {Key(OTHER_SECRET).id.hex()}" in caplog.text


async def test_networks_that_are_too_wide_for_it_are_not_told(stored: Path, tmp_path: Path) -> None:
    stored.write_bytes(issue(tmp_path, 1, "0.0.0.0/0\n[::]/0\n192.0.0.0/8\n192.0.2.7\n"))
    async with watched(feed(stored)) as kept:
        assert len(kept.networks()) == 4
    async with watched(feed(stored, guarded=True)) as kept:
        assert sorted(kept.networks()) == ["192.0.0.0/8", "192.0.2.7/32"]


class TestTrust:
    SIGNING = SigningKey(bytes(range(32)))

    def trusted(self, path: Path) -> ListFile:
        return ListFile(path, trust=(str(self.SIGNING.public),))

    async def test_an_older_issue_changes_nothing(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "list.ward"
        path.write_bytes(issue(tmp_path, 5, "a.example\n", sign=self.SIGNING))
        async with watched(self.trusted(path)) as kept:
            for serial, sign, why in ((4, self.SIGNING, "older"), (6, None, "not signed")):
                put(path, issue(tmp_path, serial, "b.example\n", sign=sign))
                await until(lambda w=why: w in caplog.text, why)  # type: ignore[misc]
                assert blocks(kept.matcher, "http://a.example/")
            put(path, b"b.example\n")
            await until(lambda: caplog.text.count("not signed") == 2, "a text in its place to be refused")
            assert blocks(kept.matcher, "http://a.example/")
            put(path, issue(tmp_path, 6, "b.example\n", sign=self.SIGNING))
            await until(lambda: blocks(kept.matcher, "http://b.example/"), "the next")

    def test_at_the_start_one_that_is_not_signed_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "list.ward"
        path.write_bytes(issue(tmp_path, 5, "a.example\n"))
        with pytest.raises(Exception, match="not signed"):
            Keeper([self.trusted(path)], Key(SECRET)).load()

    def test_a_text_of_the_operators_needs_no_signature(self, tmp_path: Path) -> None:
        path = tmp_path / "list.txt"
        path.write_text("a.example\n")
        kept = Keeper([self.trusted(path)], Key(SECRET))
        kept.load()
        assert blocks(kept.matcher, "http://a.example/")


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    data = issue(tmp_path, 1, "a.example\n")
    assert parse(data).header.checksum == load(data, Key(SECRET)).artifact.header.checksum
