from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import run_command
from records.metrics_support import TOKEN, admin, full
from urlward.commands import metrics as metrics_commands
from urlward.commands.metrics import NAMES, add_metrics_commands
from urlward.engine.errors import UrlwardError


@pytest.fixture
def urlward() -> Callable[..., int]:
    return partial(run_command, add_metrics_commands, "metrics")


def test_files(urlward: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert urlward("files", "-o", str(tmp_path / "new")) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "new" / name) for name in NAMES]
    assert urlward("files", "-o", str(tmp_path / "new")) == 0


def test_files_of_others_are_not_overwritten(urlward: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / NAMES[1]).write_text("mine")
    with pytest.raises(UrlwardError, match="there already, and nothing of urlward: it is not overwritten"):
        urlward("files", "-o", str(tmp_path))
    assert (tmp_path / NAMES[1]).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[1]]


def test_show(
    urlward: Callable[..., int],
    tmp_path: Path,
    port: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exposition, _ = full(tmp_path)
    (tmp_path / "admin.token").write_text(TOKEN)
    config = SimpleNamespace(
        state=str(tmp_path), admin=SimpleNamespace(listen=f"127.0.0.1:{port}", token_file="admin.token")
    )
    monkeypatch.setattr(metrics_commands, "configured", lambda path: (path, config))
    with admin(exposition, port):
        assert urlward("show") == 0
    assert capsys.readouterr().out == exposition.render().decode()


def test_show_without_an_admin_address(urlward: Callable[..., int], tmp_path: Path) -> None:
    config = tmp_path / "urlward.toml"
    config.write_text("")
    with pytest.raises(UrlwardError, match=r"urlward\.toml: no \[admin\] in it"):
        urlward("show", "--config", str(config))


def test_files_for_what_is_configured(urlward: Callable[..., int], tmp_path: Path) -> None:
    config, folder = tmp_path / "urlward.toml", tmp_path / "out"
    config.write_text('[records]\nprivacy = "counts"\n[admin]\nlisten = "0.0.0.0:9999"\n')
    folder.mkdir()
    (folder / "prometheus.yml").write_text("the operator's own")
    assert urlward("files", "-o", str(folder)) == 0
    assert (folder / "prometheus.yml").read_text() == "the operator's own"
    assert '- targets: ["127.0.0.1:8088"]' in (folder / "urlward-scrape.yml").read_text()
    assert urlward("files", "--config", str(config), "-o", str(folder)) == 0
    assert '- targets: ["127.0.0.1:9999"]' in (folder / "urlward-scrape.yml").read_text()
    config.write_text("")
    with pytest.raises(UrlwardError, match=r"no \[admin\] in it"):
        urlward("files", "--config", str(config), "-o", str(folder))
