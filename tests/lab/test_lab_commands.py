from pathlib import Path

import pytest

from urlward import cli
from urlward.lab import isolation


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as raised:
        cli.main(["lab", *arguments])
    assert raised.value.code == 2
    return capsys.readouterr().err


def test_help_names_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["lab", "--help"])
    assert raised.value.code == 0
    told = capsys.readouterr().out
    assert all(f"    {name} " in told for name in ("run", "up", "shell", "down", "replay"))


def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "check_needs", lambda: None)
    for arguments, words in (
        (("run", "nowhere"), "nowhere: no such file, and no shipped scenario"),
        (("run", "smoke", "--seconds", "0"), "--seconds: 0 is not more than 0"),
        (("run", "smoke", "--in", "nobody"), "lab nobody: is not up"),
        (("down", "--name", "nobody"), "lab nobody: is not up"),
        (("shell", "--name", "../x"), "'../x' is no name for a lab"),
        (("up", "--name", "a b"), "'a b' is no name for a lab"),
    ):
        told = failed(capsys, *arguments)
        assert told.startswith(f"urlward: {words}"), told
        assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--report", "report.html: there already, and no report"),
        ("--keep", "is not empty: name a new folder"),
    ],
)
def test_a_run_writes_over_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    option: str,
    words: str,
) -> None:
    monkeypatch.setattr(isolation, "check_needs", lambda: pytest.fail("the lab would begin"))
    for name in ("report.html", "urlward.toml"):
        (tmp_path / name).write_text("another's")
    assert words in failed(capsys, "run", "smoke", option, str(tmp_path))
    assert {path.read_text() for path in tmp_path.iterdir()} == {"another's"}
