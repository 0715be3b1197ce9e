"""``urlward demo``: each step does what it says."""

import io
import re
from contextlib import redirect_stdout
from http.client import RemoteDisconnected

import pytest

from urlward import demo


class Screen(io.StringIO):
    """Standard output to which the filter's lines come from another thread."""

    def write(self, text: str) -> int:
        assert not text or text.endswith("\n"), "another line may come in between"
        return super().write(text)


def test_all_of_it() -> None:
    with redirect_stdout(Screen()) as screen:
        demo.demo()
    out = screen.getvalue()
    assert out.count("blocked (451)") == 4
    assert "Done in " in out


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    demo.demo_files()
    out = capsys.readouterr().out
    assert "http://news.demo.test/other.png\n" in out
    for name in ("known", "moved"):
        assert re.search(rf"/{name}\.png\n +[^\n]*: entry DEMO-1 has its SHA-256\n", out)
    assert re.search(r"blocked \(451\) +http://news\.demo\.test/known\.png\n +an own entry, ", out)
    assert re.search(r"[0-9A-Z-]{14}  list demo, entry DEMO-1, sha256: cut\n", out)
    assert re.search(
        r"o-[0-9a-f]{12}  blocks a page \(demo\), until [0-9-]{10} .* known files: list demo", out
    )
    assert "algorithm sha256, " in out.partition("A report for a hotline")[2]
    return out


@pytest.mark.turn(0, 2)
def test_known_files_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_reencoded", lambda _: (b"", ""))
    out = shown(capsys)
    assert "left out: it needs the extra `files`" in out
    assert "smaller.jpg" not in out


@pytest.mark.turn(1, 2)
def test_known_files(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys)
    assert "passed (200)   http://news.demo.test/smaller.jpg" in out
    assert re.search(r"blocked \(451\) +http://news\.demo\.test/smaller\.jpg\n +an own entry, ", out)
    assert re.search(r"[0-9A-Z-]{14}  list demo, entry DEMO-2, pdq, distance [1-9][0-9] of 256: learn\n", out)


def test_an_answer_that_the_new_list_cuts_is_asked_for_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    get = demo.get
    asked: list[str] = []

    def cut_once(port: int, host: str, target: str, **options: bool) -> object:
        asked.append(target)
        if asked.count("/added-later") == 2 and target == "/added-later":
            raise RemoteDisconnected("cut")
        return get(port, host, target, **options)

    monkeypatch.setattr(demo, "get", cut_once)
    demo.demo()
    assert asked.count("/added-later") > 2
    assert capsys.readouterr().out.count("blocked (451)") == 4
