"""The walk over a message agrees with dnspython, and no bytes break it."""

import ipaddress
from typing import Any

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rows import each_row
from urlward.dns import wire as wire_module
from urlward.dns.wire import (
    HEADER,
    MOST_LABELS,
    MOST_NAMES,
    Edns,
    Question,
    Scan,
    WireError,
    _name,
    read_cookie,
    read_edns,
    read_question,
    scan,
    services,
    weight,
)


def question(name: str = "www.plain.example", kind: str = "A") -> dns.message.QueryMessage:
    return dns.message.make_query(name, kind)


def answer(query: dns.message.Message, *records: str, section: str = "answer") -> dns.message.Message:
    """An answer with records such as ``name 60 A 192.0.2.1``."""
    response = dns.message.make_response(query)
    add(response, *records, section=section)
    return response


def add(message: dns.message.Message, *records: str, section: str = "answer") -> dns.message.Message:
    for record in records:
        name, ttl, kind, data = record.split(" ", 3)
        getattr(message, section).append(dns.rrset.from_text(f"{name}.", int(ttl), "IN", kind, data))
    return message


def scanned(message: dns.message.Message) -> Scan:
    data = message.to_wire()
    return scan(data, read_question(data))


def test_a_chain_of_names() -> None:
    read = scanned(
        answer(
            question("WWW.plain.Example"),
            "WWW.plain.Example 300 CNAME Edge.cdn.example.",
            "edge.cdn.example 60 CNAME pool.cdn.example.",
            "pool.cdn.example 20 A 192.0.2.1",
            "pool.cdn.example 20 AAAA 2001:db8::1",
        )
    )
    assert read == Scan(
        ("www.plain.example", "edge.cdn.example", "pool.cdn.example"),
        (),
        ("www.plain.example", "edge.cdn.example", "pool.cdn.example"),
        ipaddress.ip_address("192.0.2.1").packed,
        ipaddress.ip_address("2001:db8::1").packed,
        (),
        20,
        False,
        60,
    )


def test_names_that_lead_on() -> None:
    read = scanned(
        answer(
            question("a.old.example"),
            "old.example 60 DNAME new.example.",
            "a.old.example 60 CNAME a.new.example.",
            "a.new.example 30 A 192.0.2.1",
        )
    )
    assert read.hosts == ("a.old.example", "old.example", "new.example", "a.new.example")
    assert read.chain == ("a.old.example", "a.new.example")
    read = scanned(
        answer(
            question("plain.example", "HTTPS"),
            "plain.example 60 HTTPS 1 svc.example. ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1",
        )
    )
    assert read.service
    assert (read.hosts, read.targets) == (("plain.example",), ("svc.example",))
    assert (len(read.four), len(read.six), read.ttl) == (8, 16, 60)


def test_the_sections() -> None:
    response = answer(question("plain.example", "MX"), "plain.example 60 MX 10 mail.example.")
    add(response, "plain.example 60 NS ns.example.", "x.example 5 A 192.0.2.9", section="authority")
    add(response, "mail.example 40 A 192.0.2.3", section="additional")
    add(response, "plain.example 30 A 192.0.2.4", "mail.example 40 HTTPS 1 . alpn=h3", section="additional")
    add(response, "mail.example 40 CNAME x.example.", section="additional")
    read = scanned(response)
    assert (read.hosts, read.four, read.six) == (("plain.example",), b"\xc0\0\2\4", b"")
    assert read.beside == (("mail.example", b"\xc0\0\2\3"), ("mail.example", b""))
    assert (read.ttl, read.service) == (30, True)


def test_what_is_said_of_where_a_service_leads() -> None:
    """By its owner it counts for the owner alone, by the additional section for the target as well."""
    response = answer(question("plain.example", "HTTPS"), "plain.example 60 HTTPS 0 svc.example.")
    add(response, "svc.example 60 HTTPS 1 end.example. ipv4hint=192.0.2.1", section="additional")
    add(response, "end.example 60 A 192.0.2.2", "x.example 60 A 192.0.2.9", section="additional")
    read = scanned(response)
    assert (read.hosts, read.targets) == (("plain.example",), ("svc.example", "end.example"))
    assert read.four == b"\xc0\0\2\1\xc0\0\2\2"
    assert read.beside == (
        ("svc.example", b""),
        ("end.example", b"\xc0\0\2\2"),
        ("x.example", b"\xc0\0\2\x09"),
    )


def test_aliases_in_any_order() -> None:
    read = scanned(
        answer(
            question("a.example"),
            "b.example 60 CNAME c.example.",
            "a.example 60 CNAME b.example.",
            "x.example 60 CNAME y.example.",
        )
    )
    assert read.chain == ("a.example", "b.example", "c.example")
    assert "y.example" in read.hosts
    read = scanned(
        answer(question("a.example"), "a.example 60 CNAME b.example.", "b.example 60 CNAME a.example.")
    )
    assert read.chain == ("a.example", "b.example", "a.example")


def test_times_that_are_none() -> None:
    wire = answer(question("plain.example"), "plain.example 60 A 192.0.2.1").to_wire()
    wire = wire.replace(b"\0\0\0\x3c\0\x04", b"\xff\xff\xff\xff\0\x04")
    assert scan(wire, read_question(wire)).ttl == 0, "RFC 2181 section 8"
    assert scanned(answer(question("plain.example"))).ttl == 0


@each_row(
    ("labels", "host"),
    [
        ((b"blocked.example",), "_"),
        ((b"blocked%2e", b"Example"), "_.example"),
        (("blocked。example".encode(),), "_"),
        ((b"block\0ed", b"a.b", b"example"), "_._.example"),
        ((b"blocked", b"exam ple"), "blocked._"),
        ((), ""),
    ],
)
def test_names_that_are_no_hosts(labels: tuple[bytes, ...], host: str) -> None:
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    wire = bytes(4) + b"\0\1" + bytes(6) + name + b"\0\1\0\1"
    assert read_question(wire) == Question(host, 1, len(wire))


def test_odd_names_that_a_browser_asks_for() -> None:
    wire = dns.message.make_query("a!b_*.Blocked.example", "A").to_wire()
    assert read_question(wire).host == "a!b_*.blocked.example"


def test_edns() -> None:
    for payload, dnssec in ((1232, True), (4096, False), (100, False)):
        query = dns.message.make_query("plain.example", "A", use_edns=0, payload=payload, want_dnssec=dnssec)
        wire = query.to_wire()
        assert read_edns(wire, read_question(wire).end) == Edns(max(payload, 512), dnssec)
    wire = dns.message.make_query("plain.example", "A").to_wire()
    assert read_edns(wire, read_question(wire).end) is None
    assert read_edns(wire + b"\0\0\x29\4", read_question(wire).end) is None


@each_row(
    ("options", "cookie"),
    [
        ("000c0001ff 000a0010" + "61" * 16, b"a" * 16),
        ("000a0028" + "61" * 40, b"a" * 40),
        ("000a0008" + "61" * 8, b""),  # the client's part alone: it has none of a server's yet
        ("000a0029" + "61" * 41, b""),
        ("000a0011" + "61" * 16, b""),
        ("000a00", b""),
        ("", b""),
    ],
)
def test_cookies(options: str, cookie: bytes) -> None:
    said = bytes.fromhex(options)
    wire = question("plain.example").to_wire()
    end = read_question(wire).end
    assert read_cookie(wire + b"\0\0\x29\4\xd0\0\0\0\0" + len(said).to_bytes(2) + said, end) == cookie


@each_row(
    "name",
    [
        b"\xc0\x0c",  # to itself
        b"\1a\xc0\x0c",  # round and round
        b"\xc0\xff",  # forward
        b"\x40a",  # neither length nor pointer
        b"\x3fabc",  # longer than the message
        b"\1",
        b"",
        (b"\x3f" + b"a" * 63) * 4 + b"\0",  # more than 255 bytes
    ],
)
def test_broken_names(name: bytes) -> None:
    wire = bytes(4) + b"\0\1" + bytes(6) + name
    with pytest.raises(WireError):
        read_question(wire)
    with pytest.raises(WireError):
        read_question(wire + b"\0\1\0\1"[:3])


def test_the_longest_name() -> None:
    # 255 octets with the root's (RFC 1035 section 2.3.4).
    def asked(last: int) -> Question:
        labels = [b"a" * 63] * 3 + [b"b" * last]
        name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
        assert len(name) == 194 + last
        return read_question(bytes(4) + b"\0\1" + bytes(6) + name + b"\0\1\0\1")

    assert asked(61).end == 12 + 255 + 4
    with pytest.raises(WireError):
        asked(62)


def test_broken_answers() -> None:
    wire = answer(question("plain.example"), "plain.example 60 CNAME b.example.", "b.example 60 A 192.0.2.1")
    whole = wire.to_wire()
    end = read_question(whole).end
    for size in range(end, len(whole)):
        with pytest.raises(WireError):
            scan(whole[:size], read_question(whole))
    assert scan(whole + b"behind", read_question(whole)).four


def crowd(*sections: int, kind: str = "CNAME") -> bytes:
    """An answer with so many records in its answer and additional sections, each of a host of its own."""
    message = dns.message.make_response(question("plain.example"))
    for section, count in zip((message.answer, message.additional), sections, strict=True):
        data = "a.example." if kind == "CNAME" else "192.0.2.1"
        section.extend(dns.rrset.from_text(f"n{n}.example.", 60, "IN", kind, data) for n in range(count))
    return message.to_wire()


@each_row(("sections", "kind"), [((MOST_NAMES // 2, 0), "CNAME"), ((0, MOST_NAMES), "A"), ((200, 300), "A")])
def test_no_more_hosts_than_can_be_looked_up(sections: tuple[int, int], kind: str) -> None:
    wire = crowd(*sections, kind=kind)
    assert len(found(wire)[0]) >= sections[0]
    more = crowd(*(2 * count for count in sections), kind=kind)
    with pytest.raises(WireError):
        scan(more, read_question(more))


def test_no_more_labels_than_can_be_looked_up() -> None:
    message = dns.message.make_response(question("plain.example"))
    names = (f"n{n}.{'a.' * 100}example." for n in range(MOST_LABELS // 100 + 2))
    message.additional.extend(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1") for name in names)
    wire = message.to_wire()
    with pytest.raises(WireError):
        scan(wire, read_question(wire))


@each_row(
    ("records", "labels"),
    [
        (("plain.example. 60 A 192.0.2.1", "plain.example. 60 TXT a.b.c"), (2, 2)),
        (("plain.example. 60 CNAME a.b.plain.example.", "a.b.plain.example. 60 AAAA ::1"), (2, 4, 4)),
        (("plain.example. 60 SOA a.b. c.d.plain.example. 1 1 1 1 1", "b. 60 NS a.b."), (2, 2, 4, 1, 2)),
        (("plain.example. 60 MX 5 a.b.", "plain.example. 60 SRV 1 1 1 a."), (2, 2, 2, 1)),
        (("plain.example. 60 HTTPS 1 . alpn=h2", "plain.example. 60 HTTPS 0 a.b."), (2, 0, 2, 2)),
        (("plain.example. 60 KX 5 a.b.", "plain.example. 60 RP a.b. c."), (2, 2, 2, 2, 1)),
        (("plain.example. 60 SPF v=spf1", 'plain.example. 60 URI 1 1 "a"'), (2, 2)),
        (("plain.example. 60 NAPTR 1 1 a b c d.e.",), (2, 127)),
    ],
)
def test_weight(records: tuple[str, ...], labels: tuple[int, ...]) -> None:
    message = dns.message.make_response(question("plain.example"))
    for owner, ttl, kind, data in (record.split(" ", 3) for record in records):
        message.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", kind, data))
    wire = message.to_wire()
    assert weight(wire, read_question(wire)) == sum(count**2 for count in labels)


def test_weight_of_names_that_are_pieced_together() -> None:
    """Each is a label before the one of the record before it."""
    wire = bytearray(dns.message.make_response(question("plain.example")).to_wire())
    before, count = HEADER, 50
    for _ in range(count):
        at = len(wire)
        wire += b"\1a" + (0xC000 | before).to_bytes(2) + b"\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
        before = at
    wire[7] = count
    assert weight(bytes(wire), read_question(wire)) == sum((2 + n) ** 2 for n in range(1, count + 1))
    wire[-16:-14] = (0xC000 | before).to_bytes(2)
    wire[-14:-12] = wire[-16:-14]
    with pytest.raises(WireError):
        weight(bytes(wire), read_question(wire))


def test_weight_of_names_that_are_pointers_to_pointers() -> None:
    """Each walked to its end, a few hundred of them would take a tenth of a second."""
    wire = dns.message.make_response(question("plain.example")).to_wire()
    first = len(wire) + 12
    chain = b"".join((0xC000 | target).to_bytes(2) for target in (HEADER, *range(first, first + 400, 2)))
    wire = wire[:7] + b"\2" + wire[8:] + b"\xc0\x0c\0\x10\0\1\0\0\0\x3c" + len(chain).to_bytes(2) + chain

    def of_name(pointers: int) -> int:
        name = (0xC000 | first + 2 * pointers).to_bytes(2)
        data = wire + name + b"\0\x10\0\1\0\0\0\x3c\0\0"
        return weight(data, read_question(data))

    assert of_name(100) == 2**2 + 2**2
    with pytest.raises(WireError):
        of_name(150)


def test_contents_of_services() -> None:
    records = ('1 . alpn="h2" ipv4hint=192.0.2.1', "0 other.example.")
    message = answer(
        question("a.example", "HTTPS"), "a.example 60 A 192.0.2.1", f"a.example 60 HTTPS {records[0]}"
    )
    add(message, f"b.a.example 60 SVCB {records[1]}", "b.a.example 60 AAAA 2001:db8::1", section="additional")
    add(message, f"c.example 60 HTTPS {records[1]}", section="authority")
    data = message.to_wire()

    def content(kind: str, text: str) -> bytes:
        type_ = dns.rdatatype.from_text(kind)
        return type_.to_bytes(2) + dns.rdata.from_text("IN", type_, text).to_wire()

    assert services(data, read_question(data)) == {content("HTTPS", records[0]), content("SVCB", records[1])}


def test_many_addresses_of_one_host() -> None:
    wire = answer(question("a.example"), *(f"a.example 60 A 192.0.{n // 250}.{n % 250}" for n in range(3000)))
    assert len(scanned(wire).four) == 4 * 3000


def test_a_name_of_pointers_to_pointers() -> None:
    """A message has room for ten thousand of them, and for thousands of names that end so."""
    first = HEADER + 4
    targets = [HEADER, *range(first, first + 400, 2)]
    wire = bytes(HEADER) + b"\1a\0\0" + b"".join((0xC000 | target).to_bytes(2) for target in targets)
    assert _name(wire, first + 2 * 100)[0] == "a"
    with pytest.raises(WireError):
        _name(wire, first + 2 * 150)


@given(st.binary(min_size=2, max_size=40), st.lists(st.integers(0, 60), min_size=1, max_size=60))
def test_an_end_of_names_that_is_read_once_is_as_if_it_were_read_each_time(
    labels: bytes, steps: list[int]
) -> None:
    # Labels of one byte, and pointers back to anywhere, of which some lead to pointers or into labels.
    data = b"".join(b"\1" + bytes((each,)) for each in labels) + b"\0"
    starts = []
    for step in steps:
        starts.append(len(data))
        data += b"\1x" * (step % 3) + (0xC000 | max(len(data) - step - 2, 0)).to_bytes(2)
    tails: dict[int, wire_module._Tail] = {}
    for start in starts:
        try:
            read = _name(data, start)
        except (WireError, IndexError) as e:
            with pytest.raises(type(e)):
                _name(data, start, tails)
        else:
            assert _name(data, start, tails) == read


class _Counted(bytes):
    """A message that counts how often a byte of it is looked at."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += 1
        return super().__getitem__(at)


def test_a_long_name_that_many_end_in_is_read_once() -> None:
    """By dnstap whatever a server says is read, which may be dozens of the longest names."""
    longest = b"".join(b"\1" + bytes((97 + n % 26,)) for n in range(120)) + b"\0"
    asked = bytes(4) + b"\0\1" + bytes(2) + bytes(2) + (30).to_bytes(2) + longest + b"\0\1\0\1"
    record = b"\3%03x\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
    data = _Counted(asked + b"".join(record % n for n in range(30)))
    read = scan(data, read_question(data))
    assert len(read.beside) == 30
    assert len({len(host) for host, _ in read.beside}) == 1
    assert data.looks < 30 * 40


def test_names_of_records_that_lead_nowhere_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of them fit into a message, and each may have a name that takes long to read."""
    records = [f"n{n}.example 60 TXT x" for n in range(2000)]
    wire = answer(question("a.example"), *records, "a.example 60 A 192.0.2.1").to_wire()
    read: list[int] = []
    real = wire_module._name
    monkeypatch.setattr(
        wire_module, "_name", lambda data, at, *tails: (read.append(at), real(data, at, *tails))[1]
    )
    assert scan(wire, read_question(wire)).four == bytes((192, 0, 2, 1))
    assert len(read) < 5


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_any_bytes(head: bytes, rest: bytes) -> None:
    try:
        asked = read_question(head)
        if read_edns(head, asked.end):
            read_cookie(head, asked.end)
        scan(head + rest, asked)
    except WireError:
        return


LEADING = {dns.rdatatype.from_text(kind) for kind in ("A", "AAAA", "CNAME", "DNAME", "HTTPS", "SVCB")}
LABEL = st.sampled_from(["a", "B", "www", "xn--bcher-kva", "_8443", "x" * 63, "0"])
NAME = st.lists(LABEL, min_size=1, max_size=3).map(lambda labels: ".".join(labels) + ".")
TTL = st.integers(0, 2**31 - 1)
RECORD = st.one_of(
    st.tuples(NAME, TTL, st.just("A"), st.ip_addresses(v=4).map(str)),
    st.tuples(NAME, TTL, st.just("AAAA"), st.ip_addresses(v=6).map(str)),
    st.tuples(NAME, TTL, st.just("CNAME"), NAME),
    st.tuples(NAME, TTL, st.just("TXT"), st.just('"some text"')),
    st.tuples(NAME, TTL, st.just("NS"), NAME),
    st.tuples(NAME, TTL, st.just("HTTPS"), NAME.map(lambda n: f"1 {n} alpn=h2 ipv4hint=192.0.2.1")),
)
# Also the id is drawn: a damaged name may lead into it.
MESSAGE = st.tuples(
    *(st.lists(RECORD, max_size=4) for _ in range(3)), NAME, st.booleans(), st.integers(0, 0xFFFF)
)


def build(parts: tuple[Any, ...]) -> bytes:
    *sections, name, edns, number = parts
    query = dns.message.make_query(name, "A", use_edns=0 if edns else None, id=number)
    response = dns.message.make_response(query)
    for section, records in zip(
        (response.answer, response.authority, response.additional), sections, strict=True
    ):
        section.extend(dns.rrset.from_text(n, ttl, "IN", kind, data) for n, ttl, kind, data in records)
    return response.to_wire()


def expected(wire: bytes) -> tuple[set[str], set[str]]:
    """Hosts and addresses, by dnspython."""
    message = dns.message.from_wire(wire, one_rr_per_rrset=True)
    hosts = {host(message.question[0].name)}
    addresses: set[str] = set()
    for section in (message.answer, message.additional):
        for rrset in section:
            if rrset.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                addresses.add(str(ipaddress.ip_address(rrset[0].address)))
            if rrset.rdtype not in LEADING or (
                section is message.additional and host(rrset.name) not in hosts
            ):
                continue
            hosts.add(host(rrset.name))
            if rrset.rdtype in (dns.rdatatype.CNAME, dns.rdatatype.HTTPS):
                hosts.add(host(rrset[0].target))
            if rrset.rdtype == dns.rdatatype.HTTPS:
                addresses.add("192.0.2.1")
    return hosts, addresses


def host(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def found(wire: bytes) -> tuple[set[str], set[str]]:
    read = scan(wire, read_question(wire))
    four = {str(ipaddress.ip_address(read.four[i : i + 4])) for i in range(0, len(read.four), 4)}
    six = {str(ipaddress.ip_address(read.six[i : i + 16])) for i in range(0, len(read.six), 16)}
    beside = {str(ipaddress.ip_address(address)) for _, address in read.beside if address}
    return {*read.hosts, *read.targets}, four | six | beside


@given(MESSAGE)
def test_as_dnspython_reads_it(parts: tuple[Any, ...]) -> None:
    wire = build(parts)
    assert found(wire) == expected(wire)


def as_if_all_were_of_the_internet(message: dns.message.Message) -> None:
    """dnspython does not read what a record of another class holds; who does not look at classes does."""
    for section in (message.answer, message.additional):
        for rrset in section:
            if rrset.rdtype in LEADING and rrset.rdclass != dns.rdataclass.IN:
                wire = rrset[0].to_wire() or b""
                dns.rdata.from_wire(dns.rdataclass.IN, rrset.rdtype, wire, 0, len(wire))


@given(MESSAGE, st.data())
def test_damaged_messages(parts: tuple[Any, ...], data: st.DataObject) -> None:
    """What dnspython still reads we read too, and nothing else is raised."""
    wire = bytearray(build(parts))
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(HEADER, len(wire) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(wire)
    try:
        read = scan(damaged, read_question(damaged))
    except WireError:
        with pytest.raises((dns.exception.DNSException, ValueError)):
            as_if_all_were_of_the_internet(dns.message.from_wire(damaged))
        return
    assert all(isinstance(h, str) for h in read.hosts)
    assert len(read.four) % 4 == len(read.six) % 16 == 0
