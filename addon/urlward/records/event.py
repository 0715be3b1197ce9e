"""What is written down of one thing that happened. Never the URL, host or path that it happened to."""

from dataclasses import dataclass
from typing import Literal

VERSION = 1
"""Of the schema: the fields below and what they mean."""

Kind = Literal[
    "block", "would-block", "cut", "would-cut",
    "list", "feed", "alarm", "allow", "objection", "start", "stop", "gap",
]  # fmt: skip

PERSONAL: frozenset[Kind] = frozenset({"block", "would-block", "cut", "would-cut", "objection"})
"""Kinds that hold a client, and so are records of persons."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; a field that says nothing of its kind is empty.

    Attributes:
        id: 32 hexadecimal digits, unique, in order of time (UUIDv7, RFC 9562, section 5.7).
        time: milliseconds since 1970-01-01 UTC.
        kind: of event.
        node: the machine.
        client: its address, as the privacy level leaves it.
        client_port: its source port (RFC 6302).
        protocol: ``http``, ``tls``, ``tcp`` or ``dns``.
        destination: address that the client meant.
        destination_port: likewise.
        stage: that decided: ``dns``, ``peek`` or ``match``.
        list: name of the list.
        serial: the list's.
        entry: id of the entry.
        category: of the entry.
        verdict: ``block`` or ``monitor``.
        reference: as it stands on the block page.
        digest: of the canonical URL, keyed, 32 hexadecimal digits.
        group: that the client is in.
        detail: a JSON object of what else there is to say.
    """

    id: str
    time: int
    kind: Kind
    node: str = ""
    client: str = ""
    client_port: int = 0
    protocol: str = ""
    destination: str = ""
    destination_port: int = 0
    stage: str = ""
    list: str = ""
    serial: int = 0
    entry: str = ""
    category: str = ""
    verdict: str = ""
    reference: str = ""
    digest: str = ""
    group: str = ""
    detail: str = ""
