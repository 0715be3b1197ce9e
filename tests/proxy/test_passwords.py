"""Passwords of the proxy's users: the file, what is remembered, and guesses that cost others nothing."""

import asyncio
import logging
import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import argon2
import bcrypt
import pytest

from conftest import until
from rows import each_row
from urlward.lists.run_folder import RunFolder
from urlward.plan import SHARED
from urlward.proxy import passwords, threads
from urlward.proxy.passwords import MOST_WAITING, Passwords, UrlwardError, read_users

BCRYPT = "$2b$04$RkfA/dr2NK1OVC8iYuYvO.VAq25djmtuTq11cEHH3Ki/dV0Xb7iNW"
ARGON2 = "$argon2id$v=19$m=64,t=1,p=1$0zvNsRFUgdWM6YMCbWjJTA$mTNyCmv3hbM34riNpASaqE5Yrfo+qfXMLkw+9CeOXc8"
ARGON = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def hashed(password: bytes, prefix: bytes = b"2b") -> str:
    return bcrypt.hashpw(password[:72], bcrypt.gensalt(4)).replace(b"$2b$", b"$" + prefix + b"$").decode()


def token(user: str, password: str) -> bytes:
    return b64encode(f"{user}:{password}".encode())


def users_file(folder: Path, *lines: str) -> Path:
    path = folder / "users"
    beside = folder / "users.new"
    beside.write_text("".join(f"{line}\n" for line in lines))
    # Whoever looks at it now sees it whole, and another file than before.
    return beside.replace(path)


async def looked_at(found: Passwords, asked: bytes, address: str = "192.0.2.1") -> bool:
    """What comes out, however it does."""
    known = found.known(asked)
    if known is None:
        done = asyncio.Event()
        assert found.ask(asked, address, done.set)
        await asyncio.wait_for(done.wait(), 30)
        known = found.known(asked)
    assert known is not None
    return known


# -- the file


def test_a_file_of_users(tmp_path: Path) -> None:
    lines = [
        "# users",
        "",
        "a:" + hashed(b"x"),
        "  b:" + ARGON.hash("x") + " ",
        "\u00e4:" + hashed(b"x", b"2y"),
        "a:" + hashed(b"y"),
    ]
    users = read_users(users_file(tmp_path, *lines))
    assert list(users) == [b"a", b"b", "\u00e4".encode()]
    assert users[b"a"] == lines[2][2:]


@each_row(
    ("line", "message"),
    [
        ("b", "2: not a hash"),
        (":x", "2: no user"),
        ("b:secret", "2: not a hash"),
        ("b:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=", "2: not a hash"),
        ("b:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/", "2: not a hash"),
        ("b:" + BCRYPT[:-1], "2: not a hash"),
        ("b:" + BCRYPT.replace("$04$", "$31$"), "2: not a hash"),
        ("b:" + ARGON2.replace("m=64", "m=99999999"), "2: not a hash"),
        ("b:$argon2id$x", "2: not a hash"),
    ],
)
def test_a_file_with_a_bad_line_is_refused_whole(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UrlwardError) as raised:
        read_users(users_file(tmp_path, "a:" + hashed(b"x"), line))
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "none", users_file(tmp_path, "# nobody")):
        with pytest.raises(UrlwardError):
            read_users(path)
    with pytest.raises(UrlwardError, match="~nobody-of-that-name/users: No such file"):
        Passwords("@~nobody-of-that-name/users")


# -- what is right


async def test_who_is_let_in(tmp_path: Path) -> None:
    long = "p" * 100
    lines = ["a:" + hashed(b"x"), "b:" + ARGON.hash("y:z"), "c:" + hashed(long.encode(), b"2y")]
    found = Passwords(f"@{users_file(tmp_path, *lines)}")
    for user, password in (("a", "x"), ("b", "y:z"), ("c", long)):
        assert await looked_at(found, token(user, password))
    for user, password in (("a", "y"), ("a", ""), ("b", "x"), ("d", "x"), ("", ""), ("a", "x\0")):
        assert not await looked_at(found, token(user, password)), (user, password)
    for odd in (b"", b"x", b"!!!!", b64encode(b"a"), b"\xff" * 9):
        assert not await looked_at(found, odd), odd


@pytest.mark.parametrize(
    ("spec", "right", "wrong"),
    [
        ("a:x", ("a", "x"), ("a", "y")),
        ("any", ("a", ""), None),
        ("ldap:host:dn:pw:tree", ("a", "x"), ("b", "x")),
    ],
)
async def test_other_forms_of_the_option(
    spec: str, right: tuple[str, str], wrong: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mitmproxy.addons import proxyauth

    monkeypatch.setattr(proxyauth, "Ldap", lambda _: lambda user, _password: user == "a")
    found = Passwords(spec)
    assert await looked_at(found, token(*right))
    if wrong is not None:
        assert not await looked_at(found, token(*wrong))


@each_row("spec", ["x", "a:b:c", "ldap:secret", "@/none/file", "@"])
def test_an_option_that_says_nobody(spec: str) -> None:
    with pytest.raises(UrlwardError) as raised:
        Passwords(spec)
    assert "secret" not in str(raised.value)


# -- in a thread, in turn


class Held:
    """A check that waits until it may end, and takes notes."""

    def __init__(self) -> None:
        self.users: list[bytes] = []
        self.may = threading.Semaphore(0)

    def __call__(self, user: bytes, password: bytes, _line: str) -> bool:
        self.users.append(user)
        assert self.may.acquire(timeout=60)
        if password == b"fails":
            raise OSError("secret")
        return password == b"right"


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    check = Held()
    monkeypatch.setattr(passwords, "_check_of", lambda _: check)
    yield check
    check.may.release(10_000)


async def test_one_at_a_time_and_by_turns_of_the_networks(held: Held) -> None:
    found, done = Passwords("any"), []
    for number in range(16):
        # One client may have all addresses of 64 bits.
        assert found.ask(token(f"guess{number}", "x"), f"2001:db8::{number}", lambda: done.append("guess"))
    assert found.ask(token("a", "right"), "2001:db8:0:1::1", lambda: done.append("a"))
    assert found.ask(token("a", "right"), "192.0.2.2", lambda: done.append("a again")), "looked at once"
    await until(lambda: held.users)
    held.may.release(3)
    await until(lambda: len(done) >= 4)
    assert held.users[:3] == [b"guess0", b"guess1", b"a"]
    assert found.known(token("a", "right")) is True
    assert found.known(token("guess0", "x")) is False
    held.may.release(16)
    await until(lambda: len(done) == 18)
    assert held.users.count(b"a") == 1


async def test_a_network_that_fills_the_room_keeps_nobody_out(
    held: Held, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "FULL_FOR", 0.01)
    found, troubles, out, done = Passwords("any"), [], [], []
    found.on_trouble = lambda kind, why: troubles.append((kind, bool(why)))
    for number in range(MOST_WAITING):
        assert found.ask(token(f"u{number}", "x"), "192.0.2.66", partial(out.append, number))
    assert not troubles
    assert not found.ask(token("more", "x"), "192.0.2.66", lambda: None)
    for number in range(100):
        assert found.ask(
            token(f"pupil{number}", "right"), f"198.51.100.{number}", partial(done.append, number)
        )
    await until(lambda: len(out) == 100)
    assert out == [MOST_WAITING - 1 - number for number in range(100)], "who came last"
    assert "connections wait for a look at a password" in caplog.text
    held.may.release(201)
    await until(lambda: len(done) == 100)
    await until(lambda: troubles == [("passwords", True), ("passwords", False)])


async def test_the_same_password_of_many_is_looked_at_once(held: Held) -> None:
    found, done = Passwords("any"), []
    for number in range(MOST_WAITING):
        assert found.ask(token("a", "right"), f"192.0.2.{number % 250}", partial(done.append, number))
    held.may.release(1)
    await until(lambda: len(done) == MOST_WAITING)
    assert held.users == [b"a"]


async def test_when_to_ask_again_is_told_where_it_is_known(held: Held) -> None:
    found = Passwords("any")
    assert found.ask(token("a", "x"), "192.0.2.1", lambda: None)
    assert found.wait is None, "nothing is known of how long one takes"
    held.may.release(1)
    await until(lambda: found.known(token("a", "x")) is not None)
    found._seconds = 2.0
    for number in range(10):
        assert found.ask(token(f"b{number}", "x"), "192.0.2.1", lambda: None)
    assert found.wait == 20
    found._begun -= 100
    assert found.wait is None, "one takes far longer than others did"


async def test_what_fails_lets_nobody_in(held: Held, caplog: pytest.LogCaptureFixture) -> None:
    held.may.release(2)
    found = Passwords("any")
    assert not await looked_at(found, token("a", "fails"))
    assert "could not be looked at: OSError" in caplog.text
    assert "secret" not in caplog.text
    assert await looked_at(found, token("a", "right"))


async def test_a_passing_shortage_of_threads(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "AGAIN", 0.01)
    held.may.release(2)
    found, done, starts, tried = Passwords("any"), [], threading.Thread.start, []

    def start(thread: threading.Thread) -> None:
        tried.append(thread)
        if len(tried) < 3:
            raise RuntimeError("can't start new thread")
        starts(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    for user in "ab":
        assert found.ask(token(user, "right"), "192.0.2.1", partial(done.append, user))
    await until(lambda: done == ["a", "b"])
    assert [found.known(token(user, "right")) for user in "ab"] == [True, True]
    assert len(tried) == 3


async def test_neither_is_a_password_kept_nor_asked_twice(held: Held) -> None:
    held.may.release(2)
    found = Passwords("any")
    for _ in range(3):
        assert await looked_at(found, token("a", "right"))
        assert not await looked_at(found, token("a", "wrong"))
    assert held.users == [b"a", b"a"]
    kept = repr([vars(found), list(found._wrong)]).encode() + found._right._memory[:]
    assert b"right" not in kept.replace(b"_right", b"")
    assert token("a", "right") not in kept
    assert found._right.digest(b"x") != Passwords("any")._right.digest(b"x")


# -- a file that changes


async def test_a_file_that_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(passwords, "LOOK", 0.01)
    monkeypatch.setattr(passwords, "AGAIN", 0.1)
    path = users_file(tmp_path, "a:" + hashed(b"x"))
    found = Passwords(f"@{path}")
    watching = asyncio.create_task(found.watch())

    async def said(text: str) -> None:
        await until(lambda: text in caplog.text, caplog.text)
        caplog.clear()

    assert await looked_at(found, token("a", "x"))
    assert not await looked_at(found, token("b", "y"))
    users_file(tmp_path, "b:" + hashed(b"y"))
    await said("1 read from")
    assert not await looked_at(found, token("a", "x"))
    assert await looked_at(found, token("b", "y"))
    for bad in ("c:secret", ""):
        users_file(tmp_path, bad)
        await said("those read before stay")
        assert await looked_at(found, token("b", "y"))
        assert not await looked_at(found, token("c", "secret"))
    path.unlink()
    await said("is gone; those read before stay")
    assert await looked_at(found, token("b", "y"))
    path.symlink_to("a" * 300)  # longer than a name may be
    await said("File name too long; those read before stay")
    assert await looked_at(found, token("b", "y"))
    users_file(tmp_path, "c:" + hashed(b"z"))
    await said("1 read from")
    assert await looked_at(found, token("c", "z"))
    assert not await looked_at(found, token("b", "y"))
    watching.cancel()


async def test_a_right_password_stays_so_while_other_lines_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(passwords, "LOOK", 0.01)
    mine = "a:" + hashed(b"x")
    found = Passwords(f"@{users_file(tmp_path, mine, 'b:' + hashed(b'y'))}")
    watching = asyncio.create_task(found.watch())
    assert await looked_at(found, token("a", "x"))
    assert await looked_at(found, token("b", "y"))
    assert not await looked_at(found, token("new", "z"))
    users_file(tmp_path, "new:" + hashed(b"z"), mine, "b:" + hashed(b"y"))
    await until(lambda: "3 read from" in caplog.text)
    assert found.known(token("a", "x")) is True
    assert found.known(token("b", "y")) is None, "another hash"
    assert found.known(token("new", "z")) is None, "wrong by a line that was not there"
    assert await looked_at(found, token("new", "z"))
    users_file(tmp_path, "b:" + hashed(b"y"))
    await until(lambda: "1 read from" in caplog.text)
    assert not await looked_at(found, token("a", "x"))
    users_file(tmp_path, "a:" + hashed(b"other"))
    await until(lambda: caplog.text.count("1 read from") == 2)
    assert not await looked_at(found, token("a", "x"))
    assert await looked_at(found, token("a", "other"))
    watching.cancel()


async def test_what_is_looked_at_while_the_file_changes_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(passwords, "LOOK", 0.01)
    found = Passwords(f"@{users_file(tmp_path, 'a:' + hashed(b'x'))}")
    watching = asyncio.create_task(found.watch())
    check: Any = found._check
    begun, may = threading.Event(), threading.Event()

    def slow(user: bytes, password: bytes, line: str) -> bool:
        right = bool(check(user, password, line))
        begun.set()
        assert may.wait(60)
        return right

    found._check = slow
    done = asyncio.Event()
    assert found.ask(token("a", "x"), "192.0.2.1", done.set)
    await until(begun.is_set)
    users_file(tmp_path, "b:" + hashed(b"x"))
    await until(lambda: "1 read from" in caplog.text)
    may.set()
    await asyncio.wait_for(done.wait(), 30)
    assert found.known(token("a", "x")) is None
    assert not await looked_at(found, token("a", "x"))
    watching.cancel()


# -- several workers


@pytest.fixture
def worker() -> Iterator[RunFolder]:
    run = RunFolder(SHARED)
    yield run
    run.close()


async def test_what_one_worker_has_looked_at_all_know(tmp_path: Path, worker: RunFolder) -> None:
    spec = f"@{users_file(tmp_path, 'a:' + hashed(b'x'))}"
    found, other = Passwords(spec, worker), Passwords(spec, worker)
    assert await looked_at(found, token("a", "x"))
    assert other.known(token("a", "x")) is True
    assert other.known(token("a", "y")) is None
    assert Passwords(spec, worker).known(token("a", "x")) is True, "a replacement"
    assert Passwords(spec).known(token("a", "x")) is None, "another filter"


async def test_what_was_right_by_another_option_is_not_known(worker: RunFolder) -> None:
    assert await looked_at(Passwords("a:old", worker), token("a", "old"))
    assert Passwords("a:old", worker).known(token("a", "old")) is True
    changed = Passwords("a:new", worker)
    assert not await looked_at(changed, token("a", "old"))
    assert await looked_at(changed, token("a", "new"))


@pytest.mark.parametrize("now", ["gone", "empty", "bad", "pipe", "folder"])
async def test_a_worker_starts_by_the_last_good_file(
    tmp_path: Path,
    worker: RunFolder,
    now: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(passwords, "LOOK", 0.01)
    path = users_file(tmp_path, "a:" + hashed(b"x"))
    Passwords(f"@{path}", worker)
    path.unlink()
    match now:
        case "empty":
            path.touch()
        case "bad":
            path.write_text("a:secret\n")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    with pytest.raises(UrlwardError):
        Passwords(f"@{path}")
    found, troubles = Passwords(f"@{path}", worker), []
    found.on_trouble = lambda kind, why: troubles.append((kind, bool(why)))
    assert await looked_at(found, token("a", "x"))
    watching = asyncio.create_task(found.watch())
    await until(lambda: troubles)
    if now == "folder":
        path.rmdir()
    users_file(tmp_path, "b:" + hashed(b"y"))
    await until(lambda: "1 read from" in caplog.text)
    assert set(troubles[:-1]) == {("users", True)}
    assert troubles[-1] == ("users", False)
    assert caplog.text.count("those read before stay") <= 2, "one, and that it is gone meanwhile"
    assert not await looked_at(found, token("a", "x"))
    watching.cancel()
