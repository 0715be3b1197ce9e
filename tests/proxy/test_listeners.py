"""Listening sockets: bound once, held, and found again by whoever inherits them."""

import fcntl
import os
import resource
import socket
import threading

import pytest

from conftest import free_port
from urlward.engine.errors import UrlwardError
from urlward.plan import Address
from urlward.proxy import listeners
from urlward.proxy.listeners import Listeners, Sockets, given, open_sockets


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "FREE_WITHIN", 0.2)


def of(made: Listeners, worker: int) -> Sockets:
    return made.of(worker, list(dict.fromkeys(address for address, _ in made._sockets)))


def at(sockets: list[socket.socket]) -> set[tuple[str, int]]:
    return {one.getsockname()[:2] for one in sockets}


def test_each_worker_has_sockets_of_its_own_at_one_address() -> None:
    address, made = Address("127.0.0.1", free_port(), "tcp"), Listeners()
    made.open([address], 3)
    inodes = {os.fstat(of(made, number)[0][1][0].fileno()).st_ino for number in range(3)}
    assert len(inodes) == 3
    assert all(at(of(made, number)[0][1]) == {address[:2]} for number in range(3))
    made.close()
    assert of(made, 0) == []


def test_limited_address_space_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [300 << 20, resource.RLIM_INFINITY]  # not this process's own, who may run under one
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits.pop(), resource.RLIM_INFINITY))
    assert listeners.address_space_warning() == ""
    assert listeners.address_space_warning().startswith("address space is limited to 300 MiB (ulimit -v,")


def test_without_a_host_both_families_are_listened_to_at_one_port() -> None:
    made = Listeners()
    made.open([Address("", 0, "tcp")], 2)
    one, other = (at(of(made, number)[0][1]) for number in range(2))
    assert one == other
    assert {host for host, _ in one} == {"0.0.0.0", "::"}
    assert len({port for _, port in one}) == 1


def test_nobody_is_refused_or_accepted_before_a_worker_listens() -> None:
    address, made = Address("127.0.0.1", free_port(), "tcp"), Listeners()
    made.open([address], 2)
    with socket.socket() as client:
        assert client.connect_ex(address[:2]) != 0
    of(made, 1)[0][1][0].listen()
    with socket.socket() as client:
        assert client.connect_ex(address[:2]) == 0


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_taken_address_is_refused_although_it_could_be_shared(kind: str, shared: bool) -> None:
    address = Address("127.0.0.1", free_port(), kind)
    (other,) = open_sockets(address, reuse_port=shared)
    if kind == "tcp":
        other.listen()
    with pytest.raises(
        UrlwardError, match=f"cannot listen on 127.0.0.1:{address.port}: address already in use"
    ):
        Listeners().open([address], 2)


def test_an_address_that_becomes_free_in_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a filter that was killed are still ending."""
    monkeypatch.setattr(listeners, "FREE_WITHIN", 30)
    address = Address("127.0.0.1", free_port(), "tcp")
    (other,) = open_sockets(address)
    other.listen()
    timer = threading.Timer(0.3, other.close)
    timer.start()
    made = Listeners()
    made.open([address], 1)
    assert at(of(made, 0)[0][1]) == {address[:2]}
    timer.join()


@pytest.mark.parametrize(
    ("host", "said"),
    [("192.0.2.1", "not an address of this machine"), ("no.such.invalid", "name or service not known")],
)
def test_what_cannot_be_listened_on_is_said(host: str, said: str) -> None:
    made = Listeners()
    fine = Address("127.0.0.1", free_port(), "tcp")
    with pytest.raises(UrlwardError, match=said):
        made.open([fine, Address(host, free_port(), "tcp")], 2)
    assert of(made, 0) == [], "nothing has changed"


def test_a_change_keeps_what_stays() -> None:
    one, two = (Address("127.0.0.1", free_port(), "tcp") for _ in range(2))
    made = Listeners()
    made.open([one], 2)
    kept = of(made, 0)[0][1]
    made.open([one, two], 3)
    assert of(made, 0)[0][1] is kept
    assert [address for address, _ in of(made, 2)] == [one, two]
    assert made.numbers == [0, 1, 2]
    made.keep([two])
    assert [[address for address, _ in of(made, number)] for number in range(3)] == [[two]] * 3
    assert kept[0].fileno() == -1


def test_an_address_of_one_worker_can_be_that_of_several_later() -> None:
    address, made = Address("127.0.0.1", free_port(), "tcp"), Listeners()
    made.open([address], 1)
    of(made, 0)[0][1][0].listen()
    made.open([address], 2)
    assert at(of(made, 1)[0][1]) == {address[:2]}


# -- as a service manager passes them


def passed(*names: tuple[str, int], kind: int = socket.SOCK_STREAM, only: bool = True) -> list[socket.socket]:
    found = []
    for name in names:
        one = socket.socket(socket.AF_INET6 if ":" in name[0] else socket.AF_INET, kind)
        if one.family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(name)
        if kind == socket.SOCK_STREAM:
            one.listen()
        found.append(one)
    return found


def inode(one: socket.socket) -> int:
    return os.fstat(one.fileno()).st_ino


def test_a_passed_socket_is_shared_by_all_workers() -> None:
    where = ("127.0.0.1", free_port())
    (one,) = passed(where)
    made = Listeners([one])
    made.open([Address(*where, "tcp")], 3)
    made.check_given()
    assert {inode(of(made, number)[0][1][0]) for number in range(3)} == {inode(one)}


def test_where_there_are_enough_each_worker_has_its_own() -> None:
    where = ("127.0.0.1", free_port())
    both = passed(where, where)
    made = Listeners(both)
    made.open([Address(*where, "tcp")], 3)
    assert [inode(of(made, number)[0][1][0]) for number in range(3)] == [
        inode(both[0]), inode(both[1]), inode(both[0]),
    ]  # fmt: skip


def test_what_is_not_passed_is_opened() -> None:
    where = ("127.0.0.1", free_port())
    made = Listeners(passed(where))
    made.open([Address(*where, "tcp"), Address(*where, "udp")], 2)
    made.check_given()
    udp = [inode(of(made, number)[1][1][0]) for number in range(2)]
    assert udp[0] != udp[1]


def test_a_passed_socket_that_no_mode_listens_on_is_refused() -> None:
    where, other = (("127.0.0.1", free_port()) for _ in range(2))
    made = Listeners(passed(where, other))
    made.open([Address(*where, "tcp")], 1)
    with pytest.raises(UrlwardError, match=f"127.0.0.1:{other[1]} was passed, and no mode listens there"):
        made.check_given()


def test_a_passed_socket_that_is_in_the_way_is_named() -> None:
    """As where a configuration has come from another machine, and the socket unit has not."""
    port = free_port()
    made = Listeners(passed(("127.0.0.1", port)))
    with pytest.raises(UrlwardError, match=f"in use; .* 127.0.0.1:{port} was passed, and no mode"):
        made.open([Address("", port, "tcp")], 1)


def test_a_passed_socket_of_both_families_is_refused() -> None:
    """Clients with IPv4 addresses would come with addresses that no rule of the policy names."""
    port = free_port()
    made = Listeners(passed(("::", port), only=False))
    with pytest.raises(UrlwardError, match="in use"):
        made.open([Address("", port, "tcp")], 1)
    with pytest.raises(UrlwardError, match="BindIPv6Only=ipv6-only"):
        made.check_given()


def test_sockets_meant_for_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert given() == []
    assert "LISTEN_FDS" not in os.environ


def test_more_sockets_than_are_open_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull, "rb") as file:  # noqa: PTH123 - for its descriptor alone
        # One that nothing else in this process gets, once it is closed.
        free = fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 900)
    monkeypatch.setattr(listeners, "_FIRST_FD", free)
    for said in ("socket operation on non-socket", "bad file descriptor"):
        monkeypatch.setenv("LISTEN_FDS", "1")
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        with pytest.raises(
            UrlwardError, match=f"^socket activation: .* descriptor {free} is no socket: {said}"
        ):
            given()
        if said.startswith("socket"):
            os.close(free)
