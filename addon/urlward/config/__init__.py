"""Configuration file: all settings of ``urlward run``, and the block page's texts.

TOML, read strictly: a key that is not known, or a value that does not fit, is an error that names it,
since a misspelt safety setting that is silently ignored is no setting at all.
"""

import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo

from urlward.config.feeds import FeedTable, PublishCanaryTable, PublishTable, check_names
from urlward.config.fleet import FleetTable, fleet_problems
from urlward.config.gateway import CanaryTable, DnsTable, GatewayTable, HookTable
from urlward.config.policy import GroupTable, RuleTable, ScheduleTable, Use, policy_problems
from urlward.config.problem import ConfigError, Problem, key_of
from urlward.config.proxy import FilesTable, HelpLink, ObjectionsTable, PageTable, ProbingTable, ProxyTable
from urlward.config.records import AdminTable, RecordsTable, records_problems
from urlward.config.sources import ARRAYS, TABLES, Sources, in_force, read_sources
from urlward.config.tables import SHAREABLE, WRITTEN, FileName, Listen, Signer, Table, resolved
from urlward.process import SERVICE

__all__ = [
    "SYSTEM", "AdminTable", "CanaryTable", "Config", "ConfigError", "DnsTable", "FeedTable", "FilesTable",
    "FleetTable", "GatewayTable", "GroupTable", "HelpLink", "HookTable", "ObjectionsTable", "PageTable",
    "ProbingTable", "Problem", "ProxyTable", "PublishCanaryTable", "PublishTable", "RecordsTable",
    "RuleTable", "ScheduleTable", "Use", "config_of", "configured", "describe", "is_key", "read_config",
]  # fmt: skip

SYSTEM = Path("/etc/urlward/urlward.toml")
"""The machine's configuration: the service's, and that of commands which are given none."""

MOST_WORKERS = 256

WORKER_TIMEOUT, STEERING_TIMEOUT = 10, 2
"""`Config.worker_timeout` where it is not said; the second where workers answer a network's DNS."""

Intercept = Literal["listed", "all", "none"]
OnError = Literal["block", "pass"]


class Config(Table):
    """Config: the content of the whole file, and of those that it includes."""

    include: tuple[FileName, ...] = Field(default=(), strict=False)
    list: tuple[FileName, ...] = Field(default=(), strict=False)
    key: FileName | None = None
    trust: tuple[Signer, ...] = Field(default=(), strict=False)
    max_errors: Annotated[str, SHAREABLE] = "1%"
    feed: Annotated[tuple[FeedTable, ...], Field(strict=False), AfterValidator(check_names)] = ()
    mode: tuple[str, ...] = Field(default=(), strict=False)
    listen: Listen | None = None
    workers: Annotated[int, Field(ge=1, le=MOST_WORKERS)] = 1
    worker_timeout: Annotated[int, Field(ge=0, le=3_600)] | None = None
    intercept: Intercept = "listed"
    tls_block: Literal["page", "alert"] = "page"
    http2: bool = True
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
    publish: PublishTable | None = None
    probing: ProbingTable = ProbingTable()
    files: FilesTable | None = None
    proxy: ProxyTable = ProxyTable()
    fleet: FleetTable | None = None
    mitmproxy: dict[str, str | int | bool] = Field(default={})

    _sources: Sources | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Compare the settings, wherever they were read from."""
        return isinstance(other, Config) and dict(self) == dict(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def file(self) -> Path | None:
        """The file that it was read from; None for the defaults."""
        return None if self._sources is None else self._sources.path

    @property
    def sources(self) -> Sources | None:
        """The files that it was read from; None for the defaults."""
        return self._sources

    @property
    def keeps_state(self) -> bool:
        """Whether a filter with it has a state folder, and so heeds what is allowed for a while."""
        return bool(self.state or self.feed or self.records is not None)

    def hung_after(self, *, steer: bool = False) -> int:
        """Seconds of silence after which a process hangs: fewer where all of a network's DNS waits for it."""
        if self.worker_timeout is not None:
            return self.worker_timeout
        return STEERING_TIMEOUT if steer else WORKER_TIMEOUT

    def refused(self, *problems: Problem) -> ConfigError:
        """Error to raise where it cannot be used, with file and line of each problem."""
        if self._sources is None:
            return ConfigError(*map(str, problems))
        return self._sources.refused(problems)

    @property
    def text(self) -> bytes:
        """What it was read from, all files as one; empty for the defaults."""
        return b"" if self._sources is None else self._sources.text

    def read_from(self, sources: Sources) -> Self:
        """Note the files that it was read from."""
        self._sources = sources
        return self


def configured(path: Path | None) -> tuple[Path | None, Config]:
    """Read the file that is given, or else the machine's; else the defaults. Also returns its path.

    With the machine's goes the service's state folder, where there is one, whoever asks: in a folder of their
    own nothing that they decide would be in force.

    Raises:
        ConfigError: as `read_config`.
    """
    found = path or (SYSTEM if SYSTEM.exists() else None)
    config = read_config(found) if found is not None else Config()
    is_services = found == SYSTEM and config.keeps_state and "STATE_DIRECTORY" not in os.environ
    if is_services and not config.state and SERVICE.is_dir():
        config = config.model_copy(update={"state": str(SERVICE)})
    return found, config


def read_config(path: Path) -> Config:
    """Read and check a configuration file, or what of it is in force where a filter has started this process;
    relative paths in it are from its own folder.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value that does not fit, or keys that contradict
            each other. Names of lists in rules are not looked at, since flags may name other lists.
    """
    return config_of(in_force(path) or read_sources(path))


def config_of(sources: Sources) -> Config:
    """Check a configuration whose files have been read.

    Raises:
        ConfigError: as `read_config`.
    """
    try:
        config = Config.model_validate(sources.merged, context=WRITTEN)
    except ValidationError as e:
        raise sources.refused([*_problems_of(e)]) from e
    problems = [
        *_list_problems(config),
        *policy_problems(config.group, config.rule, config.schedule, config.pages),
        *_dns_problems(config),
        *_hook_problems(config),
        *_rule_problems(config),
        *records_problems(config.records, config.objections, config.admin),
        *fleet_problems(config.fleet, has_key=bool(config.key), has_records=config.records is not None),
    ]
    if problems:
        raise sources.refused(problems)
    try:
        return _resolved(config, sources).read_from(sources)
    except RuntimeError as e:
        raise ConfigError(f"{sources.path}: ~: no such user, or no home directory") from e


def _resolved(config: Config, sources: Sources) -> Config:
    """Copy of a configuration with file names taken from the folders of the files that they stand in."""
    found: dict[str, Any] = {}
    for key in config.model_fields_set & {*ARRAYS, *TABLES}:
        value = getattr(config, key)
        if isinstance(value, dict):
            found[key] = {
                name: resolved(each, sources.folder(key_of([key, name]))) for name, each in value.items()
            }
        else:
            found[key] = tuple(resolved(each, sources.folder(f"{key}.{n}")) for n, each in enumerate(value))
    return resolved(config.model_copy(update=found), sources.path.resolve().parent)


def _list_problems(config: Config) -> Iterator[Problem]:
    """Refuse empty arrays, which must not mean the sample, or the usual mode, as no array does."""
    if "mode" in config.model_fields_set and not config.mode:
        yield Problem("mode", "empty: name a mode, or leave the key out for regular")
    if "list" in config.model_fields_set and not (config.list or config.feed):
        yield Problem(
            "list",
            "empty, and there is no [[feed]]: name a list, or leave the key out for the shipped sample",
        )


def _dns_problems(config: Config) -> Iterator[Problem]:
    """Problems of the DNS settings: clients are answered alike, so DNS cannot deny what is not blocked for
    all."""
    answer = config.gateway.dns.listed_hosts
    others = [("group", config.group), ("rule", config.rule)]
    places = [f"{name}.0" for name, tables in others if tables]
    places += [f"feed.{n}.use" for n, feed in enumerate(config.feed) if feed.use != "block"]
    if answer != "steer" and places:
        yield Problem(
            "gateway.dns.listed_hosts",
            f'"{answer}" is for all clients at all times, and {places[0]} is not; use "steer"',
        )


def _hook_problems(config: Config) -> Iterator[Problem]:
    """A hook has addresses steered, so there must be steering."""
    hook = config.gateway.hook
    if hook.folder is not None and not config.gateway.steer:
        yield Problem(
            "gateway.hook.folder", "a hook hands answers to a filter that steers: set gateway.steer"
        )
    if hook.dnstap and hook.folder is None:
        yield Problem("gateway.hook.dnstap", "name the folder of its socket: gateway.hook.folder")


def _rule_problems(config: Config) -> Iterator[Problem]:
    """What fails closed does so by the kernel's rules, so there must be some."""
    if config.gateway.fail == "closed" and not config.gateway.interfaces:
        yield Problem(
            "gateway.fail",
            '"closed" is of rules in the kernel: say where clients come in (gateway.interfaces)',
        )


def describe(error: ValidationError) -> str:
    """The first fault in one line, by the name of its key."""
    return str(next(_problems_of(error)))


def _problems_of(error: ValidationError) -> Iterator[Problem]:
    """Problems of a failed validation, one a key."""
    faults = error.errors(include_url=False, include_input=False)
    # What is wrong with an array's element leaves the array without it, and then perhaps empty.
    within = {fault["loc"][:n] for fault in faults for n in range(1, len(fault["loc"]))}
    told: set[str] = set()
    for fault in faults:
        location = fault["loc"]
        if fault["type"] == "too_short" and location in within:
            continue
        message = _TOML_WORDS.get(fault["type"], fault["msg"]).removeprefix("Value error, ")
        if location[0] == "mitmproxy" and len(location) > 1:
            # What follows the option's name is a member of the union of types.
            location, message = location[:2], "input should be text, a whole number, true or false"
        if fault["type"] == "extra_forbidden":
            message += _meant(location)
        elif fault["type"] == "tuple_type" and _holds_tables(location):
            names = ".".join(each for each in location if isinstance(each, str))
            message = f"input should be tables, each under [[{names}]]"
        key = key_of(location)
        if key not in told:
            told.add(key)
            yield Problem(key, f"{message[0].lower()}{message[1:]}")


_KEY = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z0-9_]+)+").fullmatch


def is_key(text: str) -> bool:
    """Whether a text is a key of the configuration with its tables, such as ``feed.0.url``."""
    table: type[BaseModel] | None = Config
    for part in text.split(".") if _KEY(text) else [""]:
        if table is None:
            return False
        if not part.isdecimal():
            fields = _fields_of(table)
            if part not in fields:
                return False
            table = _table_in(fields[part].annotation)
    return True


def _meant(location: Sequence[str | int]) -> str:
    """Suggestion for an unknown key, to put behind the message."""
    *parents, name = location
    known = _keys_of(parents)
    plain = str(name).lower().replace("-", "_")
    # Of a secret not the variable, which more can see, though it is spelt more alike.
    guesses = [f"{plain}_file"] if f"{plain}_file" in known else get_close_matches(plain, known, 1, 0.75)
    if guesses:
        return f"; did you mean {guesses[0]}?"
    if parents and name in Config.model_fields:
        return f"; {name} belongs above the first [table] of the file"
    return ""


def _keys_of(location: Sequence[str | int]) -> list[str]:
    """Keys that a table at a place may have; those of the file where there is none."""
    table: type[BaseModel] = Config
    for part in location:
        fields = _fields_of(table)
        if isinstance(part, str) and part in fields:
            table = _table_in(fields[part].annotation) or table
    return [*_fields_of(table)]


def _holds_tables(location: Sequence[str | int]) -> bool:
    """Whether the key at a place is of an array of tables."""
    table: type[BaseModel] | None = Config
    for part in location:
        fields = _fields_of(table) if table is not None else {}
        if isinstance(part, str):
            table = _table_in(fields[part].annotation) if part in fields else None
    return table is not None


def _fields_of(table: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields of a table by the keys that they have in a file."""
    return {field.alias or name: field for name, field in table.model_fields.items()}


def _table_in(annotation: Any) -> type[BaseModel] | None:
    """Table that a field is, or is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_table_in, get_args(annotation))), None)


_TOML_WORDS = {
    "extra_forbidden": "no such key",
    "missing": "this key is needed",
    "tuple_type": "input should be an array, [ … ]",
    "dict_type": "input should be a table",
    "model_type": "input should be a table",
    "model_attributes_type": "input should be a table",
    "string_type": "input should be text, in quotes",
    "int_type": "input should be a whole number, without quotes",
    "float_type": "input should be a number, without quotes",
    "float_parsing": "input should be a number, without quotes",
    "bool_type": "input should be true or false, without quotes",
    "string_too_short": "input should not be empty",
    "too_short": "input should not be empty",
}
