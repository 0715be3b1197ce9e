from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import pytest

from rows import each_row
from urlward.lab.agent import ask_dns


def answer(monkeypatch: pytest.MonkeyPatch, *records: str, rcode: str = "NOERROR") -> list[Any]:
    asked: list[Any] = []

    def ask(query: Any, server: str, timeout: float) -> Any:
        asked.append((query.question[0].to_text(), server))
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.from_text(rcode))
        for record in records:
            name, ttl, kind, data = record.split(" ", 3)
            reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
        return reply

    monkeypatch.setattr(dns.query, "udp", ask)
    return asked


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, "a.example. 60 CNAME b.example.", "b.example. 30 A 192.0.2.1")
    found = ask_dns("A.exAMPle", "A", "192.0.2.53")
    assert (found["rcode"], found["addresses"], found["ttl"]) == ("NOERROR", ["192.0.2.1"], 30)
    assert asked == [("A.exAMPle. IN A", "192.0.2.53")], "letters stay as they are"


def test_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    ech = "AEX+DQBBUgAgACBVMkmxYbXIkMIuVoDWCsXxcFcIDnzC9kVpAPzbNhCsOQAEAAEAAQASY292ZXIuYmxvY2tlZC50ZXN0AAA="
    answer(monkeypatch, f'a.example. 60 HTTPS 1 . alpn="h3,h2" ech="{ech}" port=443')
    assert ask_dns("a.example", "HTTPS", "192.0.2.53")["parameters"] == ["alpn", "ech", "h2", "h3", "port"]


def test_no_such_name(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, rcode="NXDOMAIN")
    found = ask_dns("a.example", "A", "192.0.2.53")
    assert (found["rcode"], found["records"], found["ttl"]) == ("NXDOMAIN", 0, None)


@each_row(
    ("error", "told"),
    [
        (dns.exception.Timeout(), "timeout"),
        (ConnectionRefusedError(), "refused"),
        (EOFError(), "closed"),
        (dns.exception.FormError("a.example"), "unreadable answer: FormError"),
    ],
)
def test_errors(error: Exception, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dns.query, "tcp", ask)
    assert ask_dns("a.example", "A", "192.0.2.53", tcp=True) == {"error": told}
