"""The file that a configuration includes and that need not be there: not yet, or lost."""

from pathlib import Path

import pytest

from e2e.support import urlward
from urlward.commands.doctor import findings
from urlward.config import Config, read_config
from urlward.records.watches import Watches
from urlward.state import included
from urlward.state.audit import append
from urlward.state.included import LastIncluded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "urlward.toml"
    path.write_text('state = "state"\ninclude = ["own.toml"]\n')
    return path


def edit(path: Path) -> None:
    """As the dashboard adds a table."""
    own, state = path.with_name("own.toml"), path.with_name("state")
    state.mkdir(mode=0o700, exist_ok=True)
    own.write_text("[[rule]]\naction = 'monitor'\n")
    append(state, "Ann (dashboard)", "edited", 0, file=str(own), table="rule.0", keys=["action"])


def test_it_is_not_there_yet_or_was_lost(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, state = path.with_name("own.toml"), path.with_name("state")
    last = LastIncluded(read_config(path), state)
    assert (last.lost, last.absent) == ("", f"{own}: not there: nothing is included from it")
    edit(path)
    assert (last.lost, last.absent) == ("", "")
    own.unlink()
    assert last.lost.startswith(f"{own}: gone, and the dashboard had written to it")
    # The log is not read each time.
    monkeypatch.setattr(included, "find_changes", None)
    assert last.lost
    own.write_text("")
    assert last.lost == ""
    assert LastIncluded(Config(), state).absent == ""


def test_a_check_says_so(path: Path) -> None:
    def check() -> list[str]:
        return urlward("run", "--check", "--config", path).stdout.splitlines()

    not_yet = f"{path.with_name('own.toml')}: not there: nothing is included from it"
    assert check() == ["configuration ok", not_yet]
    edit(path)
    assert check() == ["configuration ok"]
    path.with_name("own.toml").unlink()
    said = check()
    assert said[0] == "configuration ok"
    assert ": gone, and the dashboard had written to it" in said[1]
    wrong = [finding for finding in findings(path, read_config(path)) if finding.about == "configuration"]
    assert [finding.state for finding in wrong] == ["ok", "wrong"]


def test_the_loss_is_an_alarm_until_it_is_back(path: Path) -> None:
    edit(path)
    last, said = LastIncluded(read_config(path), path.with_name("state")), list[str]()
    watches = Watches(
        [], path.with_name("state"), lambda *_, **__: None, lost=lambda: last.lost,
        alarm=lambda kind, *_, **__: said.append(kind),
    )  # fmt: skip
    watches.look()
    assert said == []
    path.with_name("own.toml").unlink()
    watches.look()
    watches.look()
    assert said == ["included"]
    path.with_name("own.toml").write_text("")
    watches.look()
    assert said == ["included", "included-back"]
