"""DNS responses that the filter writes or changes: for names with an entry, and for queries in error.

What is said often (an error) is put together from bytes; dnspython writes what is said seldom.
"""

from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address

import dns.edns
import dns.flags
import dns.ipv4
import dns.ipv6
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.svcbbase import ALPNParam, MandatoryParam, ParamKey, SVCBBase

from urlward.dns.wire import (
    AAAA,
    CNAME,
    DNAME,
    HEADER,
    HTTPS,
    NXDOMAIN,
    PAYLOAD,
    SVCB,
    A,
    Question,
    addresses_alone,
    contents,
    host_of,
    read_cookie,
    read_edns,
    read_question,
    shortened,
)

ANY, RRSIG = 255, 46

REFUSED_TTL = 30
"""Seconds that an answer of ours may be kept, so that a name no longer listed is there again soon."""

_MOST_PAGES = 8
_NOBODY = dns.name.from_text("nobody.invalid.")
_ADDRESSES = (A, AAAA)
_SERVICES = (SVCB, HTTPS)
_COPIED_FLAGS = dns.flags.RD | dns.flags.CD


def text_of(address: bytes) -> str:
    """An address as dnspython writes it; empty for empty."""
    if not address:
        return ""
    return dns.ipv4.inet_ntoa(address) if len(address) == 4 else dns.ipv6.inet_ntoa(address)


def error(query: bytes, code: int, question: Question | None = None) -> bytes:
    """An error response; no longer than the query.

    Args:
        query: 12 bytes at least.
        code: response code.
        question: of the query, where it has one.
    """
    # The opcode and RD stay; CD too (RFC 4035 section 3.2.2).
    flags = bytes([0x80 | query[2] & 0x79, 0x80 | query[3] & 0x10 | code])
    if question is None:
        return query[:2] + flags + bytes(8)
    return query[:2] + flags + _alone(query, question)


def _alone(query: bytes, question: Question) -> bytes:
    """What follows the flags of a response with nothing but the question, and EDNS where the query has it."""
    edns = read_edns(query, question.end)
    opt = b""
    if edns:
        cookie = read_cookie(query, question.end)
        options = b"\0\x0a" + len(cookie).to_bytes(2) + cookie if cookie else b""
        opt = b"\0\0\x29" + PAYLOAD.to_bytes(2) + bytes([0, 0, edns.dnssec << 7, 0])
        opt += len(options).to_bytes(2) + options
    return b"\0\1\0\0\0\0" + bytes([0, bool(opt)]) + query[HEADER : question.end] + opt


def truncated(query: bytes, answer: bytes, question: Question) -> bytes:
    """A response cut to its question, so that the client retries over TCP."""
    return query[:2] + bytes([answer[2] | 2]) + answer[3:4] + _alone(query, question)


def denied(query: bytes, question: Question, ttl: int = REFUSED_TTL) -> bytes:
    """NXDOMAIN (RFC 2308), with a list as the reason where the client takes that (RFC 8914)."""
    return _finish(_skeleton(query, question, NXDOMAIN, blocked=True), ttl)


def absent(query: bytes, question: Question, ttl: int = REFUSED_TTL, *, nxdomain: bool = False) -> bytes:
    """NODATA, or NXDOMAIN: the name has no records of this type, or does not exist."""
    return _finish(_skeleton(query, question, NXDOMAIN if nxdomain else 0), ttl)


def page(
    query: bytes,
    question: Question,
    addresses: Sequence[IPv4Address | IPv6Address],
    ttl: int = REFUSED_TTL,
    *,
    blocked: bool = True,
) -> bytes:
    """The block page's addresses of the family in question, or others where it is not blocked; none where it
    has none."""
    response = _skeleton(query, question, 0, blocked=blocked)
    name = response.question[0].name
    for kind, version in ((A, 4), (AAAA, 6)):
        texts = [str(address) for address in addresses if address.version == version]
        if texts and question.type in (kind, ANY):
            rrset = dns.rrset.from_text(name, ttl, "IN", dns.rdatatype.RdataType(kind), *texts[:_MOST_PAGES])
            response.answer.append(rrset)
    return _finish(response, ttl)


def _skeleton(query: bytes, question: Question, code: int, *, blocked: bool = False) -> dns.message.Message:
    head = dns.message.from_wire(query[:4] + b"\0\1" + bytes(6) + query[HEADER : question.end])
    response = dns.message.QueryMessage(id=head.id)
    response.flags = dns.flags.QR | dns.flags.RA | head.flags & _COPIED_FLAGS
    response.question = head.question
    edns = read_edns(query, question.end)
    if edns:
        options: list[dns.edns.Option] = [dns.edns.EDEOption(dns.edns.EDECode.BLOCKED)] if blocked else []
        # As its server's: c-ares and BIND drop an answer without, where answers that we passed on had one.
        if cookie := read_cookie(query, question.end):
            options.append(dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie))
        response.use_edns(0, dns.flags.DO if edns.dnssec else 0, PAYLOAD, options=options)
    response.set_rcode(dns.rcode.Rcode(code))
    return response


def _finish(response: dns.message.Message, ttl: int) -> bytes:
    if not response.answer:
        _say_absent(response, ttl)
    return response.to_wire()


def _say_absent(response: dns.message.Message, ttl: int) -> None:
    """Have a response without records say how long that may be kept (RFC 2308 section 3)."""
    name = response.question[0].name
    soa = SOA(dns.rdataclass.IN, dns.rdatatype.SOA, name, _NOBODY, 1, 3600, 600, 86_400, ttl)
    response.authority.append(dns.rrset.from_rdata(name, ttl, soa))


def changed(
    answer: bytes,
    *,
    max_ttl: int,
    ports: Collection[int],
    keep: Collection[str],
    size: int,
    has_entry: Callable[[str], bool],
) -> bytes:
    """The response for a name that is steered.

    What it is an alias for is told as its own, unless that is signed. Times become short, and the same for an
    alias and an address. HTTPS and SVCB records lose what leads past the filter (RFC 9460): Encrypted Client
    Hello, HTTP/3, other ports, other names. Signatures over what has changed go too.

    Args:
        answer: as the resolver gave it.
        max_ttl: seconds.
        ports: that are filtered.
        keep: the addresses that may be told.
        size: most bytes that the client takes; where it does not do, the answer is cut short and says so.
        has_entry: whether a host has an entry.

    Raises:
        dns.exception.DNSException: not a message that dnspython reads.
    """
    question = read_question(answer)
    records = addresses_alone(answer, question)
    if (
        records
        and len(answer) <= size
        and all(text_of(address) in keep for address in contents(answer, records))
    ):
        return shortened(answer, records, max_ttl)
    message = dns.message.from_wire(answer, keyring=False, ignore_trailing=True)
    message.tsig = None  # it would not hold for what is changed
    max_ttl = min((max_ttl, *(rrset.ttl for rrset in message.answer)))
    _tell_as_its_own(message, has_entry, min(max_ttl, REFUSED_TTL))
    for section in (message.answer, message.additional):
        unsigned = set()
        for rrset in section:
            rrset.ttl = min(rrset.ttl, max_ttl)
            if rrset.rdtype in _ADDRESSES:
                kept = [rdata for rdata in rrset if rdata.address in keep]
            elif rrset.rdtype in _SERVICES:
                kept = [rdata for old in rrset if (rdata := _filtered(old, rrset.name, ports, keep))]
            else:
                continue
            if kept != list(rrset):
                unsigned.add((rrset.name, rrset.rdtype))
                rrset.clear()
                for rdata in kept:
                    rrset.add(rdata)
        if unsigned:
            message.flags &= ~dns.flags.AD
            section[:] = [
                rrset
                for rrset in section
                if len(rrset) and not (rrset.rdtype == RRSIG and (rrset.name, rrset.covers) in unsigned)
            ]
    return message.to_wire(max_size=size, prefer_truncation=True, want_shuffle=False)


def _tell_as_its_own(message: dns.message.Message, has_entry: Callable[[str], bool], ttl: int) -> None:
    """Give a name with an entry the records of what it is an alias for.

    Resolvers in clients (unbound, systemd-resolved, mDNSResponder) ask for that by its own name, which has no
    entry, at once or when the address has expired and the alias has not.
    """
    if message.question[0].rdtype == CNAME:
        return
    aliases = {rrset.name: rrset[0].target for rrset in message.answer if rrset.rdtype == CNAME}
    name = message.question[0].name
    while name in aliases and not has_entry(host_of(name.to_digestable())):
        name = aliases.pop(name)
    names = [name]
    while names[-1] in aliases:
        names.append(aliases.pop(names[-1]))
    if len(names) == 1:
        return
    answer: list[dns.rrset.RRset] = []
    own: dict[dns.rdatatype.RdataType, dns.rrset.RRset] = {}
    for rrset in message.answer:
        kind = rrset.covers if rrset.rdtype == RRSIG else rrset.rdtype
        leads = kind == DNAME and any(each.is_subdomain(rrset.name) for each in names[:-1])
        if rrset.rdtype == RRSIG and (leads or (kind == CNAME and rrset.name in names)):
            return  # who checks signatures would take the name for one that is forged
        if leads or (rrset.name in names and (kind == CNAME or rrset.rdtype == RRSIG)):
            continue
        if rrset.name not in names:
            answer.append(rrset)
            continue
        if kind not in own:
            own[kind] = dns.rrset.RRset(name, rrset.rdclass, kind)
            answer.append(own[kind])
        for rdata in rrset:
            own[kind].add(rdata, rrset.ttl)
    message.answer[:] = answer
    message.flags &= ~dns.flags.AD
    # It was of the other's zone.
    message.authority.clear()
    if message.rcode() == NXDOMAIN:  # which the other is, and not this one
        message.set_rcode(dns.rcode.NOERROR)
    if not answer and message.rcode() == dns.rcode.NOERROR:
        _say_absent(message, ttl)


def _filtered(
    rdata: SVCBBase, owner: dns.name.Name, ports: Collection[int], keep: Collection[str]
) -> SVCBBase | None:
    """A service record without what bypasses the filter; None where nothing useful would be left."""
    if rdata.target not in (dns.name.root, owner):
        return None  # the client asks for the owner's addresses then (RFC 9460 section 3)
    params = dict(rdata.params)
    port = params.get(ParamKey.PORT)
    if port is not None and port.port not in ports:
        return None
    params.pop(ParamKey.ECH, None)
    alpn = params.get(ParamKey.ALPN)
    if alpn is not None:
        ids = [name for name in alpn.ids if not name.startswith(b"h3")]
        if ids:
            params[ParamKey.ALPN] = ALPNParam(ids)
        elif ParamKey.NO_DEFAULT_ALPN in params:
            return None
        else:
            del params[ParamKey.ALPN]
    for key in (ParamKey.IPV4HINT, ParamKey.IPV6HINT):
        hint = params.get(key)
        if hint is not None and not all(address in keep for address in hint.addresses):
            del params[key]
    mandatory = params.pop(ParamKey.MANDATORY, None)
    if mandatory is not None:
        left = [key for key in mandatory.keys if key in params]
        if left:
            params[ParamKey.MANDATORY] = MandatoryParam(left)
    return type(rdata)(rdata.rdclass, rdata.rdtype, rdata.priority, rdata.target, params)
