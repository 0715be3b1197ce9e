from pathlib import Path

import pytest
from pydantic import ValidationError

from rows import each_row
from urlward.config import read_config
from urlward.config.proxy import ObjectionsTable

URL = "http://gateway.example:8091/"


def test_it_is_off_where_the_table_is_absent(tmp_path: Path) -> None:
    file = tmp_path / "urlward.toml"
    file.touch()
    assert read_config(file).objections is None
    file.write_text(f'[objections]\nurl = "{URL}"\n')
    assert read_config(file).objections == ObjectionsTable(url=URL)
    assert ObjectionsTable(url=URL).address is None


@each_row(
    ("listen", "address"),
    [
        ("192.0.2.1:8091", ("192.0.2.1", 8091)),
        ("[2001:db8::1]:8091", ("2001:db8::1", 8091)),
        ("gateway.example:80", ("gateway.example", 80)),
    ],
)
def test_listen(listen: str, address: tuple[str, int]) -> None:
    assert ObjectionsTable(url=URL, listen=listen).address == address


@each_row("listen", ["", "8091", ":8091", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:70000", "::1:80"])
def test_listen_of_another_form(listen: str) -> None:
    with pytest.raises(ValidationError, match="HOST:PORT"):
        ObjectionsTable(url=URL, listen=listen)


@pytest.mark.parametrize("url", ["http://gateway.example:8091/", "https://192.0.2.1/objections/"])
def test_url(url: str) -> None:
    assert ObjectionsTable(url=url).url == url


@each_row(
    "url",
    [
        "gateway.example",
        "http://[2001:db8::1]/",
        "ftp://gateway.example/",
        "http://user:secret@gateway.example/",
        "http://gateway.example/?a=b",
        "http://gateway.example/#a",
        "http://gateway.example/; script-src *",
        "http://gateway.example/;script-src",
        "http://gateway.example/a,b",
        "http://gateway.example/'self'",
        "http://gateway.example:0/",
        "http://ñ.example/",
        "javascript:alert(1)",
    ],
)
def test_url_that_is_unfit(url: str) -> None:
    with pytest.raises(ValidationError, match="not an http:// or https:// URL"):
        ObjectionsTable(url=url)


@each_row("name", ["per_hour", "per_hour_all", "max_length"])
@each_row("value", [0, 10_001, "5"])
def test_numbers_have_bounds(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        ObjectionsTable.model_validate({"url": URL, name: value})
