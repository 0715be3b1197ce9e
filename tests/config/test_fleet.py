from pathlib import Path

import pytest
from pydantic import ValidationError

from rows import each_row
from urlward.config import ConfigError, FleetTable, read_config

BASE = {"url": "valkey://127.0.0.1", "node": "a"}


def test_one_url_or_several() -> None:
    assert FleetTable.model_validate(BASE).url == ("valkey://127.0.0.1",)
    both = ["valkey://192.0.2.1", "valkey://192.0.2.2:7000"]
    assert FleetTable.model_validate({"url": both}).url == (*both,)
    assert FleetTable.model_validate({"sentinels": both}).sentinels == (*both,)


@each_row(
    ("values", "said"),
    [
        ({"url": "redis://127.0.0.1"}, "not a valkey:// or valkeys:// URL"),
        ({"url": "valkey://user:secret@127.0.0.1"}, "holds credentials"),
        ({"url": "valkey://127.0.0.1/3"}, "only a host and a port"),
        ({"url": "valkey://127.0.0.1:0"}, "not a valkey:// or valkeys:// URL"),
        ({"url": []}, "url or sentinels is needed"),
        ({"sentinels": ["valkey://127.0.0.1"]}, "url or sentinels is needed, and one of them only"),
        ({"service": "x"}, "service is given without sentinels"),
        ({"url": ["valkey://192.0.2.1", "valkeys://192.0.2.2"]}, "one of them for all"),
        ({"user": "x"}, "user is given without password_file"),
        ({"sentinel_password_file": "x"}, "sentinel_password_file is given without sentinels"),
        (
            {"url": (), "sentinels": ["valkey://127.0.0.1"], "sentinel_user": "x"},
            "sentinel_user is given without sentinel_password_file",
        ),
        ({"ca": "x"}, "ca says nothing without valkeys://"),
        ({"url": "valkeys://127.0.0.1", "key": "x"}, "key is given without certificate"),
        ({"node": "a b"}, "no spaces"),
        ({"prefix": "a{b}"}, "1 to 64 letters"),
        ({"settle": 1_001}, "less than or equal to 1000"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        FleetTable.model_validate({**BASE, **values})
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[records]\ndays = { blocks = 1, operations = 1 }\n", "fleet.seal: needed"),
        ('key = "x"\n', "fleet: [records] is needed"),
    ],
)
def test_what_a_fleet_needs_besides(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text(f'{text}[fleet]\nurl = "valkey://127.0.0.1"\n')
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert said in str(raised.value)
