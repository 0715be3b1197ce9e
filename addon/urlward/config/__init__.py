"""The configuration file: all that the flags of ``urlward run`` say, and the block page's texts.

TOML, read strictly: a key that is not known, or a value that does not fit, is an error that names it,
since a misspelt safety setting that is silently ignored is no setting at all.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from urlward.config.feeds import FeedTable, check_names
from urlward.config.gateway import DnsTable, GatewayTable
from urlward.config.objections import ObjectionsTable
from urlward.config.page import HelpLink, PageTable
from urlward.config.policy import GroupTable, PolicyError, RuleTable, ScheduleTable, Use, check_policy
from urlward.config.probing import ProbingTable
from urlward.config.records import AdminTable, RecordsTable, check_days
from urlward.config.tables import FileName, Table, trust_at
from urlward.engine.errors import UrlwardError

__all__ = [
    "SYSTEM", "AdminTable", "Config", "ConfigError", "DnsTable", "FeedTable", "GatewayTable", "GroupTable",
    "HelpLink", "ObjectionsTable", "PageTable", "ProbingTable", "RecordsTable", "RuleTable", "ScheduleTable",
    "Use", "configured", "describe", "read_config",
]  # fmt: skip

SYSTEM = Path("/etc/urlward/urlward.toml")
"""The machine's configuration: the service's, and that of commands which are given none."""

Intercept = Literal["listed", "all", "none"]
OnError = Literal["block", "pass"]


class ConfigError(UrlwardError):
    """A configuration that cannot be used; the message names file and key."""


class Config(Table):
    """The whole file."""

    list: tuple[FileName, ...] = Field(default=(), strict=False)
    key: FileName | None = None
    trust: tuple[FileName, ...] = Field(default=(), strict=False)
    max_errors: str = "1%"
    feed: Annotated[tuple[FeedTable, ...], Field(strict=False), AfterValidator(check_names)] = ()
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
    state: FileName | None = None
    protect: bool = True
    protected: tuple[FileName, ...] = Field(default=(), strict=False)
    group: tuple[GroupTable, ...] = Field(default=(), strict=False)
    rule: tuple[RuleTable, ...] = Field(default=(), strict=False)
    schedule: dict[str, ScheduleTable] = Field(default={})
    pages: dict[str, PageTable] = Field(default={})
    page: PageTable = PageTable()
    gateway: GatewayTable = GatewayTable()
    records: RecordsTable | None = None
    admin: AdminTable | None = None
    objections: ObjectionsTable | None = None
    probing: ProbingTable = ProbingTable()
    mitmproxy: dict[str, str | int | bool] = Field(default={})


def configured(path: Path | None) -> tuple[Path | None, Config]:
    """The configuration of a file, where none is given of the machine's, and else the defaults; and its path.

    Raises:
        ConfigError: as `read_config`.
    """
    found = path or (SYSTEM if SYSTEM.exists() else None)
    return found, read_config(found) if found is not None else Config()


def read_config(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it are from its own folder.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value that does not fit, or keys that contradict
            each other. Names of lists in rules are not looked at, since flags may name other lists.
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
        check_policy(config.group, config.rule, config.schedule, config.pages)
        _check_dns(config)
        check_days(config.records, config.objections)
    except (PolicyError, ValueError) as e:
        raise ConfigError(f"{path}: {e}") from e
    try:
        return _resolved(config, path.resolve().parent)
    except RuntimeError as e:
        raise ConfigError(f"{path}: ~: no such user, or no home directory") from e


def _check_dns(config: Config) -> None:
    """DNS is answered alike for all clients, so it cannot deny what is not blocked for all.

    Raises:
        PolicyError: it is to.
    """
    answer = config.gateway.dns.listed_hosts
    others = [("group", config.group), ("rule", config.rule)]
    places = [f"{name}.0" for name, tables in others if tables]
    places += [f"feed.{n}.use" for n, feed in enumerate(config.feed) if feed.use == "monitor"]
    if answer != "steer" and places:
        raise PolicyError(
            f'gateway.dns.listed_hosts: "{answer}" is for all clients at all times, and {places[0]} is not; '
            'use "steer"'
        )


def describe(error: ValidationError) -> str:
    """The first fault in one line, by the name of its key."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = first["loc"]
    message = _TOML_WORDS.get(first["type"], first["msg"]).removeprefix("Value error, ")
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
    "too_short": "input should not be empty",
}


def _resolved(config: Config, folder: Path) -> Config:
    def at(value: str | None) -> str | None:
        return None if value is None else str(folder / Path(value).expanduser())

    def page(table: PageTable) -> PageTable:
        return table.model_copy(update={"template_dir": at(table.template_dir)})

    changes: dict[str, Any] = {
        "list": tuple(str(at(path)) for path in config.list),
        "key": at(config.key),
        "trust": trust_at(config.trust, folder),
        "state": at(config.state),
        "feed": tuple(feed.at(folder) for feed in config.feed),
        "confdir": at(config.confdir),
        "protected": tuple(str(at(path)) for path in config.protected),
        "records": config.records and config.records.at(folder),
        "admin": config.admin and config.admin.at(folder),
        "page": page(config.page),
        "pages": {name: page(table) for name, table in config.pages.items()},
    }
    return config.model_copy(update=changes)
