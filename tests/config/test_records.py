import socket
from pathlib import Path

import pytest

from config.support import error
from rows import each_row
from urlward.config import read_config
from urlward.config.records import (
    AdminTable,
    DaysTable,
    RecordsTable,
    StoreTable,
)
from urlward.config.tables import named_address
from urlward.engine.errors import UrlwardError

FULL = """
[records]
node = "gw1"
privacy = "short"
queue = 5000
spool = "1GB"

[[records.store]]
kind = "sqlite"
path = "events.db"

[[records.store]]
kind = "postgresql"
url_file = "~/url"

[[records.store]]
kind = "jsonl"
path = "/var/log/urlward.jsonl"
max_size = "1MB"
keep = 3

[[records.store]]
kind = "syslog"
address = "[2001:db8::1]:6514"
tls = true
ca = "ca.pem"
facility = "audit"

[records.days]
blocks = 30
operations = 365
assignments = 180

[records.assignments]
kind = "postgresql"
url_file = "assignments.url"

[admin]
listen = "127.0.0.1:8088"
token_file = "token"
"""
DAYS = "[records.days]\nblocks = 1\noperations = 1\n"
STORE = f"{DAYS}[[records.store]]\n"


def test_every_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    path.write_text(FULL)
    config = read_config(path)
    assert config.records == RecordsTable(
        node="gw1",
        privacy="short",
        queue=5000,
        spool=1 << 30,
        store=(
            StoreTable(kind="sqlite", path=str(path.parent / "events.db")),
            StoreTable(kind="postgresql", url_file="/home/somebody/url"),
            StoreTable(kind="jsonl", path="/var/log/urlward.jsonl", max_size=1 << 20, keep=3),
            StoreTable(
                kind="syslog",
                address="[2001:db8::1]:6514",
                tls=True,
                ca=str(path.parent / "ca.pem"),
                facility="audit",
            ),
        ),
        days=DaysTable(blocks=30, operations=365, assignments=180),
        assignments=StoreTable(kind="postgresql", url_file=str(path.parent / "assignments.url")),
    )
    assert config.admin == AdminTable(token_file=str(path.parent / "token"))


def test_nothing_is_kept_by_itself(path: Path) -> None:
    path.touch()
    config = read_config(path)
    assert (config.records, config.admin) == (None, None)


def test_what_goes_without_saying(path: Path) -> None:
    path.write_text(DAYS + "[admin]")
    config = read_config(path)
    assert config.records is not None
    assert config.records.node == socket.gethostname()
    assert [Path("/state", store.file) for store in config.records.store] == [Path("/state/records.db")]
    assert StoreTable(kind="jsonl").file == "records.jsonl"
    # In the state folder, not the configuration's.
    assert config.admin == AdminTable(listen="127.0.0.1:8088", token_file="admin.token")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[records]",
            'records.days.blocks: needed, since privacy = "full" keeps records of persons: a number of days',
        ),
        (
            '[records]\nprivacy = "digest"\ndays.blocks = 1',
            'records.days.operations: needed, since privacy = "digest" keeps records of persons: '
            "a number of days",
        ),
        (
            '[records]\nprivacy = "counts"\n[objections]\nlisten = "127.0.0.1:1"\nurl = "http://a.example"',
            "records.days.blocks: needed, since objections are records of persons: a number of days",
        ),
        (
            '[records]\nassignments = {kind = "sqlite"}\ndays = {blocks = 1, operations = 1}',
            "records.days.assignments: needed, since who had an address when is a record of persons: a "
            "number of days after which it is deleted, such as assignments = 180 under [records.days]",
        ),
        (
            '[records]\nassignments = {kind = "jsonl"}\ndays = {blocks = 1, operations = 1}',
            "records: assignments: kind: jsonl is no database",
        ),
        (
            '[records]\nassignments.kind = "sqlite"\nassignments.path = "a"\n'
            'days = {blocks = 1, operations = 1}\nstore = [{kind = "sqlite", path = "a"}]',
            "records: assignments and store.0 are the same place",
        ),
        (
            '[records]\nprivacy = "short"\nlog = true\ndays.blocks = 1\ndays.operations = 1',
            'records: log: writes whole addresses of clients, which privacy = "short" forbids',
        ),
        (
            "[records.days]\nblocks = 0",
            "records.days.blocks: input should be greater than or equal to 1",
        ),
        (
            STORE + 'kind = "sqlite"\nurl_env = "A"',
            "records.store.0: url_env says nothing of a store of kind sqlite",
        ),
        (
            STORE + 'kind = "postgresql"',
            "records.store.0: url_file or url_env is needed, and one of them only",
        ),
        (
            STORE + 'kind = "postgresql"\nurl_file = "a"\nurl_env = "B"',
            "records.store.0: url_file or url_env is needed, and one of them only",
        ),
        (STORE + 'kind = "syslog"', "records.store.0: address is needed"),
        (
            STORE + 'kind = "syslog"\naddress = "log.example:514"\nca = "a"',
            "records.store.0: ca is given without tls = true",
        ),
        (
            STORE + 'kind = "syslog"\naddress = "log.example"',
            "records.store.0.address: 'log.example' is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            STORE + 'kind = "syslog"\naddress = "log.example:1"\nfacility = "local8"',
            "records.store.0.facility: no such facility; one is local0",
        ),
        (
            STORE + 'kind = "sqlite"\n[[records.store]]\nkind = "sqlite"\npath = "records.db"',
            "records: store.0 and store.1 are the same place",
        ),
        (
            DAYS + "[records]\nstore = []",
            "records.store: input should not be empty",
        ),
        (
            '[records]\nnode = "a b"',
            "records.node: a node's name has printable ASCII characters and no spaces",
        ),
        ('[records]\nspool = "1kB"', "records.spool: input should be greater than or equal to 1048576"),
        (
            '[admin]\nlisten = "::1:80"',
            "admin.listen: '::1:80' is not HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080",
        ),
        ("[records]\nsecret = 1", "records.secret: no such key"),
    ],
)
def test_what_does_not_fit(path: Path, text: str, message: str) -> None:
    assert error(path, text) == message


def test_counts_alone_need_no_end(path: Path) -> None:
    path.write_text('[records]\nprivacy = "counts"')
    assert read_config(path).records == RecordsTable(privacy="counts")


@each_row(
    ("text", "address"),
    [
        ("127.0.0.1:8088", ("127.0.0.1", 8088)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert named_address("admin", text, lowest=0) == address


@each_row("text", ["", "8088", ":8088", "::1:8088", "127.0.0.1:", "127.0.0.1:65536", "a:²", "a:-1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UrlwardError, match=r"^admin: .* is not HOST:PORT"):
        named_address("admin", text, lowest=0)
