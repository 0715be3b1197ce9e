"""Titles of wikis' pages."""

from unicodedata import normalize
from urllib.parse import quote

import pytest

from urlward.engine import titles


def test_marks_are_put_in_order_of_a_title_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    longest, one = "ΐ" * 127, "A" + "\u0301\u0316" * 5000
    apart = quote(normalize("NFD", longest))
    assert titles.titled(f"/wiki/{apart}", "") == (f"/wiki/{quote(longest)}", "")
    seen: list[int] = []

    def noted(form: str, text: str) -> str:
        seen.append(len(text))
        return normalize(form, text)  # type: ignore[arg-type]

    monkeypatch.setattr(titles, "normalize", noted)
    titles.titled("/w/index.php", f"title={one.encode().decode('latin-1')}")
    titles.titled(f"/wiki/{quote(one)}", "")
    # The time that this takes may grow by the square.
    assert len(seen) == 2
    assert max(seen) < 1000
