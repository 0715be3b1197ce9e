"""The configuration file: all that the flags of ``urlward run`` say, and the block page's texts.

TOML, read strictly: a key that is not known, or a value that does not fit, is an error that names it,
since a misspelt safety setting that is silently ignored is no setting at all.
"""

import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from urlward.engine.errors import UrlwardError

FileName = Annotated[str, Field(min_length=1)]
Intercept = Literal["listed", "all", "none"]
OnError = Literal["block", "pass"]


class ConfigError(UrlwardError):
    """A configuration that cannot be used; the message names file and key."""


def _networks(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_network(value)
        except ValueError as e:
            raise ValueError(f"{value!r} is not a network, such as 192.0.2.0/24: {e}") from e
    return values


def _addresses(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_address(value)
        except ValueError as e:
            raise ValueError(f"{value!r} is not an IP address") from e
    return values


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class HelpLink(_Table):
    """A place that helps, shown on the block page."""

    label: str
    url: str


class PageTable(_Table):
    """``[page]``: what the block page says; see `urlward.proxy.block_page.BlockPageSettings`."""

    operator: str = ""
    authority_url: str | None = None
    objection: str | None = None
    help: tuple[HelpLink, ...] = Field(default=(), strict=False)
    template_dir: FileName | None = None
    default_language: str = "en"
    texts: dict[str, dict[str, str]] = {}


Networks = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_networks)]
Addresses = Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_addresses)]
Port = Annotated[int, Field(ge=1, le=65535)]


class DnsTable(_Table):
    """``[gateway.dns]``: how the network's DNS is answered where names are steered.

    Attributes:
        port: where it is answered; rules redirect port 53 to it.
        resolvers: addresses, with a port or without; the system's where empty.
        listed_hosts: what a host listed whole gets: its addresses, ``nxdomain``, or `page_addresses`.
        page_addresses: addresses of this gateway that answer with the block page.
        canary: whether browsers are told to leave DNS over HTTPS off.
        timeout: seconds that a resolver has to answer.
        max_ttl: seconds that a client may keep the addresses of a steered name.
        remember: names resolved lately that are kept, for a list that comes to name one.
    """

    port: Port = 5353
    resolvers: tuple[str, ...] = Field(default=(), strict=False)
    listed_hosts: Literal["steer", "nxdomain", "page"] = "steer"
    page_addresses: Addresses = ()
    canary: bool = True
    timeout: Annotated[float, Field(gt=0, le=30, strict=False)] = 2.0
    max_ttl: Annotated[int, Field(ge=0, le=86_400)] = 300
    remember: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000


class GatewayTable(_Table):
    """``[gateway]``: whose traffic is filtered where urlward stands in the path, and how it gets there.

    Attributes:
        interfaces: where clients come in.
        clients: their networks; all that comes in there where empty.
        exempt: clients that are not filtered.
        never: destinations that are never filtered.
        ports: TCP ports that are filtered.
        steer: whether only what may be listed is filtered, found out by answering DNS; all of `ports`
            otherwise.
        steered: what a TLS connection to a steered address gets whose host has no entry: ``relay``, or
            ``intercept`` for networks that must not let a listed host hide behind another's name.
        fail: whether what would be filtered passes (``open``) or not (``closed``) while no worker lives.
        on_stop: whether the rules go (``down``) or stay (``keep``) when the service is stopped.
        intercept_port: where such connections arrive; `steered` ``intercept`` alone needs it.
        max_addresses: of steered names, at a time, of each family.
        max_change: addresses of names resolved before that one reload may steer.
        dns: see `DnsTable`.
    """

    interfaces: tuple[str, ...] = Field(default=(), strict=False)
    clients: Networks = ()
    exempt: Networks = ()
    never: Networks = ()
    ports: tuple[Port, ...] = Field(default=(80, 443), strict=False, min_length=1)
    steer: bool = False
    steered: Literal["relay", "intercept"] = "relay"
    fail: Literal["open", "closed"] = "open"
    on_stop: Literal["down", "keep"] = "down"
    intercept_port: Port = 8090
    max_addresses: Annotated[int, Field(ge=1, le=10_000_000)] = 65_536
    max_change: Annotated[int, Field(ge=0)] = 1_000
    dns: DnsTable = DnsTable()


class Config(_Table):
    """The whole file."""

    list: tuple[FileName, ...] = Field(default=(), strict=False)
    key: FileName | None = None
    max_errors: str = "1%"
    mode: tuple[str, ...] = Field(default=(), strict=False)
    listen: str | None = None
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    intercept: Intercept = "listed"
    tls_block: Literal["page", "alert"] = "page"
    http2: bool = False
    other: Literal["close", "relay"] = "close"
    on_error: OnError = "block"
    status: Literal[451, 403] = 451
    monitor: bool = False
    confdir: FileName | None = None
    page: PageTable = PageTable()
    gateway: GatewayTable = GatewayTable()
    mitmproxy: dict[str, str | int | bool] = {}


def read_config(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it are from its own folder.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key or a value that does not fit.
    """
    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from e
    except tomllib.TOMLDecodeError as e:
        raise ConfigError(f"{path}: not TOML: {e}") from e
    except UnicodeDecodeError as e:
        line = e.object.count(b"\n", 0, e.start) + 1
        raise ConfigError(f"{path}: not TOML: not UTF-8 (at line {line})") from e
    except RecursionError as e:
        raise ConfigError(f"{path}: not TOML: nested too deeply") from e
    try:
        config = Config.model_validate(data)
    except ValidationError as e:
        raise ConfigError(f"{path}: {describe(e)}") from e
    try:
        return _resolved(config, path.resolve().parent)
    except RuntimeError as e:
        raise ConfigError(f"{path}: ~: no such user, or no home directory") from e


def describe(error: ValidationError) -> str:
    """The first fault in one line, by the name of its key."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = first["loc"]
    message = _TOML_WORDS.get(first["type"], first["msg"])
    if location[0] == "mitmproxy" and len(location) > 1:
        # What follows the option's name is a member of the union of types.
        location, message = location[:2], "input should be text, a whole number, true or false"
    key = ".".join(part if str(part).isprintable() else repr(part) for part in map(str, location))
    return f"{key}: {message[0].lower()}{message[1:]}"


_TOML_WORDS = {
    "extra_forbidden": "no such key",
    "missing": "this key is needed",
    "tuple_type": "input should be an array, [ … ]",
    "dict_type": "input should be a table",
    "model_type": "input should be a table",
    "model_attributes_type": "input should be a table",
    "string_type": "input should be text, in quotes",
    "string_too_short": "input should not be empty",
}


def _resolved(config: Config, folder: Path) -> Config:
    def at(value: str | None) -> str | None:
        return None if value is None else str(folder / Path(value).expanduser())

    changes: dict[str, Any] = {
        "list": tuple(str(at(path)) for path in config.list),
        "key": at(config.key),
        "confdir": at(config.confdir),
        "page": config.page.model_copy(update={"template_dir": at(config.page.template_dir)}),
    }
    return config.model_copy(update=changes)
