import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples
from rows import each_row
from urlward.lists.formats import csv_json
from urlward.lists.formats.csv_json import array_items, object_members
from urlward.lists.formats.format import FormatError, SourceStream


def items(text: str) -> list[object]:
    return list(array_items(SourceStream(io.BytesIO(text.encode()))))


def test_items_and_members() -> None:
    assert items(' [1, {"a": [2]}, "b"]') == [1, {"a": [2]}, "b"]
    assert list(object_members(SourceStream(io.BytesIO(b'{"a": [1], "b": {}}')))) == [("a", [1]), ("b", {})]


@each_row("text", ["", "5", "{}"])
def test_no_array(text: str) -> None:
    with pytest.raises(FormatError, match="not a JSON array"):
        items(text)


@each_row("text", ["", "5", "[]"])
def test_no_object(text: str) -> None:
    with pytest.raises(FormatError, match="not a JSON object"):
        object_members(SourceStream(io.BytesIO(text.encode())))


def test_half_a_pair_is_no_question_mark() -> None:
    assert items(r'["a\ud800b", "\udc00", "\ud83d\ude00", "\\ud800", "\ud800\ud83d\ude00"]') == [
        "a\ufffdb", "\ufffd", "\U0001f600", "\\ud800", "\ufffd\U0001f600",
    ]  # fmt: skip


_PIECES = st.sampled_from(
    ["a", "\\", '"', "\ud83d", "\ude00", "\U0001f600", "\ud800", "\udfff", "ud800", "\n", "\u00e9"]
)


@examples(300)
@given(st.lists(st.lists(_PIECES, max_size=8).map("".join), max_size=6), st.integers(1, 40))
def test_any_text_is_read_as_json_reads_it_wherever_it_is_cut(texts: list[str], chunk: int) -> None:
    whole = json.loads(json.dumps(texts))
    wanted = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in whole]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_json, "_CHUNK", chunk)
        assert items(json.dumps(texts)) == wanted


@each_row("chunk", [1, 7, 1 << 16])
@each_row(
    ("text", "problem"),
    [
        ("[" * 100_000, "nested more than 100 deep"),
        ('[{"a":' * 60, "nested more than 100 deep"),
        ('["]]]\\\\", "\\"]]]", ' + "[" * 100, "nested more than 100 deep"),
        ('[{"url": ' + "9" * 5000 + "}]", "a number of more than 1000 digits"),
    ],
)
def test_what_would_end_the_process_is_refused(
    text: str, problem: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_json, "_CHUNK", chunk)
    with pytest.raises(FormatError, match=problem):
        items(text)


@each_row("chunk", [1, 7, 1 << 16])
def test_brackets_and_digits_in_strings_do_not_count(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_json, "_CHUNK", chunk)
    wanted = ["[" * 300 + '\\"[{' * 100, "9" * 3000, [[] for _ in range(300)], {"9" * 2000: 7}]
    assert items(json.dumps(wanted)) == wanted
