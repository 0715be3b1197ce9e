"""What a hook holds of the lists, as the hook for Unbound reads it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.dns_support import keep
from resolver.hook_support import loaded
from rows import each_row
from urlward.dns import hook_filter
from urlward.dns.hooks import FOLDER
from urlward.engine.steps import exhaust

LIST = """\
blocked.example
0.0.0.0 alone.example
http://paged.example/listed.html
http://deep.example/a/* subdomains
http://params.example/a?id=5
wild.*
@@allowed.example
bücher.example
"""
OWN = ("resolver.arpa", "canary.invalid")


HOOK = loaded(FOLDER / "unbound.py")


def filter_of(folder: Path, text: str, own: Iterable[str] = OWN) -> Any:
    keeper = keep(folder, text)
    hook_filter.write(folder, exhaust(hook_filter.content(keeper.matcher, own, 0.02, closed=True)))
    key = bytes.fromhex((folder / "key").read_text())
    return HOOK.NameFilter(HOOK.unsealed((folder / "filter").read_bytes(), key))


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return filter_of(tmp_path_factory.mktemp("filter"), LIST)


@each_row(
    "host",
    [
        "blocked.example", "www.a.blocked.example", "alone.example", "paged.example", "www.paged.example",
        "deep.example", "a.b.deep.example", "params.example", "wild.example", "www.wild.co.uk",
        "allowed.example", "xn--bcher-kva.example", "_443._https.paged.example",
        "resolver.arpa", "_dns.resolver.arpa", "canary.invalid",
    ],
)  # fmt: skip
def test_what_may_be_listed(held: Any, host: str) -> None:
    assert held.may_list(host.encode())


@each_row("host", ["192.0.2.7", "a.0x7f", "a b.example", "b\xfccher.example", "a%2e.example"])
def test_what_is_no_plain_host_may_mean_another(held: Any, host: str) -> None:
    assert held.may_list(host.encode("latin-1"))


def test_what_may_not(held: Any) -> None:
    assert not held.may_list(b"")
    others = [f"host-{n}.site-{n % 97}.test" for n in range(2_000)]
    assert sum(held.may_list(host.encode()) for host in others) < 100
    assert (held.settle, held.closed) == (0.02, True)


def test_it_misses_nothing_that_the_lists_name(tmp_path: Path) -> None:
    hosts = [f"{'a' * (n % 9)}h{n}.{'sub.' * (n % 3)}site-{n}.x-test" for n in range(3_000)]
    held = filter_of(tmp_path, "\n".join(hosts) + "\n", ())
    assert all(held.may_list(each.encode()) for host in hosts for each in (host, f"www.{host}"))


def test_a_suffix_that_a_sieve_takes_for_listed_is_left_out(tmp_path: Path) -> None:
    # Of so many names and suffixes some agree by chance.
    held = filter_of(tmp_path, "".join(f"site-{n}.test\n" for n in range(3_000)))
    assert held._suffixes
    for suffix in held._suffixes:
        assert not held.may_list(suffix) or b"." in suffix
    listed = next(suffix.decode() for suffix in held._suffixes if b"." in suffix)
    assert filter_of(tmp_path, f"http://{listed}/a.html\n").may_list(f"www.{listed}".encode())


def test_the_file(tmp_path: Path) -> None:
    filter_of(tmp_path, LIST)
    path, key = tmp_path / "filter", (tmp_path / "key").read_bytes()
    first = path.read_bytes()
    assert [one.stat().st_mode & 0o777 for one in (path, tmp_path / "key")] == [0o640, 0o640]
    assert b"example" not in first
    filter_of(tmp_path, LIST)
    assert (tmp_path / "key").read_bytes() == key, "made once"
    assert path.read_bytes()[32:] != first[32:], "sealed anew each time"
    (tmp_path / "key").write_text("nonsense")
    filter_of(tmp_path, LIST)
    assert (tmp_path / "key").read_bytes() != key


@each_row(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:20],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: b"X" + data[1:],
        lambda data: data[:8] + b"\2" + data[9:],
        lambda data: data[:25] + bytes([data[25] ^ 1]) + data[26:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    ],
    ids=["empty", "a part", "cut", "longer", "magic", "version", "nonce", "content"],
)
def test_one_that_is_damaged(tmp_path: Path, damage: Any) -> None:
    filter_of(tmp_path, LIST)
    key = bytes.fromhex((tmp_path / "key").read_text())
    data = (tmp_path / "filter").read_bytes()
    HOOK.unsealed(data, key)
    with pytest.raises(ValueError, match=r"."):
        HOOK.unsealed(damage(data), key)
    with pytest.raises(ValueError, match="another key"):
        HOOK.unsealed(data, bytes(32))


def test_any_name_where_names_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urlward.engine.sieve._MOST", 0)
    assert filter_of(tmp_path, LIST).may_list(b"host.test")
