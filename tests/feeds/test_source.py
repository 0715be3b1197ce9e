import io
from pathlib import Path

import pytest

from lists.support import OTHER_SECRET, SECRET
from rows import each_row
from urlward.config import FeedTable
from urlward.engine.digest import Key
from urlward.feeds.source import FetchError, beside, content, origin, recipe

KEY = Key(SECRET)
FEED = FeedTable(
    name="a", url="https://lists.example/a.ward?key=1", timeout=7.0, connect_timeout=3.0, max_size=9
)


def with_keys(**keys: str) -> FeedTable:
    return FeedTable(**{"name": "a", "url": "https://lists.example/"} | keys)


def test_origin() -> None:
    made = origin(FEED, {})
    assert (made.url, made.timeout, made.connect_timeout, made.max_bytes) == (FEED.url, 7, 3, 9)
    assert (made.user, made.password, made.token, made.ca, made.proxy) == (None,) * 5


def test_secrets(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"open sesame\r\n")
    made = origin(with_keys(user="u", password_file=str(file)), {})
    assert (made.user, made.password) == ("u", "open sesame")
    assert origin(with_keys(token_env="T"), {"T": "t0ken"}).token == "t0ken"
    assert "sesame" not in repr(made)


@each_row(
    ("data", "message"),
    [
        (None, "No such file or directory"),
        (b"", "is empty, or not text of one line"),
        (b"\n", "is empty, or not text of one line"),
        (b"open\nsez\xc3\xa1me\n", "is empty, or not text of one line"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_no_secrets(data: bytes | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    if data is not None:
        file.write_bytes(data)
    with pytest.raises(FetchError) as raised:
        origin(with_keys(token_file=str(file)), {})
    assert raised.value.reason == "secret"
    assert str(raised.value).startswith(f"token: {file}")
    assert message in str(raised.value)
    assert "sezáme" not in str(raised.value)


def test_no_variable() -> None:
    with pytest.raises(FetchError, match=r"^token: the variable T is not set$"):
        origin(with_keys(token_env="T"), {})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/l.ward", "https://a.example/l.ward.7.delta"),
        ("https://a.example:8/l.ward?key=1&b=/", "https://a.example:8/l.ward.7.delta?key=1&b=/"),
    ],
)
def test_beside(url: str, expected: str) -> None:
    assert beside(url, ".7.delta") == expected


def test_a_recipe_is_of_all_that_an_artifact_is_made_of() -> None:
    changes = (
        {"url": "https://b.example/"},
        {"format": "hosts"},
        {"columns": {"url": "a"}},
        {"category": "c"},
    )
    changes += ({"delimiter": ";"}, {"key": "k"}, {"take": ("2",)})
    made = {recipe(FEED.model_copy(update=change), KEY) for change in changes}
    made |= {recipe(FEED, KEY), recipe(FEED, Key(OTHER_SECRET))}
    assert len(made) == 9
    assert recipe(FEED.model_copy(update={"interval": 60.0, "timeout": 1.0}), KEY) == recipe(FEED, KEY)


def test_content_is_keyed() -> None:
    made = {content(io.BytesIO(text), key, "r") for text in (b"a", b"b") for key in (KEY, Key(OTHER_SECRET))}
    assert len(made) == 4
    assert content(io.BytesIO(b"a"), KEY, "r") != content(io.BytesIO(b"a"), KEY, "s")
