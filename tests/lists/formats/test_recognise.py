import hashlib
import io
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.support import examples
from lists.formats.support import DATA
from rows import each_row
from urlward.engine.entry import Entry
from urlward.engine.grammar import parse_line
from urlward.lists.formats import AUTO, DEFAULTS, FormatError, FormatOptions, convert
from urlward.lists.formats.format import MAX_LINE_BYTES
from urlward.lists.formats.recognise import SNIFFED, likely, recognised
from urlward.lists.source import ErrorBudget, Report, SourceError, check_budget, read_source
from urlward.samples import SAMPLE

LISTS = Path(SAMPLE).parent


@each_row(
    ("name", "format_"),
    [
        ("adblock.txt", "adblock"),
        ("urlhaus.csv", "urlhaus"),
        ("urlhaus.json", "urlhaus"),
        ("phishtank.csv", "phishtank"),
        ("phishtank.json", "phishtank"),
        ("table.json", "json"),
        ("table.jsonl", "jsonl"),
        ("policy.rpz", "rpz"),
        ("projectvic.json", "projectvic"),
        ("threatexchange.csv", "threatexchange"),
    ],
)
def test_samples_are_recognised(name: str, format_: str) -> None:
    assert recognised((DATA / name).read_bytes()[:SNIFFED]) == format_


def test_lists_of_the_grammar_stay() -> None:
    lists = [path for path in LISTS.glob("*.txt") if path.name != "README.txt"]
    assert len(lists) >= 4
    for path in lists:
        assert recognised(path.read_bytes()[:SNIFFED]) == "grammar", path


@each_row(
    ("text", "format_"),
    [
        ("", "grammar"),
        ("# nothing\n", "grammar"),
        ("0.0.0.0 a.example\n127.0.0.1 localhost\n", "grammar"),
        ("0.0.0.0 a.example#x\n", "hosts"),
        ("\ufeff# hosts\n127.0.0.1 localhost\nfe80::1%lo0 localhost\n0.0.0.0 a.example # x\n", "hosts"),
        ("0.0.0.0 a.example id=7\n", "grammar"),
        ("0.0.0.0 a.example\nb.example\n", "grammar"),
        ("[Adblock Plus 2.0]\nexample.test\n", "adblock"),
        ("[uBlock Origin]\n||a.example^\n", "adblock"),
        ("! Title: x\n||a.example^\n", "grammar"),
        ("! Title: x\n||a.example^$third-party\n/banner/ads\n", "adblock"),
        ("! Title: x\n@@||a.example^\na.example##.ad\n", "adblock"),
        ("||a.example/ads/x\n", "adblock"),
        # One of these is an entry here and no rule that would be taken: nobody knows.
        ("||a.example^$third-party\nb.example\n", "grammar"),
        ("http://a.example/x$y\n", "grammar"),
        ("http://a.example/x\nhttp://b.example/y?z=1\n", "grammar"),
        ("$TTL 2h\n@ SOA ns. h. (1 1 1 1 1)\na.example CNAME .\n", "rpz"),
        ("$ORIGIN x.\n@ 3600 IN SOA ns. h. 1 1 1 1 1\na.example CNAME rpz-passthru.\n", "rpz"),
        # A zone, and nothing in it is a policy.
        ("$TTL 2h\n@ SOA ns. h. 1 1 1 1 1\nwww A 192.0.2.1\n", "grammar"),
        ('# id,dateadded,url\n"1","x","http://a.example/"\n', "urlhaus"),
        ("# id,dateadded,url\n", "grammar"),
        ("# SOA and CNAME . are words\n; $TTL 2h\nb CNAME .\n", "grammar"),
        ("# id, dateadded, url are the columns of the source\nhttp://a.example/x\n", "grammar"),
        ("# id,dateadded,url\nhttp://a.example/x\nno-dot\n", "grammar"),
        ("url,category\nhttp://a.example/,x\n", "csv"),
        ('"Domain","Comment"\na.example,"x, y"\n', "csv"),
        ("url,x\na.example\n", "grammar"),
        ("url\nhttp://a.example/\n", "grammar"),
        ("when,what\n1,2\n", "grammar"),
        (f"id,SHA-1,MD5\n7,{'0' * 40},\n", "csv"),
        (f"md5,size\n{'a' * 32},7\n", "csv"),
        (f"link,md5\nhttp://a.example/x,{'a' * 32}\n", "grammar"),
        (f'[{{"sha256": "{"a" * 64}"}}]', "json"),
        (f'{{"md5": "{"a" * 32}"}}\n', "jsonl"),
        # Whether the page is listed or what is found there, only its publisher knows.
        (f'[{{"link": "http://a.example/", "md5": "{"a" * 32}"}}]', "grammar"),
        (f'{{"link": "http://a.example/", "md5": "{"a" * 32}"}}\n', "grammar"),
        (f"md5:{'a' * 32}\nsha1:{'b' * 40} id=7\n", "grammar"),
        ('{"odata.metadata": "x", "value": []}', "grammar"),
        ('[{"x": 1}]', "grammar"),
        ('[{"url": "http://a.example/"}]', "json"),
        ('{"host": "a.example"}\n', "jsonl"),
        ('{"x": "a.example"}\n', "grammar"),
        ("[2001:db8::7]\n", "grammar"),
    ],
)
def test_recognised(text: str, format_: str) -> None:
    assert recognised(text.encode()) == format_


def test_a_line_that_is_cut_counts_for_nothing() -> None:
    head = b"192.0.2.1 a.example\n" * 300
    assert recognised(head[:SNIFFED]) == "hosts"
    assert recognised((b'[{"url": "http://a.example/' + b"x" * SNIFFED)[:SNIFFED]) == "json"


class Taken(list[Entry]):
    """A compiler that keeps entries."""

    def add(self, entry: Entry) -> None:
        self.append(entry)


def _read(path: Path, text: str, format_: str = AUTO) -> tuple[Taken, Report]:
    path.write_text(text)
    taken, report = Taken(), Report()
    read_source(path, taken, report, format=format_)  # type: ignore[arg-type]
    return taken, report


@pytest.mark.parametrize(("piece", "end"), [("$a=", ",,"), ("a$b=", " x")])
def test_a_long_line_takes_no_long_time(piece: str, end: str) -> None:
    """Of which options could begin at each dollar sign."""
    head = (piece * SNIFFED)[: SNIFFED // 2] + f"{end}\n(not one\n"
    assert recognised(head.encode()) == "grammar"
    assert not likely(head.encode(), "grammar")


def test_the_report_says_what_was_recognised(tmp_path: Path) -> None:
    path = tmp_path / "list"
    taken, report = _read(path, "||a.example/x^\na.example##.ad\n")
    assert len(taken) == 2
    assert (report.recognised, report.bad, report.unsupported) == ({str(path): "adblock"}, 0, 1)
    assert _read(path, "a.example\n")[1].recognised == {}
    assert _read(path, "0.0.0.0 a.example\n", "grammar")[1].recognised == {}


@each_row(
    ("text", "format_", "hint"),
    [
        ("a.example\n||a.example^$image\n||b.example/x\n", AUTO, "adblock"),
        ("||a.example/x\n||b.example^\n", "grammar", "adblock"),
        ("192.0.2.1 router\n0.0.0.0 a.example\na.example\n", AUTO, "hosts"),
        ("a.example\n||b\nc/d\n", AUTO, ""),
        ("url,x\nhttp://a.example/,1\n", "hosts", "csv"),
    ],
)
def test_what_could_not_be_read_well_hints_at_the_format(
    tmp_path: Path, text: str, format_: str, hint: str
) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    report = Report()
    with suppress(SourceError):  # where nothing at all could be read
        read_source(path, Taken(), report, format=format_)  # type: ignore[arg-type]
    assert report.likely == hint
    if hint:
        with pytest.raises(SourceError, match=rf": 1 of|: \d+ of .*; it looks like format {hint}$"):
            check_budget(report, ErrorBudget(count=0), "list")


def test_a_source_without_an_entry_hints_too(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("http\n||a.example/x^\n||b.example/y\n")
    with pytest.raises(SourceError, match=r"no entry in it, .*; it looks like format adblock$"):
        read_source(path, Taken(), Report(), format="hosts")  # type: ignore[arg-type]


def test_a_folder_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a folder: its format must be said, such as squidguard"):
        read_source(tmp_path, Taken(), Report())  # type: ignore[arg-type]


_ENTRIES = (
    "a.example", "0.0.0.0 b.example", "||c.example^", "http://d.example/x", "*/e/*", "192.0.2.7", "x.*",
    "[2001:db8::7]", "@@||g.example^", "@@h.example", "0.0.0.0 i.example id=7", "http://k.example/l?m=n",
    "192.0.2.0/24", "||o.*^", "http://p.example/q/*", "@@0.0.0.0 r.example s.example", "t.example category=u",
)  # fmt: skip
_OTHERS = (
    "||f.example^$image", "a##b", "$TTL 2h", "# x", "! y", "/ads/", "|z", "||f.example/g^", "ads", "-ads.",
    "127.0.0.1 localhost", "192.0.2.1 router", "0.0.0.0 z.example#c", "[Adblock Plus 2.0]", "!#if x",
    "!#endif", '"1","x","http://v.example/"', "# id,dateadded,url", "url,category", "http://w.example/,x",
    "w.example CNAME .", "@ SOA ns. h. (", "1 1 1 1 1 )", '{"host": "y.example"}',
)  # fmt: skip
_LINES = st.sampled_from(_ENTRIES + _OTHERS)
_HEADS = (
    "",
    "0.0.0.0 h{}.example",
    "192.0.2.1 h{}.example",
    "||h{}.example/x^",
    "||h{}.example^",
    "h{}.example##.ad",
    '"{}","x","http://h{}.example/"',
    "http://h{}.example/,x",
    "h{} CNAME .",
    '{{"host": "h{}.example"}}',
)
"""Lines of which a list may be full before another kind begins."""


def _entries(text: str, format_: str) -> set[Entry]:
    lines = convert(format_, io.BytesIO(text.encode()), DEFAULTS)
    return {entry for line in lines if isinstance(line, str) for entry in parse_line(line)}


@examples(300)
@given(st.lists(_LINES, max_size=4), st.sampled_from(_HEADS), st.lists(_LINES, max_size=6))
def test_no_entry_of_the_grammar_is_dropped_by_a_guess(
    first: list[str], head: str, others: list[str]
) -> None:
    many = [head.format(i, i) for i in range(SNIFFED // len(head) + 1)] if head else []
    text = "\n".join(first + many + others)
    name = recognised(text.encode()[:SNIFFED])
    assert likely(text.encode()[:SNIFFED], name) != name
    try:
        found = _entries(text, AUTO)
    except FormatError:
        return
    meant = [line for line in first + others if line in _ENTRIES]
    if "!#if x" in first + others:
        # Without it a rule that both know is left out on purpose.
        meant = [line for line in meant if "||" not in line]
    assert _entries("\n".join(meant), "grammar") <= found, name


@each_row(
    ("head", "entry", "format_"),
    [
        ("192.0.2.1 router\n0.0.0.0 h{}.example\n", "whole.test", "hosts"),
        ("192.0.2.1 router\n0.0.0.0 h{}.example\n", "0.0.0.0 a.example id=7", "hosts"),
        ("||b{}.example/path^\n||a{}.example^\n", "http://listed.test/listed.html", "adblock"),
        ("||a.example/x^\nx{}.example##.ad\n", "[2001:db8::7]", "adblock"),
        ("[Adblock Plus 2.0]\n||a{}.example^\n", "whole.test", "adblock"),
        ('# id,dateadded,url\n"{}","x","http://a.example/"\n', "whole.test", "urlhaus"),
        ("phish_id,url\n{},http://a.example/\n", "whole.test", "phishtank"),
        ("url,category\nhttp://a{}.example/,x\n", "whole.test", "csv"),
        ('{{"host": "a{}.example"}}\n', "whole.test", "jsonl"),
        ("$TTL 2h\n@ SOA ns. h. 1 1 1 1 1\nh{} CNAME .\n", "whole.test", "rpz"),
    ],
)
@each_row("count", [0, SNIFFED])
def test_an_entry_that_a_guess_would_drop_is_named(
    tmp_path: Path, head: str, entry: str, format_: str, count: int
) -> None:
    path = tmp_path / "list"
    first, _, last = head.rstrip("\n").rpartition("\n")
    lines = [*first.splitlines(), *(last for _ in range(count // len(last) + 1))]
    text = "".join(f"{line.format(i)}\n" for i, line in enumerate(lines))
    # The last of them has no end, as the last line of a list may.
    for position, more in ((len(lines) + 1, entry), (len(lines) + 1, f"{entry}\n{last.format(1)}\n")):
        if recognised((text + more).encode()[:SNIFFED]) == "grammar":
            continue
        with pytest.raises(SourceError) as caught:
            _read(path, text + more)
        assert str(caught.value) == (
            f"{path}: line {position} is an entry of the list grammar that format {format_}, told by "
            f"the first lines, leaves out: say which it is, --format grammar or --format {format_}"
        )
        assert _read(path, text + more, format_)[0]


def test_a_list_of_hosts_lines_is_the_grammar(tmp_path: Path) -> None:
    text = "".join(f"0.0.0.0 h{i}.example\n" for i in range(2000))
    more = "http://listed.test/listed.html\nwhole.test\n"
    taken, report = _read(tmp_path / "list", text + more)
    assert (len(taken), report.bad, report.recognised) == (2002, 0, {})


@each_row("names", ["A.example", "a.example b.example", "straße.test", "xn--strae-oqa.test", "a"])
@each_row("address", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_the_grammar_reads_a_hosts_line_as_that_format_does(address: str, names: str) -> None:
    line = f"{address}\t{names} # c\n"
    assert _entries(line, "grammar") == _entries(line, "hosts") != set()


def test_rules_that_no_host_is_meant_by_are_no_reason_to_refuse(tmp_path: Path) -> None:
    text = "[Adblock]\n||a.example/x^\n-ads.gif\n_banner.js\n!#if x\n||b.example^\n!#endif\n||c.*^\n||d/*/e\n"
    taken, report = _read(tmp_path / "list", text)
    assert (len(taken), report.unsupported, report.partly) == (3, 4, 1)


def test_a_line_that_is_too_long_is_no_entry(tmp_path: Path) -> None:
    rest = "x" * 3 * MAX_LINE_BYTES
    taken, report = _read(tmp_path / "list", f"||a.example/x^\n{rest}\na.example{rest}\nb##c\n||d.example^\n")
    assert (len(taken), report.bad, report.unsupported) == (3, 2, 1)


@each_row(
    ("text", "format_"),
    [("0.0.0.0 a.example\n", "hosts"), ("||a.example^\n", "adblock"), ("||a.example/x^\n", "adblock")],
)
def test_with_a_category_what_may_be_another_format_is_read_as_that(
    tmp_path: Path, text: str, format_: str
) -> None:
    path = tmp_path / "list"
    path.write_text(text)
    taken, report = Taken(), Report()
    options = FormatOptions(category="malware")
    read_source(path, taken, report, options=options)  # type: ignore[arg-type]
    assert {entry.category for entry in taken} == {"malware"}
    assert report.recognised == {str(path): format_}
    path.write_text("a.example\nb.example category=x\n")
    taken = Taken()
    read_source(path, taken, Report(), options=options)  # type: ignore[arg-type]
    assert {entry.category for entry in taken} == {"malware", "x"}
    path.write_text(f"{text * 2}whole.test\n")
    with pytest.raises(SourceError, match="line 3 is an entry of the list grammar"):
        read_source(path, taken, report, options=options)  # type: ignore[arg-type]


@each_row(
    "rows",
    [
        [f"http://listed.test/p{n};{n}" for n in range(5)],
        ["Link;No", *(f"http://listed.test/p{n};{n}" for n in range(20))],
        [f"http://listed.test/p{n},phishing" for n in range(5)],
        [f"http://listed.test/p{n}|phishing" for n in range(5)],
        [f"{n}\thttps://listed.test/p{n}\tx" for n in range(5)],
        ["Website,Seen", *(f'"http://listed.test/p{n}","2026-01-01"' for n in range(20))],
    ],
)
def test_a_table_of_columns_that_nobody_named_is_no_list_of_pages(tmp_path: Path, rows: list[str]) -> None:
    with pytest.raises(SourceError, match=r"looks like a table .* --format csv --column url="):
        _read(tmp_path / "table.csv", "\n".join(rows) + "\n")


_HASHES = [hashlib.sha256(bytes([n])).hexdigest() for n in range(20)]


@each_row(
    ("rows", "said"),
    [
        (["name,hash", *(f"a.jpg,{each[:32]}" for each in _HASHES)], "table of .* commas .* md5=COLUMN$"),
        (
            [f'{each};"x"' for each in _HASHES],
            r"table of .* sha256=COLUMN \(or pdq=COLUMN\) --delimiter ';'$",
        ),
        (["hash", *(each[:40].upper() for each in _HASHES)], r"list of .* sha1=COLUMN \(the name"),
        ([each[:32] for each in _HASHES], r"list of .* md5=COLUMN \(the name"),
        ([f"{each[:32]}  a b.jpg" for each in _HASHES], r"list of .* md5=COLUMN --delimiter ' ' \(the name"),
    ],
    ids=["comma", "semicolon", "header", "bare", "md5sum"],
)
def test_digests_whose_algorithm_nobody_named_are_no_hosts(
    tmp_path: Path, rows: list[str], said: str
) -> None:
    with pytest.raises(SourceError, match=f"it looks like a {said}"):
        _read(tmp_path / "digests.csv", "\n".join(rows) + "\n")


def test_some_pages_with_a_comma_are_no_table(tmp_path: Path) -> None:
    lines = "".join(f"http://listed.test/a,{n}\nhttp://listed.test/b{n}\n" for n in range(9))
    assert len(_read(tmp_path / "list.txt", lines)[0]) == 18
