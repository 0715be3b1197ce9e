"""Forms of tables: which values of the file they change."""

from typing import Any

import pytest

from rows import each_row
from urlward.dashboard.editing import FIELDS, shown, values_of
from urlward.engine.errors import UrlwardError

FEED = {"name": "one", "url": "https://a.example/", "use": "block", "password_file": "any file"}


@each_row(
    ("kind", "given", "before", "values"),
    [
        ("feed", {"name": "n", "interval": " 1h ", "category": ""}, None,
         {"name": "n", "interval": "1h", "category": None}),
        ("feed", {"name": "other", "interval": "6h"}, FEED, {"interval": None}),
        ("feed", {"use": "block", "format": "auto"}, FEED, {"use": "block", "format": None}),
        ("feed", {"password_file": "any file"}, FEED, {"password_file": "any file"}),
        ("feed", {"password_file": "x.password", "token_file": ""}, FEED,
         {"password_file": "x.password", "token_file": None}),
        ("group", {"networks": "192.0.2.0/24,\n ::/0 ,"}, None, {"networks": ["192.0.2.0/24", "::/0"]}),
        ("feed", {"token_file": "x.bearer"}, None, {"token_file": "x.bearer"}),
        ("group", {"macs": " , "}, {"macs": ["02:00:00:00:00:01"]}, {"macs": None}),
        ("schedule", {"from": "00:00", "to": "08:00"}, {"from": "00:00"}, {"from": "00:00", "to": "08:00"}),
    ],
)  # fmt: skip
def test_what_a_form_changes(
    kind: str, given: dict[str, str], before: dict[str, Any] | None, values: dict[str, Any]
) -> None:
    assert values_of(kind, given, before) == values


@each_row("name", ["/var/lib/urlward/key", "admin.token", "x"])
def test_no_other_file_than_of_credentials_is_sent(name: str) -> None:
    for key in ("password_file", "token_file"):
        with pytest.raises(UrlwardError, match=f"^{key}: a file whose name ends in"):
            values_of("feed", {key: name}, FEED)


@each_row(
    ("more", "others"),
    [
        ({"password_file": "any file"}, []),
        ({"token_file": "any file"}, []),
        ({}, ["password_env"]),
        ({}, ["token_env"]),
        ({}, ["ca", "client_key"]),
    ],
)
def test_what_is_for_one_server_is_sent_to_no_other(more: dict[str, str], others: list[str]) -> None:
    before = {"name": "one", "url": "https://a.example/list"} | more
    for url in ("https://b.example/list", "http://a.example/list", "https://a.example:8443/list"):
        with pytest.raises(UrlwardError, match=r"^url: another server"):
            values_of("feed", {"url": url, **more}, before, others)
    url = "https://A.example/another"
    assert values_of("feed", {"url": url}, before, others) == {"url": url}
    gone = dict.fromkeys(more, "")
    assert values_of("feed", {"url": "https://b.example/", **gone}, before, ["ca"])["url"]
    named = {"url": "https://b.example/", "password_file": "x.password"}
    assert values_of("feed", named, {"name": "one", "url": "https://a.example/"}, ["ca"])


@each_row("kind", FIELDS)
def test_what_is_shown_and_sent_back_changes_nothing(kind: str) -> None:
    written: dict[str, Any] = {
        "name": "one",
        "lists": ["a", "b"],
        "networks": ["192.0.2.0/24"],
        "zone": "UTC",
    }
    before = {field.name: written[field.name] for field in FIELDS[kind] if field.name in written}
    for key, value in values_of(kind, shown(kind, before), before).items():
        assert value == before.get(key) or (key == "action" and value is None)
