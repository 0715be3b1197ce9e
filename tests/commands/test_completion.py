import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rows import each_row
from urlward import cli
from urlward.commands.init import SHELLS, script
from urlward.docs import topics

ASK = """\
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=1000
_shtab_urlward
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "urlward"
    path.write_text(script(cli._parser(), "bash"))
    return path


def completed(made: Path, *words: str, folder: Path | None = None) -> set[str]:
    """What bash offers for the last of some words."""
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "ask", str(made), "urlward", *words],
        capture_output=True, text=True, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_commands_flags_choices_and_topics(made: Path) -> None:
    assert completed(made, "ga") == {"gateway"}
    assert completed(made, "gateway", "") >= {"up", "down", "status", "print", "install"}
    assert completed(made, "run", "--wor") == {"--workers"}
    assert completed(made, "run", "--intercept", "") == {"listed", "all", "none"}
    assert completed(made, "help", "") >= set(topics())
    assert completed(made, "completion", "") >= set(SHELLS)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_paths(made: Path, tmp_path: Path) -> None:
    (tmp_path / "feed.ward").touch()
    (tmp_path / "folder").mkdir()
    assert completed(made, "info", "f", folder=tmp_path) == {"feed.ward", "folder"}
    assert completed(made, "run", "--list", "f", folder=tmp_path) == {"feed.ward", "folder"}
    assert completed(made, "files", "f", folder=tmp_path) == {"folder"}


@each_row("shell", SHELLS)
def test_every_shell_has_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["completion", shell])
    assert raised.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("gateway", "completion", "--max-errors", "feeds"))


def test_zsh_completes_further_paths() -> None:
    text = script(cli._parser(), "zsh")
    assert '"*:SOURCE:_files"' in text
    assert '"(*)' not in text


@pytest.mark.ours
def test_no_other_command_pays_for_it() -> None:
    program = (
        "import json, sys\nfrom urlward import cli\ncli._parser()\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('shtab')]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
