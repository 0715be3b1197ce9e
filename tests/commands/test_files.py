import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conftest import run_command
from docs.documents import DOCS, ROOT
from urlward.commands.feeds import LOOK
from urlward.commands.init import add_files_command
from urlward.commands.metrics import NAMES
from urlward.config import SYSTEM, read_config
from urlward.dns.hooks import NAMES as HOOKS
from urlward.engine.errors import UrlwardError


@pytest.fixture
def urlward() -> Callable[..., int]:
    return partial(run_command, add_files_command, "files")


@pytest.mark.usefixtures("usual_umask")
def test_all_that_is_shipped(
    urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    assert urlward(folder) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert set(written) == {path for path in folder.rglob("*") if path.is_file()}
    assert {path.name for path in (folder / "docs").iterdir()} == {path.name for path in DOCS.glob("*.md")}
    assert {path.name for path in (folder / "monitoring").iterdir()} == set(NAMES)
    hooks = folder / "hooks"
    assert {str(path.relative_to(hooks)) for path in hooks.rglob("*") if path.is_file()} == set(HOOKS)
    lists = ROOT / "lists"
    shipped = {path.name: path.read_bytes() for path in lists.iterdir() if path.name != "README.md"}
    found = [*(folder / "lists").iterdir(), *folder.glob("*.toml")]
    assert {path.name: path.read_bytes() for path in found} == shipped
    assert read_config(folder / "urlward.example.toml").model_fields_set
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written)


@pytest.mark.parametrize("there", ["a file", "a link to nothing"])
def test_nothing_is_overwritten(urlward: Callable[..., int], tmp_path: Path, there: str) -> None:
    own = tmp_path / "systemd" / "urlward.service"
    own.parent.mkdir()
    if there == "a file":
        own.write_text("the operator's own")
    else:
        own.symlink_to("nothing")
    with pytest.raises(UrlwardError, match=r"urlward\.service: there already, and is not overwritten"):
        urlward(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path != own.parent] == [own], "nor is a part written"


def test_a_folder_that_cannot_be_written(urlward: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UrlwardError, match="File exists"):
        urlward(tmp_path / "file")


def settings(unit: Path) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in unit.read_text().splitlines() if re.match("[A-Z]", line))


def test_the_unit_of_a_publisher(urlward: Callable[..., int], tmp_path: Path) -> None:
    assert urlward(tmp_path) == 0
    units = tmp_path / "systemd"
    unit, proxy = settings(units / "urlward-publish.service"), settings(units / "urlward.service")
    program = Path(sys.executable).with_name("urlward")
    assert unit["ExecStart"] == f"{program} publish --config /etc/urlward/publisher.toml"
    assert unit["ConditionPathExists"] == "/etc/urlward/publisher.toml", "of one that is not wanted"
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == ("notify", "main", "always")
    assert int(unit["WatchdogSec"]) > 2 * LOOK
    own = {
        "Description",
        "Wants",
        "ExecStart",
        "ExecReload",
        "WatchdogSec",
        "User",
        "Group",
        "StateDirectory",
    }
    own |= {"TimeoutStartSec", "LimitNOFILE"}
    confined = {name: value for name, value in proxy.items() if name not in own}
    assert confined.items() <= unit.items(), "as the filter is"
    assert len(confined) > 25
    user = unit["User"]
    assert user != proxy["User"], "the filter has no business with the key that signs"
    assert f"u {user} " in (units / f"sysusers.d/{user}.conf").read_text()
    assert unit["StateDirectory"] == user


def test_units_of_a_proxy(urlward: Callable[..., int], tmp_path: Path) -> None:
    assert urlward(tmp_path) == 0
    units = tmp_path / "systemd"
    service = settings(units / "urlward.service")
    program = Path(sys.executable).with_name("urlward")
    assert service["ExecStart"] == f"{program} run --config {SYSTEM} --confdir /var/lib/urlward"
    assert "gateway" not in (units / "urlward.service").read_text(), "a proxy needs no rules in the kernel"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == ""
    assert "urlward.socket" in service["Wants"], "which listens before the service does, or not at all"
    assert settings(units / "urlward.socket")["ListenStream"] == "127.0.0.1:8080"
    user = service["User"]
    assert f"u {user} " in (units / "sysusers.d/urlward.conf").read_text()
    assert f"d /var/lib/urlward 0700 {user} {user}" in (units / "tmpfiles.d/urlward.conf").read_text()


def test_units_start_what_they_are_told(urlward: Callable[..., int], tmp_path: Path) -> None:
    assert urlward(tmp_path, "--command", "/usr/bin/urlward") == 0
    assert settings(tmp_path / "systemd/urlward.service")["ExecStart"].startswith("/usr/bin/urlward run ")
    with pytest.raises(UrlwardError, match="a service cannot use a path"):
        urlward(tmp_path / "other", "--command", "/srv/my programs/urlward")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_them(urlward: Callable[..., int], tmp_path: Path) -> None:
    assert urlward(tmp_path) == 0
    names = ("urlward.service", "urlward.socket", "urlward-publish.service")
    units = [tmp_path / "systemd" / name for name in names]
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "urlward" in line]  # not of others' units
    assert (done.returncode, said) == (0, [])
