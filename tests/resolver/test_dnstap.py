"""The server for dnstap, told directly."""

import asyncio
import logging
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from conftest import until
from gateway.dns_support import keep
from resolver.dnstap_support import (
    ACCEPT,
    FINISH,
    READY_FRAME,
    STOP,
    Sender,
    Told,
    control,
    data_frame,
    tapped,
)
from resolver.hook_support import LIST
from resolver.test_hook import answer
from urlward.dns.dnstap import CONTENT_TYPE, FORWARDER_RESPONSE, RESOLVER_RESPONSE, DnstapServer
from urlward.dns.policy import Quota
from urlward.dns.resolved import MARGIN, MOST_TTL
from urlward.engine.steps import exhaust
from urlward.gateway.table import NftError

BLOCKED = answer("blocked.example", "blocked.example 3600 A 203.0.113.1")
PLAIN = answer("plain.example", "plain.example 60 A 192.0.2.1")


@pytest.fixture
async def urlward(tmp_path: Path) -> AsyncIterator[Told]:
    one = Told(tmp_path, LIST)
    await one.start()
    yield one
    await one.stop()


async def test_answers_that_have_left(urlward: Told) -> None:
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(PLAIN), tapped(BLOCKED), tapped(answer("blocked.example")))
    await sender.end()
    # The client keeps it for as long as it was told, and nothing can be said against that.
    assert urlward.kernel.followed == [(["203.0.113.1"], 3600 + MARGIN)]
    assert urlward.counts == {"passed": 2, "steered": 1}
    assert urlward.kernel.steered == []


@pytest.mark.parametrize(
    "record",
    [
        "blocked.example 60 A 203.0.113.1",
        "blocked.example 60 AAAA 2001:db8:1::1",
        'blocked.example 60 HTTPS 1 . ipv4hint="203.0.113.1"',
        "www.paged.example 60 A 203.0.113.1",
        "wild.co.uk 60 A 203.0.113.1",
    ],
)
async def test_kinds_of_records(urlward: Told, record: str) -> None:
    name, _, kind, data = record.split(" ", 3)
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(answer(name, record, kind=kind)))
    await sender.end()
    assert urlward.kernel.followed == [([data.split('"')[-2] if '"' in data else data], 60 + MARGIN)]


async def test_times_are_believed_up_to_a_week(urlward: Told) -> None:
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(answer("blocked.example", "blocked.example 2000000 A 203.0.113.1")))
    await sender.end()
    assert urlward.kernel.followed[0][1] == MOST_TTL + MARGIN


async def test_more_addresses_than_an_answer_of_ours_would_have(urlward: Told) -> None:
    """The client has all of them, so that none may be left out."""
    lines = [f"blocked.example 60 A 203.0.113.{n}" for n in range(200)]
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(answer("blocked.example", *lines)))
    await sender.end()
    assert len(urlward.kernel.followed[0][0]) == 200


async def test_a_site_has_no_more_addresses_for_telling_long_times(
    urlward: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each counts for as long as it is steered: else a listed site's DNS could fill the kernel's set."""
    monkeypatch.setattr("urlward.dns.policy.MOST", 2)
    now = 1000.0
    urlward.policy._quota = Quota(lambda: now)
    sender = await Sender.to(urlward.path)
    for n, life in enumerate((86_400, 60, 86_400)):
        sender.tell(tapped(answer("blocked.example", f"blocked.example {life} A 203.0.113.{n}")))
    await sender.end()
    assert [told for told, _ in urlward.kernel.followed] == [["203.0.113.0"], ["203.0.113.1"]]
    now += 60 + MARGIN
    sender = await Sender.to(urlward.path)
    for n in (3, 4):
        sender.tell(tapped(answer("blocked.example", f"blocked.example 86400 A 203.0.113.{n}")))
    await sender.end()
    assert [told for told, _ in urlward.kernel.followed[2:]] == [["203.0.113.3"]]


async def test_monitoring_ends_nothing(urlward: Told) -> None:
    urlward.policy.monitor = True
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(BLOCKED))
    await sender.end()
    assert urlward.kernel.addresses == {"203.0.113.1"}
    assert urlward.kernel.followed == []


async def test_names_are_remembered_for_a_list_to_come(urlward: Told, tmp_path: Path) -> None:
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(PLAIN))
    await sender.end()
    urlward.keeper = keep(tmp_path, LIST + "plain.example\n")
    newly = exhaust(urlward.resolved.changes(urlward.judge.find))
    assert [one.addresses[0][0] for one in newly] == ["192.0.2.1"]


async def test_an_alias_that_a_resolver_follows_in_two_steps(urlward: Told) -> None:
    sender = await Sender.to(urlward.path)
    sender.tell(
        tapped(
            answer("paged.example", "paged.example 600 CNAME cdn.other.test."), RESOLVER_RESPONSE, "example."
        ),
        tapped(
            answer("cdn.other.test", "cdn.other.test 60 A 203.0.113.5"), FORWARDER_RESPONSE, "other.test."
        ),
    )
    await sender.end()
    assert urlward.kernel.followed == [(["203.0.113.5"], 60 + MARGIN)]


async def test_a_server_says_nothing_of_others_names(urlward: Told) -> None:
    """A resolver does not believe it, so that no client is led there; who runs a name could otherwise have
    connections to any address end."""
    forged = answer("evil.test", "evil.test 60 CNAME blocked.example.", "blocked.example 60 A 198.51.100.1")
    beside = dns.message.from_wire(answer("evil.test", "evil.test 60 A 198.51.100.2"))
    beside.additional.append(dns.rrset.from_text("blocked.example.", 60, "IN", "A", "198.51.100.3"))
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(forged, RESOLVER_RESPONSE, "evil.test."), tapped(beside.to_wire(), RESOLVER_RESPONSE))
    await sender.end()
    assert urlward.kernel.followed == []


async def test_services_say_nothing_of_the_addresses_of_others_names(urlward: Told) -> None:
    """A resolver passes on what anybody's HTTPS record says of the addresses of another's name."""
    record = "evil.test 60 HTTPS 1 blocked.example. ipv4hint=198.51.100.1"
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(answer("evil.test", record, kind="HTTPS")))
    await sender.end()
    assert urlward.kernel.followed == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"short",
        BLOCKED[:-1],
        BLOCKED[:2] + b"\0\0" + BLOCKED[4:],
        BLOCKED[:4] + b"\0\2" + BLOCKED[6:],
        BLOCKED[:4] + b"\0\0" + BLOCKED[6:],
    ],
    ids=["empty", "short", "cut", "a query", "two questions", "no question"],
)
async def test_an_answer_that_nobody_can_read_is_said_and_passed_over(
    urlward: Told, message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(message), tapped(BLOCKED))
    await sender.end()
    assert len(urlward.kernel.followed) == 1
    assert urlward.counts == {"unread": 1, "steered": 1}
    assert [one.levelname for one in caplog.records if one.levelno >= logging.WARNING] == ["ERROR"]
    assert "not understood" in caplog.text


@pytest.mark.parametrize("nonsense", [data_frame(b"\xff"), b"GET / HTTP/1.1\r\n\r\n", control(99)])
async def test_nonsense_ends_that_connection_with_one_line(
    urlward: Told, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    other = await Sender.to(urlward.path)
    sender = await Sender.to(urlward.path)
    sender.writer.write(nonsense)
    assert await sender.ended() == b""
    lines = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].endswith("what the resolver had yet to tell is lost")
    other.tell(tapped(BLOCKED))
    await other.end()
    assert len(urlward.kernel.followed) == 1


async def test_what_came_before_nonsense_counts(urlward: Told) -> None:
    sender = await Sender.to(urlward.path)
    sender.writer.write(data_frame(tapped(BLOCKED)) + data_frame(b"\xff"))
    await sender.ended()
    assert urlward.kernel.told == {"203.0.113.1"}


async def test_a_kernel_that_refuses(urlward: Told, caplog: pytest.LogCaptureFixture) -> None:
    urlward.kernel.fault = NftError("no room")
    sender = await Sender.to(urlward.path)
    sender.tell(tapped(BLOCKED))
    await until(lambda: urlward.kernel.refused, "the kernel")
    urlward.kernel.fault = None
    sender.tell(tapped(BLOCKED))
    await sender.end()
    assert len(urlward.kernel.followed) == 1
    assert "no room" in caplog.text


async def test_a_resolver_that_goes_and_comes_back(urlward: Told) -> None:
    for _ in 1, 2, 3:
        sender = await Sender.to(urlward.path)
        sender.tell(tapped(BLOCKED))
        await until(lambda: urlward.counts["steered"], "the answer")
        urlward.counts.clear()
        sender.writer.write(data_frame(tapped(PLAIN))[:-5])
        sender.writer.transport.abort()
    await until(lambda: not urlward.taps.connections, "the end")


async def test_several_resolvers_at_once(urlward: Told) -> None:
    senders = [await Sender.to(urlward.path) for _ in range(8)]
    for n, sender in enumerate(senders):
        name = f"n{n}.blocked.example"
        for _ in range(50):
            sender.tell(tapped(PLAIN))
        sender.tell(tapped(answer(name, f"{name} 60 A 203.0.113.{n}")))
    for sender in senders:
        await sender.end()
    assert {a for addresses, _ in urlward.kernel.followed for a in addresses} == {
        f"203.0.113.{n}" for n in range(8)
    }
    assert urlward.counts == {"passed": 400, "steered": 8}


async def test_what_is_too_much_waits_in_the_resolver(urlward: Told) -> None:
    """Memory stays bounded: the socket is not read on while the kernel takes its time."""
    urlward.kernel.gate = asyncio.Event()
    sender = await Sender.to(urlward.path)
    frame = data_frame(tapped(BLOCKED))
    many = 200_000
    sender.writer.write(frame * many)
    await until(lambda: urlward.kernel.waiting, "the first")
    waiting = -1
    while waiting != urlward.kernel.waiting:
        waiting = urlward.kernel.waiting
        await asyncio.sleep(0.05)
    assert waiting * len(frame) <= 1 << 16
    assert sender.writer.transport.get_write_buffer_size() > many * len(frame) // 2
    urlward.kernel.gate.set()
    sender.writer.transport.abort()


async def test_others_have_their_turn_meanwhile(urlward: Told) -> None:
    """However much a resolver tells, the loop comes back between two pieces."""
    sender = await Sender.to(urlward.path)
    sender.writer.write(data_frame(tapped(PLAIN)) * 5_000)
    await until(lambda: urlward.counts["passed"], "the first")
    most = 0
    while (before := urlward.counts["passed"]) < 5_000:
        await asyncio.sleep(0)
        most = max(most, urlward.counts["passed"] - before)
    assert most < 100
    await sender.end()


async def test_it_ends_with_its_worker(urlward: Told) -> None:
    sender = await Sender.to(urlward.path)
    await urlward.taps.end()
    assert await sender.ended() == b""
    assert isinstance(urlward.taps, DnstapServer)


@pytest.fixture
async def another(urlward: Told, tmp_path: Path) -> AsyncIterator[DnstapServer]:
    """The worker that is to take this one's place, on the same socket; it does not accept yet."""
    made = DnstapServer(urlward.answers, urlward.aliases, urlward.faults, urlward.count)
    yield made
    await made.end()


async def test_connections_go_on_with_the_worker_that_takes_this_ones_place(
    urlward: Told, another: DnstapServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    listening = urlward.listening.dup()
    senders = [await Sender.to(urlward.path) for _ in range(3)]
    reader, writer = await asyncio.open_unix_connection(urlward.path)  # which has not agreed yet
    frames = [data_frame(tapped(answer(f"n{n}.blocked.example", f"n{n}.blocked.example 60 A 203.0.113.{n}")))
              for n in range(3)]  # fmt: skip
    # Of the first nothing, of the second a part of a frame, and of the third more than is read at once.
    senders[1].writer.write(frames[1][:50])
    senders[2].writer.write(data_frame(tapped(PLAIN)) * 2_000 + frames[2][:5])
    await until(lambda: urlward.taps.connections == 4 and urlward.counts["passed"], "all")
    await urlward.taps.end()
    assert urlward.taps.connections == 0
    await another.serve(listening)
    await until(lambda: another.connections == 4, "all, by the other")
    for sender, rest in zip(senders, (frames[0], frames[1][50:], frames[2][5:]), strict=True):
        sender.writer.write(rest)
        await sender.end()
    assert urlward.counts == {"passed": 2_000, "steered": 3}
    assert urlward.kernel.told == {f"203.0.113.{n}" for n in range(3)}
    writer.write(READY_FRAME)
    assert await reader.readexactly(12 + 8 + len(CONTENT_TYPE)) == control(ACCEPT, CONTENT_TYPE)
    writer.close()
    said = [one.getMessage() for one in caplog.records]
    assert len([one for one in said if "tells of its answers" in one]) == 3, "which are the same still"
    assert [one.levelno for one in caplog.records if one.levelno > logging.INFO] == []


async def test_what_is_being_steered_is_steered_before_a_connection_is_handed_over(
    urlward: Told, another: DnstapServer
) -> None:
    listening = urlward.listening.dup()
    sender = await Sender.to(urlward.path)
    urlward.kernel.gate = asyncio.Event()
    sender.tell(tapped(BLOCKED))
    await until(lambda: urlward.kernel.waiting, "the kernel")
    ending = asyncio.ensure_future(urlward.taps.end())
    await another.serve(listening)
    await asyncio.sleep(0.05)
    assert not ending.done()
    assert another.connections == 0
    urlward.kernel.gate.set()
    await ending
    sender.tell(tapped(PLAIN))
    await sender.end()
    assert urlward.counts == {"steered": 1, "passed": 1}


@pytest.mark.parametrize("whose", ["another's", "no socket", "cut short", "in a stream"])
async def test_nobody_else_hands_anything_over(
    urlward: Told, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A resolver may connect, and could have this process read, or hold open, what it gives."""
    sender = await Sender.to(urlward.path)
    ours, theirs = socket.socketpair()
    path = str(urlward.path)
    message = b"\0\0\0\2\1\1"
    if whose == "another's":
        urlward.path.chmod(0o666)
        for folder in (urlward.path.parent, *urlward.path.parent.parents):
            if folder.is_relative_to(tempfile.gettempdir()):
                folder.chmod(folder.stat().st_mode | 0o011)
        script = (
            "import socket, os, sys; s = socket.socket(socket.AF_UNIX); os.setuid(65534);"
            "s.connect(sys.argv[1]); socket.send_fds(s, [bytes.fromhex(sys.argv[2])], [int(sys.argv[3])]);"
            "s.recv(1)"
        )
        command = (sys.executable, "-c", script, path, message.hex(), str(theirs.fileno()))
        process = await asyncio.create_subprocess_exec(*command, pass_fds=[theirs.fileno()])
        assert await process.wait() == 0
    elif whose == "in a stream":
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(path)
            s.sendall(READY_FRAME)
            await until(lambda: urlward.taps.connections == 2)
            await asyncio.sleep(0.05)
            socket.send_fds(s, [message], [theirs.fileno()])
    else:
        with socket.socket(socket.AF_UNIX) as s, Path("/etc/hostname").open() as file:
            s.connect(path)
            part = message[:3] if whose == "cut short" else message
            given = file if whose == "no socket" else theirs
            socket.send_fds(s, [part], [given.fileno()])
    theirs.close()
    # What was given is let go, and nobody else is worse off.
    ours.setblocking(False)
    if whose != "no socket":
        assert await asyncio.get_running_loop().sock_recv(ours, 1) == b""
    ours.close()

    def lines() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]

    await until(lambda: lines() and urlward.taps.connections == 1, "its end")
    assert len(lines()) == 1
    sender.tell(tapped(BLOCKED))
    await sender.end()
    assert len(urlward.kernel.followed) == 1


async def test_a_goodbye_is_answered(urlward: Told) -> None:
    sender = await Sender.to(urlward.path)
    sender.writer.write(control(STOP))
    assert await sender.ended() == control(FINISH)
