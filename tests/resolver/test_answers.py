from ipaddress import ip_address

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import pytest

from resolver.test_wire import add, answer, question
from rows import each_row
from urlward.dns.answers import absent, changed, denied, error, page, truncated
from urlward.dns.wire import FORMERR, SERVFAIL, read_question

KEEP = {"192.0.2.1", "192.0.2.2", "2001:db8::1"}


def wired(message: dns.message.Message) -> tuple[bytes, tuple[str, int, int]]:
    wire = message.to_wire()
    return wire, read_question(wire)


def full() -> dns.message.QueryMessage:
    """A query with all that one can have."""
    options = [dns.edns.GenericOption(dns.edns.OptionType(code), b"12345678" * 2) for code in (8, 10)]
    query = dns.message.make_query("Blocked.example", "A", use_edns=0, want_dnssec=True, payload=1400)
    query.use_edns(0, dns.flags.DO, 1400, options=options)
    query.flags |= dns.flags.CD
    return query


def check_is_answer(data: bytes, query: dns.message.Message) -> dns.message.Message:
    response = dns.message.from_wire(data)
    assert query.is_response(response)
    assert response.flags & dns.flags.RA
    assert response.flags & (dns.flags.RD | dns.flags.CD) == query.flags & (dns.flags.RD | dns.flags.CD)
    assert (response.edns >= 0) == (query.edns >= 0), "RFC 6891 section 7"
    assert response.ednsflags == query.ednsflags, "RFC 3225 section 3"
    assert cookies(response) == cookies(query), "c-ares and BIND drop what has none"
    return response


def cookies(message: dns.message.Message) -> list[bytes]:
    return [o.to_wire() or b"" for o in message.options if o.otype == dns.edns.OptionType.COOKIE]


@pytest.mark.parametrize("query", [full(), question("plain.example")])
def test_errors(query: dns.message.QueryMessage) -> None:
    wire, asked = wired(query)
    data = error(wire, SERVFAIL, asked)
    assert check_is_answer(data, query).rcode() == dns.rcode.SERVFAIL
    assert len(data) <= len(wire)
    bare = dns.message.from_wire(error(wire, FORMERR))
    assert (bare.id, bare.rcode(), bare.question) == (query.id, dns.rcode.FORMERR, [])


def test_a_name_that_is_not_to_be_there() -> None:
    query = full()
    response = check_is_answer(denied(*wired(query)), query)
    assert response.rcode() == dns.rcode.NXDOMAIN
    (soa,) = response.authority
    assert (soa.rdtype, soa.name, soa.ttl) == (dns.rdatatype.SOA, query.question[0].name, 30)
    assert soa[0].minimum == 30, "RFC 2308 section 5"
    option = response.options[0]
    assert isinstance(option, dns.edns.EDEOption)
    assert option.code == dns.edns.EDECode.BLOCKED
    query = question("blocked.example")
    assert check_is_answer(denied(*wired(query), 5), query).authority[0].ttl == 5


def test_what_is_absent() -> None:
    query = full()
    response = check_is_answer(absent(*wired(query)), query)
    assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])
    assert len(response.options) == 1, "the cookie: nothing is blocked"
    assert response.authority[0].rdtype == dns.rdatatype.SOA
    assert check_is_answer(absent(*wired(query), nxdomain=True), query).rcode() == dns.rcode.NXDOMAIN


def test_the_page() -> None:
    pages = [ip_address("192.0.2.80"), ip_address("192.0.2.81"), ip_address("2001:db8::80")]
    for kind, texts in (
        ("A", ["192.0.2.80", "192.0.2.81"]),
        ("AAAA", ["2001:db8::80"]),
        ("HTTPS", []),
        ("ANY", ["192.0.2.80", "192.0.2.81", "2001:db8::80"]),
    ):
        query = question("blocked.example", kind)
        response = check_is_answer(page(*wired(query), pages), query)
        assert sorted(r.address for rrset in response.answer for r in rrset) == sorted(texts)
        assert bool(response.authority) is not bool(texts)
        assert response.rcode() == dns.rcode.NOERROR
    query = question("blocked.example")
    assert not dns.message.from_wire(page(*wired(query), pages[2:])).answer, "none of that family"
    many = [ip_address(0xC0000200 + i) for i in range(200)]
    assert len(page(*wired(query), many)) < 512


@pytest.mark.parametrize("query", [full(), question("plain.example")])
def test_cut_to_the_question(query: dns.message.QueryMessage) -> None:
    wire, asked = wired(query)
    long = answer(query, *(f"plain.example 60 A 192.0.2.{i}" for i in range(90)))
    response = dns.message.from_wire(truncated(wire, long.to_wire(max_size=65535), asked))
    assert query.is_response(response)
    assert response.flags & dns.flags.TC
    assert not response.answer
    assert (response.edns, cookies(response)) == (query.edns, cookies(query))


def change(response: dns.message.Message, **values: object) -> dns.message.Message:
    settings = {
        "max_ttl": 300,
        "ports": (80, 443),
        "keep": KEEP,
        "size": 65535,
        "has_entry": lambda host: host.endswith("blocked.example"),
        **values,
    }
    data = changed(response.to_wire(), **settings)  # type: ignore[arg-type]
    return dns.message.from_wire(data)


def texts(message: dns.message.Message) -> list[str]:
    return [rdata.to_text() for rrset in message.answer for rdata in rrset]


def test_times_are_lowered() -> None:
    response = answer(
        question("blocked.example"),
        "blocked.example 86400 A 192.0.2.1",
        "blocked.example 86400 A 192.0.2.2",
        "blocked.example 301 TXT text",
    )
    add(response, "b.example 20 AAAA 2001:db8::1", section="additional")
    add(response, "example 86400 NS ns.example.", section="authority")
    response.flags |= dns.flags.AD
    got = change(response)
    assert [r.ttl for r in got.answer + got.additional] == [300, 300, 20]
    assert texts(got) == ["192.0.2.1", "192.0.2.2", '"text"']
    assert got.authority[0].ttl == 86400
    assert got.flags & dns.flags.AD, "nothing signed has changed"
    assert [r.ttl for r in change(response, max_ttl=0).answer] == [0, 0]


def told(message: dns.message.Message) -> list[str]:
    return [f"{rrset.name} {rrset.ttl} {rdata}" for rrset in message.answer for rdata in rrset]


def test_what_a_name_with_an_entry_leads_to_is_told_as_its_own() -> None:
    """Resolvers in clients ask for the end of a chain by its own name, which has no entry."""
    response = answer(
        question("plain.example"),
        "plain.example 900 CNAME Blocked.example.",
        "Blocked.example 800 CNAME c.example.",
        "c.example 700 CNAME d.example.",
        "d.example 20 A 192.0.2.1",
        "d.example 20 A 192.0.2.2",
    )
    add(response, "example 86400 NS ns.example.", section="authority")
    got = change(response)
    own = ["plain.example. 20 Blocked.example.", *(f"Blocked.example. 20 192.0.2.{i}" for i in (1, 2))]
    assert told(got) == own
    assert not got.authority
    # Asked for by that name it is seen to have an entry.
    unchanged = answer(
        question("plain.example"), "plain.example 60 CNAME blocked.example.", "blocked.example 9 A 192.0.2.1"
    )
    assert told(change(unchanged)) == ["plain.example. 9 blocked.example.", "blocked.example. 9 192.0.2.1"]


def test_an_alias_without_an_end() -> None:
    response = answer(question("blocked.example", "AAAA"), "blocked.example 900 CNAME c.example.")
    add(response, "example 900 SOA ns.example. a.example. 1 1 1 1 900", section="authority")
    response.set_rcode(dns.rcode.NXDOMAIN)
    got = change(response)
    assert (got.rcode(), got.answer) == (dns.rcode.NOERROR, [])
    assert [(rrset.name.to_text(), rrset.ttl) for rrset in got.authority] == [("blocked.example.", 30)]
    asked = answer(question("blocked.example", "CNAME"), "blocked.example 900 CNAME c.example.")
    assert texts(change(asked)) == ["c.example."]
    circle = answer(
        question("blocked.example"),
        "blocked.example 9 CNAME c.example.",
        "c.example 9 CNAME blocked.example.",
    )
    assert not change(circle).answer


@pytest.mark.parametrize("code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_an_alias_whose_end_is_not_to_be_had_now(code: dns.rcode.Rcode) -> None:
    """Nobody is to keep that there is none."""
    response = answer(question("blocked.example"), "blocked.example 900 CNAME c.example.")
    response.set_rcode(code)
    got = change(response)
    assert (got.rcode(), got.answer, got.authority) == (code, [], [])


def test_an_alias_of_a_whole_domain() -> None:
    names = ("blocked.example 900 DNAME c.example.", "a.blocked.example 900 CNAME a.c.example.")
    response = answer(question("a.blocked.example"), *names, "a.c.example 20 A 192.0.2.1")
    assert told(change(response)) == ["a.blocked.example. 20 192.0.2.1"]


@pytest.mark.parametrize("kind", ["CNAME", "DNAME"])
def test_a_signed_alias_stays(kind: str) -> None:
    """Who checks it would take the host for a forged one; it is kept no longer than an address."""
    response = answer(
        question("a.blocked.example"),
        "blocked.example 900 DNAME c.example.",
        "a.blocked.example 900 CNAME a.c.example.",
        "a.c.example 20 A 192.0.2.1",
    )
    owner = "a.blocked.example" if kind == "CNAME" else "blocked.example"
    add(response, f"{owner} 900 RRSIG {SIGNATURE.replace('HTTPS', kind)}")
    got = change(response)
    assert {rrset.ttl for rrset in got.answer} == {20}
    assert len(got.answer) == 4


SIGNATURE = "HTTPS 13 2 300 20370101000000 20260101000000 1 example. c2lnbmF0dXJl"


@each_row(
    ("record", "left"),
    [
        ('1 . alpn="h3,h2"', ['1 . alpn="h2"']),
        ('1 . alpn="h3,h3-29" port=443', ['1 . port="443"']),
        ('1 . alpn="h3" no-default-alpn', []),
        ('1 . alpn="h2,h3" no-default-alpn', ['1 . alpn="h2" no-default-alpn']),
        ("1 . ech=AAT+DQAA", ["1 ."]),
        ('1 . mandatory=ech alpn="h2" ech=AAT+DQAA', ['1 . alpn="h2"']),
        ('1 . mandatory=alpn,ech alpn="h2" ech=AAT+DQAA', ['1 . mandatory="alpn" alpn="h2"']),
        ("1 . port=8443", []),
        ("1 other.example. alpn=h2", []),
        ("0 other.example.", []),
        ("1 blocked.example. alpn=h3,h2", ['1 blocked.example. alpn="h2"']),
        ("1 . ipv4hint=192.0.2.1,192.0.2.2", ['1 . ipv4hint="192.0.2.1,192.0.2.2"']),
        ("1 . ipv4hint=192.0.2.1,192.0.2.9 ipv6hint=2001:db8::1", ['1 . ipv6hint="2001:db8::1"']),
    ],
)
def test_service_records(record: str, left: list[str]) -> None:
    response = answer(question("blocked.example", "HTTPS"), f"blocked.example 900 HTTPS {record}")
    add(response, f"blocked.example 900 RRSIG {SIGNATURE}", "blocked.example 60 TXT unchanged")
    response.flags |= dns.flags.AD
    got = change(response)
    assert [t for t in texts(got) if "unchanged" not in t and "c2ln" not in t] == left
    same = left == [response.answer[0][0].to_text()]
    assert bool(got.flags & dns.flags.AD) is same
    assert any("c2ln" in t for t in texts(got)) is same, "a signature over something else"


def test_service_records_beside_others() -> None:
    response = answer(question("blocked.example", "SRV"), "blocked.example 60 SRV 0 0 443 blocked.example.")
    add(response, 'blocked.example 60 SVCB 1 . alpn="h3,h2"', section="additional")
    assert change(response).additional[0][0].to_text() == '1 . alpn="h2"'


def test_addresses_that_are_not_steered_are_not_told() -> None:
    response = answer(
        question("blocked.example"), *(f"blocked.example 60 A 192.0.2.{i}" for i in range(1, 9))
    )
    got = change(response)
    assert texts(got) == ["192.0.2.1", "192.0.2.2"]


def test_what_does_not_fit() -> None:
    keep = {f"192.0.2.{i}" for i in range(60)}
    response = answer(question("blocked.example"), *(f"blocked.example 60 A {address}" for address in keep))
    got = change(response, keep=keep, size=512)
    assert got.flags & dns.flags.TC
    assert len(got.to_wire()) <= 512
    assert len(texts(change(response, keep=keep))) == 60


def test_a_signed_message_and_what_is_behind_one() -> None:
    response = answer(question("blocked.example"), "blocked.example 60 A 192.0.2.1")
    response.use_tsig(dns.tsigkeyring.from_text({"k.": "c2VjcmV0"}), dns.name.from_text("k."))
    data = response.to_wire()
    settings = {"max_ttl": 9, "ports": (443,), "keep": KEEP, "size": 65535, "has_entry": bool}
    got = dns.message.from_wire(changed(data + b"junk", **settings), keyring=False)  # type: ignore[arg-type]
    assert got.answer[0].ttl == 9
    assert not got.had_tsig
