import io
import os
import tracemalloc
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lists.support import HTML, PICTURE, SECRET, SENTINEL
from urlward.engine.compiler import Compiler
from urlward.engine.digest import Key
from urlward.engine.entry import Entry
from urlward.engine.grammar import MAX_LINE
from urlward.lists.source import (
    KEPT_ERRORS,
    BadLine,
    ErrorBudget,
    Report,
    SourceError,
    check_budget,
    open_list,
    read_source,
)


class Taken(Compiler):
    """A compiler that shows what it was given."""

    def __init__(self) -> None:
        super().__init__(Key(SECRET))
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)

    @property
    def hosts(self) -> list[str]:
        return [entry.host for entry in self.entries]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "list.txt"


def read(path: Path, content: bytes) -> tuple[Taken, Report]:
    path.write_bytes(content)
    taken, report = Taken(), Report()
    read_source(path, taken, report)
    return taken, report


def refusal(path: Path, content: bytes) -> str:
    with pytest.raises(SourceError) as raised:
        read(path, content)
    text = str(raised.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


class TestLines:
    def test_comments_and_blank_lines_are_no_entries(self, source: Path) -> None:
        taken, report = read(source, b"# one\n\n  ! two\na.example\n \t\nb.example # three\n")
        assert taken.hosts == ["a.example", "b.example"]
        assert (report.lines, report.entries, report.bad) == (2, 2, 0)

    def test_a_hosts_line_is_one_line_of_several_entries(self, source: Path) -> None:
        taken, report = read(source, b"127.0.0.1 localhost\n0.0.0.0 a.example b.example\n")
        assert taken.hosts == ["a.example", "b.example"]
        assert (report.lines, report.entries) == (1, 2)

    @pytest.mark.parametrize(
        "content",
        [
            b"a.example\nb.example\n",
            b"a.example\r\nb.example\r\n",
            b"\xef\xbb\xbfa.example\nb.example\n",
            b"\xef\xbb\xbfa.example\r\nb.example",
            b"a.example\nb.example",
        ],
        ids=["unix", "windows", "bom", "notepad", "no final newline"],
    )
    def test_line_ends_and_byte_order_marks(self, source: Path, content: bytes) -> None:
        taken, report = read(source, content)
        assert taken.hosts == ["a.example", "b.example"]
        assert report.bad == 0
        assert report.ends_with_newline is content.endswith(b"\n")

    def test_lines_that_block_much_are_told(self, source: Path) -> None:
        lines = (
            "a.example",
            "co.uk",
            "@@ac.uk",
            "||com^",
            "any.ck",
            "www.ck",
            "8.0.0.0/5",
            "192.0.2.0/24",
            "0.0.0.0 com",
            "http://www.co.uk/* subdomains",
            "http://www.a.co.uk/* subdomains",
            "http://www.co.uk/*",
        )
        _, report = read(source, "\n".join(lines).encode())
        assert [wide.line for wide in report.wide] == [2, 4, 5, 7, 10]
        assert str(report.wide[0]) == f"{source}:2:1: it blocks a public suffix, with all names under it"

    def test_a_page_that_is_named_behind_a_fragment_s_mark_is_told(self, source: Path) -> None:
        lines = (
            "http://a.example/#/a/5",
            "http://a.example/x#!a id=5",
            "http://a.example/x #/a",
            "http://a.example/x#top",
            "@@http://a.example/x#/a",
            "# http://a.example/x#/a",
        )
        _, report = read(source, "\n".join(lines).encode())
        assert [wide.line for wide in report.wide] == [1, 2]
        assert "behind #" in str(report.wide[0])

    @pytest.mark.parametrize(
        ("lines", "told"),
        [
            ("https://a.example\nhttp://b.example/\nc.example\n", "2 of 3 entries are root pages alone: "),
            ("https://a.example\nc.example\n", ""),
            ("@@http://a.example/\nhttp://a.example/x\nhttp://a.example/?x=1\n", ""),
        ],
    )
    def test_root_pages_in_place_of_hosts_are_told(self, source: Path, lines: str, told: str) -> None:
        _, report = read(source, lines.encode())
        assert report.roots_alone.startswith(told)
        assert bool(report.roots_alone) == bool(told)

    def test_equal_lines_are_all_read(self, source: Path) -> None:
        _, report = read(source, b"a.example\n" * 100_000)
        assert (report.lines, report.entries, report.bad) == (100_000, 100_000, 0)

    def test_progress_grows_to_the_size_of_the_file(self, source: Path) -> None:
        source.write_bytes(b"a.example\n" * 10_000)
        told: list[int] = []
        read_source(source, Taken(), Report(), told.append)
        assert told == sorted(told)
        assert len(told) > 2
        assert told[-1] == source.stat().st_size


class TestBadLines:
    def test_place_and_reason_and_no_text(self, source: Path) -> None:
        content = f"a.example\n\n{SENTINEL}.example id=ok coulour=red\n".encode()
        _, report = read(source, content)
        assert (report.lines, report.entries, report.bad) == (2, 1, 1)
        [bad] = report.bad_lines
        assert (bad.file, bad.line, bad.column) == (str(source), 3, len(SENTINEL) + 16)
        assert str(bad).startswith(f"{source}:3:{bad.column}: not an attribute")
        assert SENTINEL not in str(bad)
        assert "red" not in str(bad)

    @pytest.mark.parametrize(
        ("line", "column"),
        [(b"caf\xe9.example", 4), ("ü-".encode() + b"\xff", 3), (b"\xff", 1)],
        ids=["latin-1", "after a letter of two bytes", "first"],
    )
    def test_what_is_not_utf_8_is_told_by_its_character(self, source: Path, line: bytes, column: int) -> None:
        _, report = read(source, b"a.example\n" + line + b"\nb.example\n")
        assert (report.entries, report.bad) == (2, 1)
        assert report.bad_lines == [BadLine(str(source), 2, column, "not UTF-8")]

    def test_a_nul_far_inside_is_a_bad_line(self, source: Path) -> None:
        _, report = read(source, b"a.example\n" * 1000 + b"b\0.example\nc.example\n")
        assert (report.entries, report.bad) == (1001, 1)
        assert report.bad_lines[0].line == 1001

    @pytest.mark.parametrize("letter", [b"a", "ü".encode(), b"\xff", b"\x80", b"a "], ids=repr)
    def test_a_line_that_never_ends_is_one_bad_line(self, source: Path, letter: bytes) -> None:
        long = letter * (8 * MAX_LINE // len(letter) + 1)
        for end in (b"", b"\n", b"\nb.example\n"):
            taken, report = read(source, b"a.example\n" + long + end)
            assert taken.hosts == ["a.example", "b.example"][: report.entries]
            assert (report.lines, report.bad) == (report.entries + 1, 1)
            assert report.bad_lines == [BadLine(str(source), 2, MAX_LINE, report.bad_lines[0].reason)]
            assert "longer than" in report.bad_lines[0].reason
            assert report.ends_with_newline is end.endswith(b"\n")

    @pytest.mark.parametrize("size", [4 * MAX_LINE - 1, 4 * MAX_LINE, 4 * MAX_LINE + 1])
    def test_no_line_is_lost_where_a_long_one_is_cut(self, source: Path, size: int) -> None:
        taken, report = read(source, b"#" + b"x" * (size - 1) + b"\na.example\n")
        assert taken.hosts == ["a.example"]
        assert report.bad == 1

    def test_the_first_hundred_are_kept_and_all_are_counted(self, source: Path) -> None:
        _, report = read(source, b"a.example\n" + b"?\n" * (KEPT_ERRORS + 50))
        assert report.bad == KEPT_ERRORS + 50
        assert [bad.line for bad in report.bad_lines] == list(range(2, KEPT_ERRORS + 2))

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    *[b"a.example", b"||", b"^", b"http://", b"*/", b"/*", b"@@", b"0.0.0.0 ", b"192.0.2.7/"],
                    *[
                        b" ",
                        b"\t",
                        b"\n",
                        b"\r\n",
                        b"\x0b",
                        b"\xc2\x85",
                        b"\xe2\x80\xa8",
                        b"\x1c",
                        b'"',
                        b"#",
                    ],
                    *[
                        b"id=",
                        b"port=",
                        b"expires=",
                        b"nocase",
                        b"\xff",
                        b"\xed\xb3\xbf",
                        b"%ff",
                        b"%",
                        b"\0",
                    ],
                    *["ä".encode(), b"xn--", b"[", b"]", b":", b".", b"/", b"?", b"&", b"=", b"9" * 5000],
                ]
            ),
            max_size=30,
        ).map(b"".join)
    )
    def test_whatever_the_bytes_nothing_but_a_refusal_is_raised(self, content: bytes) -> None:
        compiler, report = Compiler(Key(SECRET)), Report()
        with NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            with suppress(SourceError):
                read_source(Path(file.name), compiler, report)
        compiler.finish()
        assert report.bad <= report.lines


class TestRefusals:
    @pytest.mark.parametrize(
        "content", [b"", b"\n", b" \r\n\t\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"], ids=repr
    )
    def test_empty(self, source: Path, content: bytes) -> None:
        assert refusal(source, content) == "empty"

    def test_comments_alone(self, source: Path) -> None:
        assert refusal(source, b"# nothing\n! here\n") == "no entry in it"

    def test_blank_for_longer_than_is_sniffed_but_not_empty(self, source: Path) -> None:
        taken, _ = read(source, b"\n" * 10_000 + b"a.example\n")
        assert taken.hosts == ["a.example"]

    @pytest.mark.parametrize(
        "content",
        [
            HTML,
            b"\n\n  " + HTML,
            b"\xef\xbb\xbf" + HTML.lower(),
            b"<!-- moved -->\n" + HTML,
            b"<?xml version='1.0'?><rss/>",
            b"<meta http-equiv=refresh>",
            b" " * 1000 + b"<center>",
        ],
        ids=lambda content: content[:20].decode(),
    )
    def test_a_web_page(self, source: Path, content: bytes) -> None:
        assert "web page" in refusal(source, content)

    @pytest.mark.parametrize(
        "content",
        [
            PICTURE,
            b"a.example\n" * 100 + b"\0" * 4096,
            bytes(range(1, 32)) * 200,
        ],
        ids=["png", "zeros after a crash", "control characters"],
    )
    def test_binary(self, source: Path, content: bytes) -> None:
        assert refusal(source, content) == "binary data, not a list"

    @pytest.mark.parametrize("content", [b"\x1f\x8b\x08\0\0\0\0\0", b"PK\x03\x04" + bytes(30)])
    def test_compressed(self, source: Path, content: bytes) -> None:
        assert refusal(source, content) == "compressed: unpack it first"

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
    def test_utf_16(self, source: Path, encoding: str) -> None:
        text = refusal(source, "\ufeffa.example\nb.example\n".encode(encoding))
        assert text == "UTF-16: save it as UTF-8, or use: iconv -f UTF-16 -t UTF-8"

    def test_nothing_but_bad_lines_names_the_first(self, source: Path) -> None:
        text = refusal(source, f"{SENTINEL}\n?\n".encode())
        assert text.startswith("no entry in it, 2 lines could not be read; first: ")
        assert f"{source}:1:1: " in text
        assert SENTINEL not in text

    def test_a_second_source_answers_for_itself(self, tmp_path: Path) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        one.write_bytes(b"a.example\n?\n")
        two.write_bytes(b"# nothing\n")
        taken, report = Taken(), Report()
        read_source(one, taken, report)
        with pytest.raises(SourceError) as raised:
            read_source(two, taken, report)
        assert str(raised.value) == f"{two}: no entry in it"
        assert raised.value.bad_lines == ()

    def test_missing(self, source: Path) -> None:
        with pytest.raises(SourceError, match="No such file"):
            read_source(source, Taken(), Report())

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="a folder: its format must be said"):
            read_source(tmp_path, Taken(), Report())

    def test_a_pipe_that_nobody_writes_to_does_not_hang(self, source: Path) -> None:
        os.mkfifo(source)
        with pytest.raises(SourceError, match="not a regular file"):
            read_source(source, Taken(), Report())

    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
    def test_a_device(self, device: str) -> None:
        with pytest.raises(SourceError, match="not a regular file"):
            open_list(Path(device))

    def test_a_name_that_no_file_has(self) -> None:
        with pytest.raises(SourceError, match="embedded null"):
            open_list(Path("a\0b"))

    def test_a_disk_that_fails_half_way(self, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing(io.BytesIO):
            def readline(self, *_: object) -> bytes:
                raise OSError(5, "Input/output error")

        monkeypatch.setattr("urlward.lists.source.open_list", lambda _: Failing(b"a.example\n"))
        with pytest.raises(SourceError) as raised:
            read_source(source, Taken(), Report())
        assert str(raised.value) == f"{source}: Input/output error"


class TestMemory:
    @pytest.mark.parametrize("line", [b"x" * (1 << 16), b"#" * 999 + b"\n"], ids=["no newline", "lines"])
    def test_reading_streams(self, source: Path, line: bytes) -> None:
        with source.open("wb") as file:
            file.write(b"a.example\n")
            for _ in range((16 << 20) // (len(line) * 16)):
                file.write(line * 16)
        tracemalloc.start()
        try:
            read_source(source, Taken(), Report())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20 < source.stat().st_size // 3


class TestFormats:
    def test_an_entry_is_taken_as_the_format_means_it(self, source: Path) -> None:
        source.write_text("||a.example^\nb.example##.ad\n||c.example/d\n")
        taken, report = Taken(), Report()
        read_source(source, taken, report, format="adblock")
        assert taken.hosts == ["a.example", "c.example", "c.example"]
        assert (report.lines, report.entries, report.bad, report.unsupported) == (2, 3, 0, 1)
        assert report.unsupported_lines == [BadLine(str(source), 2, 1, "a cosmetic rule: it changes pages")]

    def test_what_cannot_be_taken_is_no_bad_line(self, source: Path) -> None:
        source.write_text("||a.example^\n" + "b.example##.ad\n" * (KEPT_ERRORS + 50))
        report = Report()
        read_source(source, Taken(), report, format="adblock")
        check_budget(report, ErrorBudget(0, None), "list")
        assert (report.unsupported, len(report.unsupported_lines)) == (KEPT_ERRORS + 50, KEPT_ERRORS)

    def test_nothing_but_what_cannot_be_taken_is_refused(self, source: Path) -> None:
        source.write_text(f"{SENTINEL}.example##.ad\n" * 3)
        with pytest.raises(SourceError) as raised:
            read_source(source, Taken(), Report(), format="adblock")
        assert str(raised.value) == (
            f"{source}: no entry in it, 3 lines are of a kind that cannot be taken; "
            f"first: {source}:1:1: a cosmetic rule: it changes pages"
        )

    @pytest.mark.parametrize(
        ("content", "reason"),
        [(HTML, "a web page"), (PICTURE, "binary"), (b"", "empty"), (b"\xef\xbb\xbf \n", "empty")],
    )
    def test_the_guards_hold_for_all(self, source: Path, content: bytes, reason: str) -> None:
        source.write_bytes(content)
        for kind in ("hosts", "adblock", "urls", "urlhaus", "phishtank", "csv", "json", "jsonl", "rpz"):
            with pytest.raises(SourceError, match=f"^{source}: {reason}"):
                read_source(source, Taken(), Report(), format=kind)

    @pytest.mark.parametrize(
        ("kind", "content", "reason"),
        [
            ("json", "{}", "not a JSON array"),
            ("json", '[{"host": "a.example"}', "not whole, or not JSON, after record 1"),
            ("csv", "a,b\n", "no column that says what to block"),
            ("squidguard", "a.example\n", "a folder, or a file named domains or urls"),
            ("nothing", "a.example\n", "format: 'nothing' is not one of"),
        ],
    )
    def test_something_else_than_the_format_says(
        self, source: Path, kind: str, content: str, reason: str
    ) -> None:
        source.write_text(content)
        with pytest.raises(SourceError, match=f"^{source}: {reason}"):
            read_source(source, Taken(), Report(), format=kind)

    @pytest.mark.parametrize(
        ("kind", "content", "whole"),
        [
            ("hosts", "0.0.0.0 a.example\n", True),
            ("hosts", "0.0.0.0 a.example", False),
            ("json", '[{"host": "a.example"}]', True),
            ("phishtank", '[{"phish_id": 1, "url": "http://a.example/"}]', True),
            ("phishtank", "phish_id,url\n1,http://a.example/", False),
        ],
    )
    def test_whether_the_last_line_is_whole(self, source: Path, kind: str, content: str, whole: bool) -> None:
        source.write_text(content)
        report = Report()
        read_source(source, Taken(), report, format=kind)
        assert report.ends_with_newline is whole

    def test_a_folder_of_several_files(self, tmp_path: Path) -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        (tmp_path / "one" / "domains").write_text("a.example\n")
        (tmp_path / "one" / "urls").touch()
        (tmp_path / "two" / "urls").write_text("b.example/c/\n?\n")
        taken, report, told = Taken(), Report(), list[int]()
        read_source(tmp_path, taken, report, told.append, "squidguard")
        assert [(entry.host, entry.category) for entry in taken.entries] == [
            ("a.example", "one"),
            ("b.example", "two"),
        ]
        assert report.bad_lines == [BadLine(str(tmp_path / "two" / "urls"), 2, 1, "a query without a path")]
        assert told == sorted(told)
        assert told[-1] == 25

    def test_a_folder_is_a_source_of_that_format_alone(self, tmp_path: Path) -> None:
        for kind in ("grammar", "hosts"):
            with pytest.raises(SourceError, match="not a regular file"):
                read_source(tmp_path, Taken(), Report(), format=kind)

    def test_a_web_page_in_a_folder_spoils_it(self, tmp_path: Path) -> None:
        (tmp_path / "domains").write_text("a.example\n")
        (tmp_path / "urls").write_bytes(HTML)
        with pytest.raises(SourceError, match=f"^{tmp_path}/urls: a web page"):
            read_source(tmp_path, Taken(), Report(), format="squidguard")
