"""Limits and pages that clients meet: ``[proxy]`` and ``[probing]``, limits for clients of an explicit
proxy, in the modes ``regular`` and ``socks5``, and for clients that probe the block list; ``[page]`` and
``[objections]``, texts of the block page, its form, and the server that takes that; ``[files]``, known
files, recognised by their digests.
"""

import re
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from urlward.config.tables import (
    SHAREABLE,
    Address,
    Addresses,
    Bytes,
    FileName,
    Seconds,
    Table,
    split_address,
)

_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII).fullmatch
# What may stand in a proxy auto-configuration file's quotes.
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", re.ASCII).fullmatch


def _range_of(value: int | str) -> range:
    match = _RANGE(str(value))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= 65_535:
        raise ValueError(f'{value!r} is neither a port nor a range of them, such as 443 or "1024-65535"')
    return range(first, last + 1)


def _ports(values: tuple[int | str, ...]) -> tuple[int | str, ...]:
    for value in values:
        _range_of(value)
    return values


def _direct(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_network(value)
        except ValueError as e:
            if not _NAME(value.lower()):
                raise ValueError(f"{value!r} is neither a host, in A-labels, nor a network") from e
    return values


Ports = Annotated[tuple[int | str, ...], SHAREABLE, Field(strict=False, min_length=1), AfterValidator(_ports)]


def port_table(ports: Ports) -> bytes:
    """A byte for each port that there may be: 1 where it is one of these."""
    table = bytearray(1 << 16)
    for each in map(_range_of, ports):
        table[each.start : each.stop] = b"\1" * len(each)
    return bytes(table)


class PacTable(Table):
    """``[proxy.pac]``; its presence has ``/proxy.pac`` and ``/wpad.dat`` served.

    Attributes:
        proxies: HOST:PORT of the proxy as clients reach it, and of others that stand in for it, in turn.
        tls: whether clients speak TLS to the proxies.
        direct: hosts, with all below them, and networks that clients reach without it.
    """

    proxies: Annotated[tuple[Address, ...], Field(strict=False, min_length=1)]
    tls: bool = False
    direct: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_direct)] = ()


class ProxyTable(Table):
    """``[proxy]``: access to the explicit proxy.

    Attributes:
        users: file with those who may use it and hashes of their passwords; all may where absent.
        ports: of destinations. All but SMTP's, which no browser asks for either.
        connect_ports: of those of CONNECT and SOCKS; `ports` where absent.
        allow_local: whether clients on other machines reach loopback and link-local addresses through it.
        pac: proxy auto-configuration.
    """

    users: FileName | None = None
    ports: Ports = ("1-24", "26-65535")
    connect_ports: Ports | None = None
    allow_local: bool = False
    pac: PacTable | None = None


class ProbingTable(Table):
    """``[probing]``: limits by which probing is detected, and the action.

    Attributes:
        entries: different ones that a client may draw block pages for within `window`.
        window: seconds.
        slow: whether a client that draws more is slowed.
        rate: requests a second that one which is slowed may make.
    """

    entries: Annotated[int, Field(ge=2, le=10_000)] = 50
    window: Annotated[Seconds, Field(ge=1, le=24 * 3600)] = 600.0
    slow: bool = False
    rate: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0


class HelpLink(Table):
    """Help link shown on the block page."""

    label: str
    url: str


class PageTable(Table):
    """``[page]``: texts of the block page; every key has a working default (`urlward.proxy.block_page`).

    Attributes:
        operator: who blocks, by name.
        authority_url: http(s) URL of who implements the block.
        objection: how to object: an http(s), ``mailto:`` or ``tel:`` URL, an e-mail address, a phone number,
            or a line of text. None leaves the general sentence alone.
        help: places that help.
        template_dir: a folder with a ``block.html.j2`` or ``block.txt.j2`` that replaces the shipped one.
        default_language: the language of a client that asks for none that we have.
        texts: changes to the shipped texts, by language tag and key (see :mod:`urlward.page.words`).
    """

    operator: str = ""
    authority_url: str | None = None
    objection: str | None = None
    help: tuple[HelpLink, ...] = Field(default=(), strict=False)
    template_dir: FileName | None = None
    default_language: Annotated[str, SHAREABLE] = "en"
    texts: dict[str, dict[str, str]] = Field(default={})


# What would end the URL in a Content-Security-Policy or in an attribute, a query, which the form would lose,
# and an IPv6 address, which that policy has no way to write (CSP level 3, section 2.3.1).
_UNFIT = re.compile(r"[\s;,\"'<>\\?#@\[]|[^\x21-\x7e]").search


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or _UNFIT(value):
        raise ValueError("not an http:// or https:// URL without query")
    return value


class ObjectionsTable(Table):
    """``[objections]``; its presence puts the form on the block page.

    Attributes:
        url: where the form posts to, as clients reach it, by name or IPv4 address. In ASCII, without
            credentials, query, fragment, commas, semicolons and quotes.
        listen: HOST:PORT where objections are taken; another machine takes them where absent.
        proxies: addresses whose word on whom a request is from counts (``X-Forwarded-For``).
        per_hour: objections taken of one client: an IPv4 address, or an IPv6 network of 64 bits.
        per_hour_all: objections taken in all.
        max_length: characters of a message.
    """

    url: Annotated[str, AfterValidator(_url)]
    listen: Address | None = None
    proxies: Addresses = ()
    per_hour: Annotated[int, Field(ge=1, le=1000)] = 3
    per_hour_all: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_length: Annotated[int, Field(ge=1, le=4000)] = 1000

    @property
    def address(self) -> tuple[str, int] | None:
        """`listen` as host, without brackets, and port."""
        return None if self.listen is None else split_address(self.listen)


_TYPE = re.compile(r"\*|[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/(?:\*|[a-z0-9][a-z0-9!#$&^_.+-]{0,126})").fullmatch
_FUNCTION = re.compile(r"|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII).fullmatch


def _types(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if _TYPE(value) is None:
            raise ValueError(
                f"{value!r} is no media type in small letters, such as image/png, image/* or * for all"
            )
    return values


def _function(name: str) -> str:
    if _FUNCTION(name) is None:
        raise ValueError(f"{name!r} is no function, such as package.module:function")
    return name


class FilesTable(Table):
    """``[files]``; its presence has what passes compared with the digests that lists in force have.

    Attributes:
        exact: whether SHA-256, SHA-1 and MD5 digests are compared.
        max_size: bytes of a body, with its content coding undone, up to which it is hashed.
        types: media types of bodies that are looked at: ``type/subtype``, ``type/*`` or ``*``.
        action: what follows an exact match: ``cut`` (and learn), ``learn`` or ``alert``.
        pictures: what follows a perceptual match in a picture or video; ``off`` for no such comparison.
        learn_days: days for which the URL of a match is an own entry; 0 for never.
        learn_folders: whether of a stream in segments its folder is learned, and all that is in it.
        max_picture: bytes of a picture, or of what is looked at of a video at once, up to which it is
            decoded.
        video: whether key frames of videos are compared too.
        processes: that decode pictures, each in a sandbox.
        sandbox: whether that needs all of the sandbox; else it is done with what of it the machine has.
        deadline: seconds that decoding and comparing one picture may take.
        queue: pictures that may wait for that; more are passed over, and counted.
        classifier: ``package:function`` of an institution's own, called in the sandbox; empty for none.
        classifier_threshold: score from which on what it says is an alarm.
    """

    exact: bool = True
    max_size: Annotated[Bytes, Field(ge=1 << 10, le=1 << 40)] = 64 << 20
    types: Annotated[
        tuple[str, ...], SHAREABLE, Field(strict=False, min_length=1), AfterValidator(_types)
    ] = (
        "image/*", "video/*", "audio/*", "application/octet-stream", "application/zip", "application/vnd.rar",
        "application/x-7z-compressed", "application/pdf",
    )  # fmt: skip
    action: Literal["cut", "learn", "alert"] = "cut"
    pictures: Literal["off", "alert", "learn", "cut"] = "off"
    learn_days: Annotated[int, Field(ge=0, le=366)] = 7
    learn_folders: bool = False
    max_picture: Annotated[Bytes, Field(ge=1 << 10, le=1 << 28)] = 16 << 20
    video: bool = True
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    sandbox: bool = True
    deadline: Annotated[Seconds, Field(gt=0, le=60)] = 5.0
    queue: Annotated[int, Field(ge=1, le=10_000)] = 64
    classifier: Annotated[str, AfterValidator(_function)] = ""
    classifier_threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.9

    @property
    def inspects(self) -> bool:
        """Whether pictures are decoded at all."""
        return self.pictures != "off" or bool(self.classifier)
