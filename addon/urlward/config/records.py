"""``[records]`` and ``[admin]``: stores and retention of records, and the dashboard."""

import socket
from collections.abc import Iterator, Mapping
from os.path import normpath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from urlward.config.problem import Problem
from urlward.config.proxy import ObjectionsTable
from urlward.config.tables import SHAREABLE, Address, Bytes, FileName, Served, Table, Variable, node_name

Privacy = Literal["full", "short", "digest", "counts"]
StoreKind = Literal["sqlite", "postgresql", "jsonl", "syslog"]
LONG = 3_653
"""Days for which records of persons are hardly meant to be kept: ten years."""

Days = Annotated[int, Field(ge=1, le=36_500)]

ASSIGNMENTS = "assignments.db"
"""In the state folder: who had an address when, where the configuration does not say."""

FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
)  # fmt: skip
"""In order of their codes (RFC 5424, section 6.2.1)."""

_KEYS: Mapping[StoreKind, frozenset[str]] = {
    "sqlite": frozenset({"path"}),
    "postgresql": frozenset({"url_file", "url_env"}),
    "jsonl": frozenset({"path", "max_size", "keep"}),
    "syslog": frozenset({"address", "tls", "ca", "facility"}),
}
"""What there is to say of each kind of store."""


def _facility(name: str) -> str:
    if name not in FACILITIES:
        raise ValueError("no such facility; one is local0")
    return name


class StoreTable(Table):
    """``[[records.store]]``: one place where events are kept.

    Attributes:
        kind: of place.
        path: of the file, for ``sqlite`` and ``jsonl``; ``records.db`` and ``records.jsonl`` in the state
            folder where absent.
        url_file: file with the ``postgresql://`` URL, which has the password in it; or
        url_env: the environment variable with it.
        max_size: bytes of a file at which the next is begun.
        keep: files before the one that is written.
        address: HOST:PORT of the syslog server.
        tls: whether it is spoken to over TLS (RFC 5425), or plain TCP.
        ca: PEM file of the authorities that its certificate may be of; the system's otherwise.
        facility: of the messages.
    """

    kind: StoreKind
    path: FileName | None = None
    url_file: FileName | None = None
    url_env: Variable | None = None
    max_size: Annotated[Bytes, Field(ge=1 << 16)] = 64 << 20
    keep: Annotated[int, Field(ge=1, le=10_000)] = 10
    address: Address | None = None
    tls: bool = False
    ca: FileName | None = None
    facility: Annotated[str, SHAREABLE, AfterValidator(_facility)] = "local0"

    @property
    def file(self) -> str:
        """Path of the file: `path`, or its name in the state folder; joined to that folder it is right in
        both cases."""
        return self.path or {"sqlite": "records.db", "jsonl": "records.jsonl"}.get(self.kind, "")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key in sorted(self.model_fields_set - {"kind"} - _KEYS[self.kind]):
            raise ValueError(f"{key} says nothing of a store of kind {self.kind}")
        if self.kind == "postgresql" and (self.url_file is None) == (self.url_env is None):
            raise ValueError("url_file or url_env is needed, and one of them only")
        if self.kind == "syslog" and self.address is None:
            raise ValueError("address is needed")
        if self.ca is not None and not self.tls:
            raise ValueError("ca is given without tls = true")
        return self


class DaysTable(Table):
    """``[records.days]``: how long records are kept; for ever where a number is absent and may be.

    Attributes:
        blocks: of what clients met: block, would-block, cut, would-cut, file, objection.
        operations: of the filter itself: list, feed, alarm, allow, start, stop, gap.
        assignments: of who had an address when; needed before any is taken.
    """

    blocks: Days | None = None
    operations: Days | None = None
    assignments: Days | None = None


class RecordsTable(Table):
    """``[records]``: what is recorded, and its stores.

    Attributes:
        node: this machine's name in them.
        privacy: ``full`` addresses of clients; ``short``ened to /24 and /48; a keyed ``digest`` that changes
            daily; or ``counts`` alone, where no event of a person is kept.
        log: whether blocks stand in the log as well, a line each, with the client's whole address.
        queue: events that a worker keeps while they cannot be written.
        spool: bytes of the outbox, in which events wait on the disk while a store is down.
        store: the places; an SQLite file in the state folder where absent.
        days: how long.
        assignments: the database of who had an address when; an SQLite file in the state folder where absent.
    """

    node: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(node_name)] = Field(
        default_factory=socket.gethostname
    )
    privacy: Privacy = "full"
    log: bool = False
    queue: Annotated[int, Field(ge=100, le=10_000_000)] = 100_000
    spool: Annotated[Bytes, Field(ge=1 << 20)] = 256 << 20
    store: Annotated[tuple[StoreTable, ...], Field(strict=False, min_length=1)] = (StoreTable(kind="sqlite"),)
    days: DaysTable = DaysTable()
    assignments: StoreTable | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        places: dict[tuple[str | None, ...], int] = {}
        for n, store in enumerate(self.store):
            place = (store.file, store.url_file, store.url_env, store.address)
            if (first := places.setdefault(place, n)) != n:
                raise ValueError(f"store.{first} and store.{n} are the same place")
        if self.assignments is not None and self.assignments.kind not in ("sqlite", "postgresql"):
            raise ValueError(f"assignments: kind: {self.assignments.kind} is no database")
        if self.assignments is not None and self.assignments.path is not None:
            path = normpath(self.assignments.path)
            same = [n for n, store in enumerate(self.store) if store.file and normpath(store.file) == path]
            if same:
                raise ValueError(f"assignments and store.{same[0]} are the same place")
        if self.log and self.privacy != "full":
            raise ValueError(
                f'log: writes whole addresses of clients, which privacy = "{self.privacy}" forbids'
            )
        return self


class AdminTable(Table):
    """``[admin]``: the dashboard.

    Attributes:
        listen: HOST:PORT.
        token_file: with the first operator's token, made where it is needed; in the state folder where not
            given.
    """

    listen: Served = "127.0.0.1:8088"
    token_file: FileName = "admin.token"  # noqa: S105 - the file's name


def records_problems(
    records: RecordsTable | None, objections: ObjectionsTable | None, admin: AdminTable | None
) -> Iterator[Problem]:
    """Problems of ``[records]``: records of persons need an end, objections a place, and the dashboard a
    store."""
    if records is None:
        if objections is not None and objections.listen is not None:
            yield Problem("objections", "[records] is needed, where they are kept")
        if admin is not None:
            yield Problem("admin", "[records] is needed, which is what the dashboard shows")
        return
    if records.privacy != "counts":
        reason = f'privacy = "{records.privacy}" keeps records of persons'
        missing = [name for name in ("blocks", "operations") if getattr(records.days, name) is None]
    else:
        reason = "objections are records of persons"
        missing = ["blocks"] * (objections is not None and records.days.blocks is None)
    for name in missing:
        yield Problem(f"records.days.{name}", f"needed, since {reason}: a number of days")
    if records.assignments is not None and records.days.assignments is None:
        yield no_days_of_assignments()


def records_notes(records: RecordsTable | None) -> Iterator[Problem]:
    """What of ``[records]`` may be a slip."""
    days_of = {} if records is None else records.days.model_dump(include={"blocks", "assignments"})
    for name, days in days_of.items():
        if days is not None and days > LONG:
            told = f"{days} days are more than {days // 366} years: records of persons are kept for that long"
            yield Problem(f"records.days.{name}", told)


def no_days_of_assignments() -> Problem:
    """Message for assignments that are kept, or are to be, without a number of days."""
    return Problem(
        "records.days.assignments",
        "needed, since who had an address when is a record of persons: a number of days after which it is "
        "deleted, such as assignments = 180 under [records.days]",
    )
