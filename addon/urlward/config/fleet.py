"""``[fleet]``: several nodes as one, on Valkey."""

import socket
from collections.abc import Iterator
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from urlward.config.problem import Problem
from urlward.config.tables import SHAREABLE, FileName, Table, node_name, spelt

SCHEMES = {"valkey": False, "valkeys": True}
"""Schemes of URLs, and whether they stand for TLS."""


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise ValueError("not a valkey:// or valkeys:// URL, such as valkeys://valkey.example:6379")
    if "@" in parts.netloc:
        raise ValueError("holds credentials: use user and password_file, so that they stay unsaid")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("only a host and a port are taken of it; keys are told apart by prefix")
    return text


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Urls = Annotated[tuple[Annotated[str, AfterValidator(_url)], ...], Field(strict=False, max_length=100)]


class FleetTable(Table):
    """``[fleet]``: the Valkey by which this node shares what it knows with others.

    Attributes:
        url: of the server, or of several of a Cluster; the first that answers tells the others.
        sentinels: URLs of Sentinels that say which server it is now, in place of `url`.
        service: what the Sentinels call it.
        sentinel_user: of the Sentinels' access lists; ``default`` where absent.
        sentinel_password_file: file with the password for the Sentinels, read anew with each connection; they
            are asked without one where absent.
        user: of Valkey's access lists; ``default`` where absent.
        password_file: file with its password, read anew with each connection.
        ca: PEM file of the authorities that the server's certificate may be of; the system's otherwise.
        certificate: PEM file of this node's own certificate, where the server asks for one.
        key: PEM file of its key, where that is not in the same file.
        seal: key file under which all is sealed that Valkey is given of addresses, one for all nodes; the
            lists' key where absent.
        node: this machine's name among the nodes.
        settle: milliseconds that a DNS answer waits at most for the other nodes to have its addresses.
        prefix: what the names of all keys begin with.
    """

    url: Annotated[Urls, BeforeValidator(_several)] = ()
    sentinels: Urls = ()
    service: Annotated[str, Field(min_length=1, max_length=200)] = "mymaster"
    sentinel_user: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    sentinel_password_file: FileName | None = None
    user: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    password_file: FileName | None = None
    ca: FileName | None = None
    certificate: FileName | None = None
    key: FileName | None = None
    seal: FileName | None = None
    node: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(node_name)] = Field(
        default_factory=socket.gethostname
    )
    settle: Annotated[int, Field(ge=0, le=1_000)] = 5
    prefix: Annotated[str, SHAREABLE, spelt(r"[A-Za-z0-9_.-]{1,64}", "1 to 64 letters, digits and _.-")] = (
        "urlward"
    )

    @property
    def tls(self) -> bool:
        """Whether the servers are spoken to over TLS."""
        return SCHEMES[urlsplit((self.url or self.sentinels)[0]).scheme]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.url) == bool(self.sentinels):
            raise ValueError("url or sentinels is needed, and one of them only")
        for name in ("service", "sentinel_user", "sentinel_password_file"):
            if name in self.model_fields_set and not self.sentinels:
                raise ValueError(f"{name} is given without sentinels")
        schemes = {urlsplit(one).scheme for one in (*self.url, *self.sentinels)}
        if len(schemes) > 1:
            raise ValueError("valkey:// and valkeys:// are both given: one of them for all")
        if self.user is not None and self.password_file is None:
            raise ValueError("user is given without password_file")
        if self.sentinel_user is not None and self.sentinel_password_file is None:
            raise ValueError("sentinel_user is given without sentinel_password_file")
        if self.key is not None and self.certificate is None:
            raise ValueError("key is given without certificate")
        for name in ("ca", "certificate"):
            if getattr(self, name) is not None and not self.tls:
                raise ValueError(f"{name} says nothing without valkeys://")
        return self


def fleet_problems(fleet: FleetTable | None, *, has_key: bool, has_records: bool) -> Iterator[Problem]:
    """Problems of ``[fleet]`` with other keys: what is shared is sealed, and nodes tell of what is recorded.

    Args:
        fleet: the table.
        has_key: whether the lists have a key.
        has_records: whether something is recorded.
    """
    if fleet is None:
        return
    if fleet.seal is None and not has_key:
        text = "needed, a key file that all nodes have (urlward keygen), where there is no key of the lists"
        yield Problem("fleet.seal", text)
    if not has_records:
        yield Problem("fleet", "[records] is needed, by which a node's state and alarms are known")
