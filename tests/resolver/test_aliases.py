"""What clients get by what a resolver asks in pieces."""

import pytest

from resolver.test_hook import answer
from urlward.dns.resolved import MARGIN, Aliases
from urlward.dns.wire import Scan, read_question, scan


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aliases(clock: Clock) -> Aliases:
    return Aliases(100, lambda host: host.startswith("listed"), clock)


def read(name: str, *lines: str, kind: str = "A") -> Scan:
    data = answer(name, *lines, kind=kind)
    return scan(data, read_question(data))


def take(
    aliases: Aliases, name: str, *lines: str, zone: str = "", kind: str = "A"
) -> list[tuple[set[str], int, int]]:
    """Hosts, addresses of both families and seconds of what clients may get."""
    return [
        (set(one.hosts), len(one.four) // 4 + len(one.six) // 16, one.ttl)
        for one in aliases.take(read(name, *lines, kind=kind), zone)
        if one.four or one.six
    ]


def test_a_name_alone(aliases: Aliases) -> None:
    assert take(aliases, "a.test", "a.test 60 A 192.0.2.1") == [({"a.test"}, 1, 60)]
    assert take(aliases, "a.test") == []


def test_the_alias_first_or_the_target_first(aliases: Aliases, clock: Clock) -> None:
    assert take(aliases, "a.test", "a.test 600 CNAME t.other.test.") == []
    assert take(aliases, "t.other.test", "t.other.test 60 A 192.0.2.1") == [
        ({"a.test", "t.other.test"}, 1, 60)
    ]
    clock.now += 20
    assert take(aliases, "b.test", "b.test 600 CNAME t.other.test.") == [({"b.test", "t.other.test"}, 1, 40)]
    assert take(aliases, "t.other.test", "t.other.test 60 AAAA 2001:db8::1", kind="AAAA") == [
        ({"a.test", "b.test", "t.other.test"}, 1, 60)
    ]
    # Of both families: each on its own, for as long as it is there.
    assert take(aliases, "c.test", "c.test 600 CNAME t.other.test.") == [
        ({"c.test", "t.other.test"}, 1, 40),
        ({"c.test", "t.other.test"}, 1, 60),
    ]


def test_an_alias_of_an_alias_in_any_order(aliases: Aliases) -> None:
    take(aliases, "m.test", "m.test 600 CNAME t.test.")
    take(aliases, "a.test", "a.test 600 CNAME m.test.")
    assert take(aliases, "t.test", "t.test 60 A 192.0.2.1") == [({"a.test", "m.test", "t.test"}, 1, 60)]
    take(aliases, "y.test", "y.test 600 CNAME x.test.")
    take(aliases, "x.test", "x.test 600 CNAME v.test.")
    assert take(aliases, "v.test", "v.test 60 A 192.0.2.1") == [({"v.test", "x.test", "y.test"}, 1, 60)]


def test_a_target_in_the_same_response(aliases: Aliases) -> None:
    lines = ("a.test 600 CNAME t.test.", "t.test 60 A 192.0.2.1")
    assert take(aliases, "a.test", *lines) == [({"a.test", "t.test"}, 1, 60)]
    # It is in the resolver's cache by its own name, too.
    assert take(aliases, "b.test", "b.test 600 CNAME t.test.") == [({"b.test", "t.test"}, 1, 60)]
    # And when it is asked for again, that counts for the alias, which the resolver still has.
    assert take(aliases, "t.test", "t.test 60 A 192.0.2.2") == [({"a.test", "b.test", "t.test"}, 1, 60)]


def test_what_clients_are_told_and_ask_for_by_its_own_name(aliases: Aliases, clock: Clock) -> None:
    alone = read("t.test", "t.test 60 A 192.0.2.1")
    assert aliases.told(alone) is alone
    whole = aliases.told(read("a.test", "a.test 600 CNAME t.test.", "t.test 60 A 192.0.2.1"))
    assert whole.hosts == ("a.test", "t.test")
    assert aliases.told(alone) == alone._replace(hosts=("t.test", "a.test"))
    clock.now += 600 + MARGIN + 1
    assert aliases.told(alone) == alone


def test_services_of_another_name(aliases: Aliases) -> None:
    """Browsers ask for its addresses."""
    record = "a.test 600 HTTPS 1 svc.other.test. alpn=h2"
    aliases.told(read("a.test", record, kind="HTTPS"))
    alone = read("svc.other.test", "svc.other.test 60 A 192.0.2.1")
    assert aliases.told(alone).hosts == ("svc.other.test", "a.test")
    record = "b.test 600 HTTPS 0 alias.other.test."
    assert take(aliases, "b.test", record, zone="test", kind="HTTPS") == []
    assert take(aliases, "alias.other.test", "alias.other.test 60 A 192.0.2.1", zone="other.test") == [
        ({"alias.other.test", "b.test"}, 1, 60)
    ]


def test_what_is_over_counts_no_more(aliases: Aliases, clock: Clock) -> None:
    take(aliases, "a.test", "a.test 50 CNAME t.test.")
    clock.now += 50 + MARGIN - 1  # clients keep names for longer than they may
    assert take(aliases, "t.test", "t.test 60 A 192.0.2.1") == [({"a.test", "t.test"}, 1, 60)]
    clock.now += 2
    assert take(aliases, "t.test", "t.test 60 A 192.0.2.1") == [({"t.test"}, 1, 60)]
    clock.now += 60
    assert take(aliases, "b.test", "b.test 600 CNAME t.test.") == []


def test_an_alias_that_lasts_longer_than_the_address(aliases: Aliases, clock: Clock) -> None:
    """A resolver that has it asks for the address alone."""
    lines = ("a.test 86400 CNAME t.test.", "t.test 60 A 192.0.2.1")
    take(aliases, "a.test", *lines, zone="test")
    aliases.told(read("b.test", "b.test 86400 CNAME t.test.", lines[1]))
    clock.now += 80_000
    assert take(aliases, "t.test", lines[1], zone="test") == [({"a.test", "b.test", "t.test"}, 1, 60)]


def test_a_name_that_is_no_alias_any_more(aliases: Aliases, clock: Clock) -> None:
    take(aliases, "a.test", "a.test 60 CNAME t.test.")
    assert take(aliases, "a.test", "a.test 60 A 192.0.2.9") == [({"a.test"}, 1, 60)]
    clock.now += 60 + MARGIN + 1
    assert take(aliases, "t.test", "t.test 60 A 192.0.2.1") == [({"t.test"}, 1, 60)]


def test_the_root_leads_nowhere(aliases: Aliases) -> None:
    aliases.told(read("a.test", "a.test 600 HTTPS 1 . alpn=h2", kind="HTTPS"))
    assert "" not in aliases._sources


def test_circles_end(aliases: Aliases) -> None:
    take(aliases, "a.test", "a.test 600 CNAME b.test.")
    take(aliases, "b.test", "b.test 600 CNAME a.test.")
    assert take(aliases, "a.test", "a.test 600 CNAME a.test.") == []
    assert take(aliases, "b.test", "b.test 60 A 192.0.2.1") == [({"a.test", "b.test"}, 1, 60)]


def test_a_server_has_no_say_on_names_outside_its_zone(aliases: Aliases) -> None:
    lines = ("a.evil.test 600 CNAME listed.test.", "listed.test 60 A 192.0.2.1")
    assert take(aliases, "a.evil.test", *lines, zone="evil.test") == []
    assert take(
        aliases, "b.evil.test", "b.evil.test 9 A 192.0.2.2", "listed.test 60 A 192.0.2.1", zone="evil.test"
    ) == [({"b.evil.test"}, 2, 9)]
    # Where the alias leads does, once the one that has it says so.
    assert take(aliases, "listed.test", "listed.test 60 A 192.0.2.3", zone="test") == [
        ({"a.evil.test", "listed.test"}, 1, 60)
    ]


def test_a_server_answers_no_question_that_it_cannot_have_been_asked(aliases: Aliases) -> None:
    """PowerDNS tells of a response before it has compared its question with what it has asked."""
    forged = "listed.test", "listed.test 60 A 192.0.2.1"
    assert take(aliases, *forged, zone="evil.test") == []
    assert take(aliases, "notevil.test", "notevil.test 60 A 192.0.2.1", zone="evil.test") == []
    record = "listed.test 600 HTTPS 1 a.evil.test. alpn=h2"
    assert take(aliases, "listed.test", record, zone="evil.test", kind="HTTPS") == []
    assert take(aliases, "listed.test", "listed.test 600 CNAME b.evil.test.", zone="evil.test") == []
    for name in ("a.evil.test", "b.evil.test"):
        assert take(aliases, name, f"{name} 60 A 192.0.2.1", zone="evil.test") == [({name}, 1, 60)]
    assert take(aliases, *forged, zone="test") == [({"listed.test"}, 1, 60)]


def test_a_server_has_no_say_on_where_a_name_outside_its_zone_leads(aliases: Aliases) -> None:
    """Not even where it says that it leads back: its addresses would count as the other name's."""
    take(aliases, "listed.test", "listed.test 60 A 192.0.2.3", zone="test")
    lines = (
        "evil.test 600 CNAME listed.test.",
        "listed.test 600 CNAME b.evil.test.",
        "b.evil.test 60 A 192.0.2.9",
    )
    assert take(aliases, "evil.test", *lines, zone="evil.test") == [({"evil.test", "listed.test"}, 1, 60)]
    assert take(aliases, "b.evil.test", "b.evil.test 60 A 192.0.2.9", zone="evil.test") == [
        ({"b.evil.test"}, 1, 60)
    ]
    (told,) = aliases.take(read("c.test", "c.test 600 CNAME listed.test."), "c.test")
    assert told.four == bytes((192, 0, 2, 3))


def test_however_many_lead_to_one_those_that_are_listed_stay(aliases: Aliases) -> None:
    take(aliases, "listed.test", "listed.test 600 CNAME cdn.test.")
    for n in range(1_000):
        take(aliases, f"n{n}.test", f"n{n}.test 600 CNAME cdn.test.")
    ((hosts, _, _),) = take(aliases, "cdn.test", "cdn.test 60 A 192.0.2.1")
    assert {"listed.test", "n999.test", "cdn.test"} <= hosts
    assert len(hosts) <= 18


def test_hundreds_of_listed_names_that_share_a_host_are_not_all_looked_up_each_time(clock: Clock) -> None:
    asked: list[str] = []
    aliases = Aliases(100, lambda host: (asked.append(host), host.startswith("listed"))[1], clock)
    for n in range(200):
        take(aliases, f"listed{n}.test", f"listed{n}.test 600 CNAME cdn.test.")
    asked.clear()
    for n in range(100):
        take(aliases, f"n{n}.test", f"n{n}.test 600 CNAME cdn.test.")
    assert len(asked) <= 100 * 32
    ((hosts, _, _),) = take(aliases, "cdn.test", "cdn.test 60 A 192.0.2.1")
    assert {f"listed{n}.test" for n in range(200)} <= hosts
    assert len(hosts) <= 257


def test_listed_ones_are_bounded_too(aliases: Aliases) -> None:
    for n in range(300):
        take(aliases, f"listed{n}.test", f"listed{n}.test 600 CNAME cdn.test.")
    ((hosts, _, _),) = take(aliases, "cdn.test", "cdn.test 60 A 192.0.2.1")
    assert len(hosts) == 257
