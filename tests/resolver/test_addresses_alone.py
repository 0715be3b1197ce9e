"""Answers of addresses alone, which are changed as bytes: to the same as dnspython has them."""

from contextlib import suppress
from typing import Any
from unittest.mock import patch

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rrset
from hypothesis import example, given
from hypothesis import strategies as st

from urlward.dns import answers, hook
from urlward.dns.wire import HEADER, LONGEST, WireError, addresses_alone, read_question, scan

TTL = st.integers(0, 2**31 - 1)
LABEL = st.text(st.sampled_from("aB-_;(\\."), min_size=1, max_size=5)


@st.composite
def messages(draw: st.DrawFn) -> dns.message.Message:
    labels = [label.encode() for label in draw(st.lists(LABEL, min_size=1, max_size=3))]
    name = dns.name.Name((*labels, b"example", b"")).to_text()
    kind = draw(st.sampled_from(("A", "AAAA")))
    edns: dict[str, Any] = draw(
        st.sampled_from(({}, {"use_edns": 0}, {"use_edns": 0, "want_dnssec": True, "payload": 1400}))
    )
    message = dns.message.make_response(dns.message.make_query(name, kind, **edns), recursion_available=True)
    message.flags |= draw(st.sampled_from((0, dns.flags.AD, dns.flags.AA)))
    some = draw(st.lists(st.integers(1, 9), min_size=1, unique=True) | st.just(list(range(1, 60))))
    addresses = [f"192.0.2.{n}" if kind == "A" else f"2001:db8::{n:x}" for n in some]
    message.answer.append(dns.rrset.from_text(name, draw(TTL), "IN", kind, *addresses))
    for section, text in draw(
        st.lists(
            st.sampled_from(
                (
                    ("authority", "example. 60 NS ns.example."),
                    ("additional", "ns.example. 60 A 192.0.2.1"),
                    ("answer", "other.example. 60 A 192.0.2.1"),
                    ("answer", f"{name} 60 HTTPS 1 . alpn=h2"),
                    ("answer", f"{name} 60 RRSIG A 8 2 60 20300101000000 20200101000000 1 example. AAAA"),
                )
            ),
            max_size=1,
        )
    ):
        owner, ttl, type_, content = text.split(" ", 3)
        getattr(message, section).append(dns.rrset.from_text(owner, int(ttl), "IN", type_, content))
    return message


def by_dnspython(module: Any, call: Any) -> Any:
    with patch.object(module, "addresses_alone", lambda *_: None):
        return call()


@given(
    messages(),
    st.sampled_from((512, 1232, LONGEST)),
    st.integers(0, 90_000),
    st.sets(st.integers(1, 9)) | st.just(set(range(1, 60))),
)
def test_changed_as_dnspython_would(
    message: dns.message.Message, size: int, max_ttl: int, keep: set[int]
) -> None:
    wire = message.to_wire(max_size=LONGEST)
    kept = {f"192.0.2.{n}" for n in keep} | {f"2001:db8::{n:x}" for n in keep}

    def change() -> bytes:
        return answers.changed(
            wire, max_ttl=max_ttl, ports=(443,), keep=kept, size=size, has_entry=lambda _: True
        )

    got, wanted = change(), by_dnspython(answers, change)
    assert dns.message.from_wire(got).to_text() == dns.message.from_wire(wanted).to_text()
    assert len(got) <= max(size, len(wanted))


@given(messages())
def test_told_to_hooks_as_dnspython_would(message: dns.message.Message) -> None:
    wire = message.to_wire(max_size=LONGEST)
    assert hook.to_text(wire) == by_dnspython(hook, lambda: hook.to_text(wire))
    got, wanted = hook.uncompressed(wire), by_dnspython(hook, lambda: hook.uncompressed(wire))
    assert got == wanted


PLAIN = dns.message.make_response(dns.message.make_query("a.example", "A", use_edns=0))
PLAIN.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.STALE_ANSWER, "old")])
PLAIN.answer.append(dns.rrset.from_text("a.example.", 60, "IN", "A", "192.0.2.1", "192.0.2.2"))
WIRE = PLAIN.to_wire()


def test_most_are_such() -> None:
    records = addresses_alone(WIRE, read_question(WIRE))
    assert records is not None
    assert len(records) == 2
    assert addresses_alone(WIRE + b"x", read_question(WIRE)) is None
    for at, value in (
        (records[0] + 6, 0x80),  # a time that counts as none
        (records[0] + 5, 3),  # another class
        (records[-1] + 16 + 5, 1),  # the rest of a code
        (5, 2),  # another question
    ):
        assert WIRE[at] != value
        other = WIRE[:at] + bytes([value]) + WIRE[at + 1 :]
        assert addresses_alone(other, read_question(other)) is None


@given(
    st.lists(st.tuples(st.integers(2, len(WIRE) - 1), st.integers(0, 255)), max_size=3),
    st.integers(HEADER, len(WIRE)) | st.just(len(WIRE)),
)
@example([], len(WIRE))
@example([(2, 5 << 3)], len(WIRE))
def test_of_any_bytes_none_that_dnspython_does_not_read(changes: list[tuple[int, int]], size: int) -> None:
    data = bytearray(WIRE)
    for at, value in changes:
        data[at] = value
    wire = bytes(data[:size])
    with suppress(WireError):
        question = read_question(wire)
        scan(wire, question)
        records = addresses_alone(wire, question)
        if records is not None:
            # What is wrong with an option of EDNS alone goes to the client as it came.
            end = records[-1] + 12 + wire[records[-1] + 11]
            try:
                dns.message.from_wire(wire[:10] + b"\0\0" + wire[12:end])
            except dns.exception.DNSException as e:
                raise AssertionError(f"{type(e).__name__}: {wire.hex()}") from e
