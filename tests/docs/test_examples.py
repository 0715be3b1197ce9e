"""Every example of the documentation is executed: shell, configuration, lists."""

import argparse
import configparser
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import in_turns
from docs.documents import DOCS, PAGES, README, ROOT, Block, blocks, code, rows, sections
from rows import each_row
from urlward import cli
from urlward.config import read_config

LANGUAGES = {"sh", "console", "toml", "list", "ini", "python", "text"}
TOOLS = ("awk", "cmp", "cp", "date")
NOTHING = (
    "git",
    "pip",
    "pipx",
    "python3",
    "mitmdump",
    "pytest",
    "systemctl",
    "systemd-sysusers",
    "sudo",
    "ssh",
    "tar",
    "cd",
    "apt-get",
    "install",
    "ln",
    "podman",
    "packaging/build-deb",
)
"""Programs in examples that do nothing here; any other is an error."""

STUB = """#!/bin/sh
# What needs neither network nor root is run; of all else the arguments are kept, for the parser.
case "$1 $*" in
*" /etc/"*) ;;
keygen\\ *|compile\\ *|check\\ *|info\\ *|import\\ *) exec "$REAL" "$@" ;;
sign\\ *|rotate\\ *|delta\\ *|patch\\ *|script\\ *|files\\ *|completion\\ *) exec "$REAL" "$@" ;;
run\\ *" --check"*) exec "$REAL" "$@" ;;
"lab lab replay "*) exec "$REAL" "$@" -o replayed ;;
esac
printf '%s\\037' "$@" >>"$CALLS"
printf '\\036' >>"$CALLS"
"""
UV = """#!/bin/sh
[ "$1" = run ] || exit 0
shift
exec "$@"
"""

FILES = {
    # Long enough for a delta to be shorter.
    "feed.txt": "".join(f"n{n}.example id={n}\n" for n in range(200)),
    "phishing.txt": "login.example category=phishing\n",
    "easylist.txt": "[Adblock Plus 2.0]\n||ads.example^\n",
    "urlhaus.csv": '"1","2026-11-01 10:00:00","http://192.0.2.9/a.bin","online","","malware_download","","","x"\n',
    "export.csv": "No;Link\n1;http://example.test/page\n",
    "squidguard/db/adverts/domains": "ads.example\n",
}
"""What a reader of the examples has already."""


def each(*languages: str) -> list[object]:
    return [pytest.param(b, id=b.place) for page in PAGES for b in blocks(page, *languages)]


def named(block: Block) -> Path | None:
    """The file that a block's first line says it is."""
    first = block.text.partition("\n")[0]
    name = first.removeprefix("# ")
    return Path(name) if first.startswith("# ") and name == Path(name).name and Path(name).suffix else None


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(raised.value.code, int)
    return raised.value.code


@each_row("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: no such language: {block.language!r}"


@pytest.mark.parametrize(
    "page",
    in_turns(*(p for p in PAGES if blocks(p, "sh", "console"))),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_shell_examples(page: Path, tmp_path: Path) -> None:
    """A page's are run in order, in a folder that has what its other blocks say."""
    work, path = tmp_path / "work", tmp_path / "bin"
    for name, text in FILES.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    (work / "access.log.gz").write_bytes(gzip.compress(b"http://example.test/page\n"))
    for block in blocks(page, "toml", "list"):
        if name := named(block):
            (work / name).write_text(block.text)
    path.mkdir()
    for tool in TOOLS:
        (path / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    for name, script in (("urlward", STUB), ("uv", UV), *((name, "#!/bin/sh\n") for name in NOTHING)):
        program = (work if "/" in name else path) / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script)
        program.chmod(0o755)
    calls = tmp_path / "calls"
    calls.touch()
    real = Path(sys.executable).with_name("urlward")
    shell = shutil.which("sh") or pytest.fail("no shell")
    script = "cd() { :; }\n"
    for block in blocks(page, "sh", "console"):
        lines = block.text.splitlines(keepends=True)
        if block.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        script += "".join(lines).replace("/opt/urlward/bin/", "").replace(" …", "")
    done = subprocess.run(
        [shell, "-e", "-c", script],
        cwd=work,
        env={**os.environ, "PATH": str(path), "REAL": str(real), "CALLS": str(calls), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    for call in calls.read_text().split("\036")[:-1]:
        arguments = call.split("\037")[:-1]
        try:
            cli._parser().parse_args(arguments)
        except SystemExit:
            pytest.fail(f"{page.name}: urlward {' '.join(arguments)}")


@each_row("block", each("toml"))
def test_configuration_examples(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "urlward.toml"
    path.write_text(block.text)
    assert read_config(path).model_fields_set


@each_row("block", each("list"))
def test_list_examples(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text(block.text)
    assert run("compile", tmp_path / "list.txt", "-o", tmp_path / "list.ward", "--max-errors", 0) == 0
    assert "0 bad lines" in capsys.readouterr().out


@each_row("block", each("ini"))
def test_ini_examples(block: Block) -> None:
    parser = configparser.ConfigParser(strict=False, delimiters="=")
    parser.read_string(block.text)
    assert parser.sections()


ENTRIES = [entry for cells in rows(sections(DOCS / "lists.md")["Entries"]) for entry in code(cells[0])]


def test_every_entry_of_the_grammars_table_compiles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(ENTRIES) == 13
    (tmp_path / "list.txt").write_text("\n".join(ENTRIES) + "\n")
    assert run("compile", tmp_path / "list.txt", "-o", tmp_path / "list.ward", "--max-errors", 0) == 0
    assert "12 entries, 1 equal one left out, 0 bad lines" in capsys.readouterr().out


LESSON, SATURDAY, EVENING = (
    "2026-11-23T10:00:00+01:00",
    "2026-11-28T23:00:00+01:00",
    "2026-11-23T17:00:00+01:00",
)


def scheduled(page: Path) -> str:
    """The page's configuration with a schedule."""
    (found,) = (block.text for block in blocks(page, "toml") if "[schedule." in block.text)
    return found


def commented() -> str:
    """The example file's groups, which are comments there."""
    text = (ROOT / "lists/urlward.example.toml").read_text()
    groups = text.partition("# Who is filtered how.")[2].partition("# Lists that arrive")[0]
    text = groups[groups.index("# [[group]]") :]
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())


@each_row(
    ("text", "category"),
    [(scheduled(README), "games"), (scheduled(DOCS / "policy.md"), "adverts"), (commented(), "phishing")],
    ids=["README", "policy", "example"],
)
@each_row(("at", "verdict"), [(LESSON, "block"), (SATURDAY, "pass"), (EVENING, "pass")])
@pytest.mark.usefixtures("compiles_here")
def test_a_schedule_blocks_in_it_and_not_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, category: str, at: str, verdict: str
) -> None:
    (tmp_path / "games.txt").write_text(f"listed.test category={category}\nother.test category=none\n")
    (tmp_path / "phishing.txt").write_text(FILES["phishing.txt"])
    path = tmp_path / "urlward.toml"
    path.write_text(text if "\nlist = " in text else f'list = ["games.txt"]\n{text}')
    for url, expected in (("http://listed.test/", verdict), ("http://other.test/", "block")):
        code = run("check", "--config", path, "--client", "192.0.2.5", "--at", at, "--json", url)
        out, err = capsys.readouterr()
        assert not err
        assert json.loads(out)["verdict"] == expected
        assert code == (expected == "block")


REFERENCE = (DOCS / "commands.md").read_text()


def commands(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands of the command line by their names, those that have others included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                yield f"{name} {word}".strip(), sub
                yield from commands(sub, f"{name} {word}".strip())


def test_every_command_is_in_the_reference() -> None:
    spans = [span for row in rows(REFERENCE) for span in code(row[0]) if span.startswith("urlward ")]
    documented = {
        " ".join(word for word in span.split()[1:] if word.isalpha() and word.islower()) for span in spans
    }
    parser = dict(commands(cli._parser()))
    assert documented - set(parser) == set()
    assert {name for name, sub in parser.items() if sub.get_default("command")} - documented == set()


def test_every_flag_of_run_is_in_the_reference() -> None:
    run_parser = dict(commands(cli._parser()))["run"]
    flags = {flag for action in run_parser._actions for flag in action.option_strings} - {"-h", "--help"}
    table = rows(sections(DOCS / "commands.md")["Flags of run"])
    assert {span.split()[0] for row in table for span in code(row[0])} == flags
