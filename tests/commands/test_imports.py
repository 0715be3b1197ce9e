import argparse
import gzip
import io
import os
import stat
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from conftest import Done, run_command
from lists.support import HTML, PICTURE, SENTINEL, names_in
from rows import each_row
from urlward.commands.lists import add_format_arguments, add_import_commands, format_of
from urlward.engine.errors import UrlwardError
from urlward.lists.formats import FormatError, FormatOptions

DATA = Path(__file__).parents[1] / "data" / "formats"


type Import = Callable[..., Done]


@pytest.fixture
def imports(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Import:
    """Runs `urlward import` in this process; `stdin` is what it reads."""

    def run(*arguments: str | Path, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        code = run_command(add_import_commands, "import", *arguments)
        return Done(code, *capsys.readouterr())

    return run


def test_lines_go_out_and_reasons_to_standard_error(imports: Import) -> None:
    path = DATA / "hosts.txt"
    code, out, err = imports("--format", "hosts", "--max-errors", "3", path)
    assert code == 0
    assert out.splitlines() == [f"0.0.0.0 {name}.example" for name in ("one", "two", "three")] + [
        "0.0.0.0 four.test", "0.0.0.0 five.test",
    ]  # fmt: skip
    assert err.splitlines() == [
        f"{path}:12:1: not taken: a name led to an address, not blocked",
        f"{path}:13:1: a hosts line is an address and names",
        f"{path}:14:9: host has a character that no name has",
        f"{path}:15:9: a hosts line names hosts, not addresses",
        "standard output: 5 lines, for 4 of the sources; 3 bad lines, 1 of a kind that cannot be taken",
    ]


def test_categories_of_the_source_that_are_taken(imports: Import) -> None:
    path = DATA / "projectvic.json"
    code, out, err = imports(path, "--max-errors", 2)
    assert (code, len(out.splitlines())) == (0, 4)
    assert f"{path}: read as format projectvic" in err
    assert f"{path}:2:1: not taken: of a category that is not taken (--take)" in err
    for chosen, count in (("2", 2), ("0", 1)):
        assert (
            len(imports("--format", "projectvic", path, "--take", chosen, "--max-errors", 2).out.splitlines())
            == count
        )
    both = imports("--format", "projectvic", path, "--take", "0", "--take", "1", "--max-errors", 2)
    assert len(both.out.splitlines()) == 5


def test_progress(imports: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, float]] = []
    monkeypatch.setattr(
        "urlward.commands.lists.progress_bar",
        lambda: nullcontext(lambda what, share: said.append((what, share))),
    )
    path = tmp_path / "hosts.txt"
    path.write_text("".join(f"0.0.0.0 h{n}.test\n" for n in range(20_000)))
    assert imports("--format", "hosts", path).code == 0
    assert {what for what, _ in said} == {str(path)}
    shares = [share for _, share in said]
    assert shares == sorted(shares)
    assert len(set(shares)) > 3
    assert 0 < shares[0] < shares[-1] <= 1
    said.clear()
    assert imports("--format", "hosts", "-", stdin=path.read_bytes()).code == 0
    assert not said


def test_no_progress_in_the_lines_of_a_terminal(
    imports: Import, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[bool] = []
    monkeypatch.setattr(
        "urlward.commands.lists.progress_bar", lambda: nullcontext(lambda _what, _share: began.append(True))
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    path = tmp_path / "hosts.txt"
    path.write_text("0.0.0.0 a.test\n")
    done = imports("--format", "hosts", path)
    assert (done.out, began) == ("0.0.0.0 a.test\n", [])
    assert imports("--format", "hosts", path, "-o", tmp_path / "list.txt").code == 0
    assert began


def test_folders_of_what_is_allowed(imports: Import, tmp_path: Path) -> None:
    for name in ("liste_blanche", "malware"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "domains").write_text(f"{name[-5:]}.example\n")
    done = imports("--format", "squidguard", tmp_path)
    assert (done.code, done.out) == (0, "lware.example category=malware\n")
    assert done.err.startswith(
        f"{tmp_path}/liste_blanche/domains:1:1: not taken: a folder of what is allowed, not blocked: --white"
    )
    done = imports("--format", "squidguard", "--white", "allow", tmp_path)
    assert done.out.splitlines() == [
        "@@anche.example category=liste_blanche",
        "lware.example category=malware",
    ]


def test_rules_that_are_taken_in_part_are_counted(imports: Import) -> None:
    done = imports("--format", "adblock", "-", stdin=b"||a.example/ad\n||a.example/b^\n||a.example/c-\n")
    assert done.out.count("\n") == 4
    assert done.err.splitlines()[-1] == (
        "standard output: 4 lines, for 2 of the sources; 0 bad lines, 1 of a kind that cannot be taken, "
        "1 taken in part"
    )


def test_quiet_is_the_summary_alone(imports: Import) -> None:
    done = imports(
        "--quiet", "--format", "hosts", "--max-errors", "20%", "-", stdin=b"0.0.0.0 a.example\n192.0.2.1 b\n"
    )
    assert done.out == "0.0.0.0 a.example\n"
    assert done.err == (
        "standard output: 1 lines, for 1 of the sources; 0 bad lines, 1 of a kind that cannot be taken\n"
    )


def test_standard_input_and_options(imports: Import) -> None:
    done = imports(
        "--format", "csv", "--delimiter", "tab", "--column", "url=Link", "--column", "id=No",
        "--category", "phishing", "-",
        stdin=b"No\tLink\n7\thttp://a.example/x\n",
    )  # fmt: skip
    assert done.out == "http://a.example/x id=7 category=phishing\n"


def test_several_sources_into_a_file_that_its_owner_alone_reads(imports: Import, tmp_path: Path) -> None:
    output = tmp_path / "list.txt"
    output.write_text("before.example\n")
    done = imports(
        "--format",
        "squidguard",
        DATA / "squidguard",
        DATA / "squidguard/phishing/urls",
        "-o",
        output,
        "--max-errors",
        "1",
    )
    assert done.out == ""
    assert output.read_text().count("\n") == 29
    assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert names_in(tmp_path) == ["list.txt"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HTML, "a web page or XML, not a list"),
        (PICTURE, "binary data, not a list"),
        (gzip.compress(b"0.0.0.0 a.example\n", mtime=0), "compressed: unpack it first"),
        (b"", "empty"),
        (b"\xef\xbb\xbf\n", "empty"),
        (b"# nothing\n", "no entry in it"),
        (f"0.0.0.0 a.example\n{SENTINEL}\n".encode(), "1 of 2 lines could not be read, allowed are 1%"),
        (b"192.0.2.1 a.example\n", "no entry in it, 1 lines are of a kind that cannot be taken; first: "),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_refusal_leaves_the_old_file(
    imports: Import, tmp_path: Path, content: bytes, reason: str, named: bool
) -> None:
    source, output = tmp_path / "source", tmp_path / "list.txt"
    source.write_bytes(content)
    output.write_text("before.example\n")
    with pytest.raises(UrlwardError) as raised:
        imports("--format", "hosts", source if named else "-", "-o", output, stdin=content)
    assert str(raised.value).startswith(f"{source if named else '-'}: {reason}")
    assert SENTINEL not in str(raised.value)
    assert output.read_text() == "before.example\n"
    assert names_in(tmp_path) == ["list.txt", "source"]


def test_a_source_is_not_overwritten(imports: Import, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("0.0.0.0 a.example\n")
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "link"):
        with pytest.raises(UrlwardError, match="is read from, and would be overwritten"):
            imports("--format", "hosts", source, "-o", output)
    assert source.read_text() == "0.0.0.0 a.example\n"


def test_nor_is_a_file_of_a_folder(imports: Import, tmp_path: Path) -> None:
    (tmp_path / "domains").write_text("a.example\n")
    with pytest.raises(UrlwardError, match="is read from, and would be overwritten"):
        imports("--format", "squidguard", tmp_path, "-o", tmp_path / "domains")


def test_what_is_no_list_is_not_overwritten(imports: Import, tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "urlward.toml"
    source.write_text("0.0.0.0 a.example\n")
    output.write_text('state = "/var/lib/urlward"\n')
    with pytest.raises(
        UrlwardError, match=r"urlward\.toml: there already, and no list: it is not overwritten"
    ):
        imports("--format", "hosts", source, "-o", output)
    assert output.read_text() == 'state = "/var/lib/urlward"\n'
    for _ in range(2):  # the list of before may go
        assert imports("--format", "hosts", source, "-o", tmp_path / "list").code == 0


def test_a_missing_source(imports: Import, tmp_path: Path) -> None:
    for kind in ("hosts", "squidguard-urls", "squidguard"):
        with pytest.raises(UrlwardError, match="No such file or directory"):
            imports("--format", kind, tmp_path / "none")


def test_a_folder_that_cannot_be_written(imports: Import, tmp_path: Path) -> None:
    with pytest.raises(UrlwardError, match="No such file or directory"):
        imports("--format", "hosts", DATA / "hosts.txt", "-o", tmp_path / "none" / "list.txt")


def test_nonsense_for_a_budget(imports: Import) -> None:
    with pytest.raises(FormatError, match="max-errors: 'many' is not a count"):
        imports("--format", "hosts", "--max-errors", "many", DATA / "hosts.txt")


def test_a_format_that_is_not_said_is_recognised(imports: Import) -> None:
    done = imports("-", stdin=b"[Adblock Plus 2.0]\n||a.example/b^\nc##d\n")
    assert (done.code, done.out.count("\n")) == (0, 2)
    assert done.err.splitlines()[1:] == [
        "-: read as format adblock, by its first lines",
        "standard output: 2 lines, for 1 of the sources; 0 bad lines, 1 of a kind that cannot be taken",
    ]
    assert (
        imports("-", stdin=b"a.example\n").err
        == "standard output: 1 lines, for 1 of the sources; 0 bad lines\n"
    )


def parsed(*arguments: str) -> tuple[str, FormatOptions]:
    parser = argparse.ArgumentParser()
    add_format_arguments(parser)
    return format_of(parser.parse_args(arguments))


def test_arguments() -> None:
    assert parsed() == ("auto", FormatOptions())
    assert parsed("--format", "csv", "--column", "url=a=b", "--delimiter", "\\t") == (
        "csv",
        FormatOptions({"url": "a=b"}, "\t"),
    )


@each_row(
    "arguments",
    [
        ("--format", "csv", "--column", "url"),
        ("--format", "csv", "--column", "url=a", "--column", "url=b"),
        ("--format", "csv", "--column", "link=a"),
        ("--format", "csv", "--delimiter", ""),
        ("--format", "hosts", "--column", "url=a"),
        ("--column", "url=a"),
    ],
)
def test_arguments_that_make_no_sense(arguments: tuple[str, ...]) -> None:
    with pytest.raises(FormatError):
        parsed(*arguments)


def test_the_output_is_read_as_it_was_meant(imports: Import, tmp_path: Path) -> None:
    """What is written is of the grammar: it comes out of another import as it went in."""
    first = imports("--format", "adblock", DATA / "adblock.txt").out
    assert imports("--format", "grammar", "-", stdin=first.encode()).out == first


def test_a_reader_that_has_gone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("".join(f"0.0.0.0 host{i}.example\n" for i in range(20_000)))
    command = f"{sys.executable} -m urlward import --format hosts {source} | head -1"
    with os.popen(command) as out:
        assert out.read() == "0.0.0.0 host0.example\n"
