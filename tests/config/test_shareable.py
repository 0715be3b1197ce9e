import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field

from rows import each_row
from urlward.config import Config, is_key, read_config
from urlward.config.tables import NOT_SHOWN, SHAREABLE, Shareable, Table, shareable, variables

SHARED = {
    "Config.max_errors", "FeedTable.name", "FeedTable.format", "FeedTable.delimiter", "FeedTable.max_errors",
    "FilesTable.types", "FleetTable.prefix", "PageTable.default_language", "ProxyTable.connect_ports",
    "ProxyTable.ports", "ScheduleTable.zone", "StoreTable.facility",
}  # fmt: skip
"""Keys with texts that leave. Whoever adds one has thought about what operators write there."""


def tables(annotation: Any = Config) -> Iterator[type[Table]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation  # type: ignore[misc]
        for field in annotation.model_fields.values():
            yield from tables(field.annotation)
    for part in get_args(annotation):
        yield from tables(part)


def marks(annotation: Any, metadata: Any = ()) -> bool:
    inner = [one for part in get_args(annotation) for one in [marks(part), isinstance(part, Shareable)]]
    return any(isinstance(one, Shareable) for one in metadata) or any(inner)


def test_what_leaves_is_known():
    found = {
        f"{table.__name__}.{name}"
        for table in tables()
        for name, field in table.model_fields.items()
        if marks(field.annotation, field.metadata)
    }
    assert found == SHARED


@each_row("table", sorted({*tables()}, key=lambda one: one.__name__))
def test_no_other_text_leaves(table: type[Table]):
    """Whatever type a key has, a text in it stays."""
    for form in (
        "planted",
        ("planted", "planted"),
        {"planted": "planted"},
        {"planted": {"planted": "planted"}},
    ):
        made = table.model_construct(**dict.fromkeys(table.model_fields, form))
        shown = shareable(made)
        for name, field in table.model_fields.items():
            known = f"{table.__name__}.{name}" in SHARED
            assert known or "planted" not in json.dumps(shown[field.alias or name]), name


def test_a_new_key_stays_until_it_is_declared():
    class New(Table):
        text: str = ""
        declared: Annotated[str, SHAREABLE] = ""
        word: Literal["a", "b"] | None = None
        number: int = 0
        texts: tuple[str, ...] = ()
        made: str = Field(default_factory=lambda: "host.example")

    shown = shareable(New(text="x", declared="y", word="b", number=3, texts=("x", "x")))
    assert shown == {
        "text": NOT_SHOWN, "declared": "y", "word": "b", "number": 3, "texts": "(2 set, not shown)",
        "made": NOT_SHOWN,
    }  # fmt: skip
    assert shareable(New())["text"] == ""


def test_a_configuration(tmp_path: Any):
    path = tmp_path / "urlward.toml"
    path.write_text(
        """
listen = "192.0.2.1:8080"
workers = 2
[[feed]]
name = "hotline"
url = "https://feed.example/x?key=secret"
interval = "2h"
[[group]]
name = "Kim's"
networks = ["192.0.2.0/24"]
[[group.rule]]
categories = ["games"]
action = "allow"
schedule = "night"
[schedule.night]
zone = "Europe/Madrid"
from = "22:00"
[mitmproxy]
cert_passphrase = "secret"
[records]
privacy = "short"
[records.days]
blocks = 3
operations = 4
"""
    )
    shown = shareable(read_config(path))
    assert shown["listen"] == NOT_SHOWN
    assert shown["workers"] == 2
    assert shown["feed"][0]["name"] == "hotline"
    assert shown["feed"][0]["url"] == NOT_SHOWN
    assert shown["feed"][0]["interval"] == 7200
    assert shown["group"][0]["name"] == NOT_SHOWN
    assert shown["group"][0]["networks"] == "(1 set, not shown)"
    assert shown["group"][0]["rule"][0]["action"] == "allow"
    assert shown["schedule"][0]["zone"] == "Europe/Madrid"
    assert shown["schedule"][0]["from"] == 22 * 60
    assert shown["mitmproxy"] == "(1 set, not shown)"
    assert shown["records"]["privacy"] == "short"
    assert shown["records"]["node"] == NOT_SHOWN
    text = json.dumps(shown)
    assert not [
        word for word in ("secret", "example", "Kim", "night", "192.0.2.0", "192.0.2.1:") if word in text
    ]


@each_row("key", ["feed.0.url", "records.days.blocks", "schedule.zone", "feed.12.name"])
def test_keys(key: str):
    assert is_key(key)


@each_row(
    "key", ["feed", "feed.0.zxqv", "zxqv.test", "feed.example", "feed.url.x", "192.0.2.7", "", ".", "FEED.0"]
)
def test_what_is_no_key(key: str):
    assert not is_key(key)


def test_variables_that_hold_secrets_are_known_by_their_keys() -> None:
    feeds = [
        {"name": "a", "url": "https://a.example/", "token_env": "TOKEN"},
        {"name": "b", "url": "https://b.example/", "user": "u", "password_env": "PASSWORD"},
        {"name": "c", "path": "/TOKEN_ENV"},
    ]
    store = {"kind": "postgresql", "url_env": "DATABASE"}
    records = {
        "days": {"blocks": 1, "operations": 1, "assignments": 1}, "store": [store],
        "assignments": {"kind": "postgresql", "url_env": "WHO"},
    }  # fmt: skip
    config = Config.model_validate({"feed": feeds, "records": records}, strict=False)
    assert sorted(variables(config)) == ["DATABASE", "PASSWORD", "TOKEN", "WHO"]
    assert [*variables(Config())] == []
    named = {name for table in {*tables()} for name in table.model_fields if name.endswith("_env")}
    assert named == {"token_env", "password_env", "url_env"}, "whoever adds one has it be a `Variable`"
