import pytest

from engine.support import matcher
from lists.formats.support import DATA, read
from rows import each_row
from urlward.lists.formats.format import FormatError

URLHAUS = [
    "http://192.0.2.20:41234/bin.sh id=101 category=malware",
    "http://files.example/a%20b.exe id=102 category=malware",
    "https://files.example/?id=7 id=103 category=malware",
]
PHISHTANK = [
    "https://phish.example/login/ id=8000001 category=phishing",
    "https://phish.example/a,b?c=%22d%22 id=8000002 category=phishing",
]


@pytest.mark.parametrize("name", ["urlhaus.csv", "urlhaus.json"])
def test_urlhaus(name: str) -> None:
    found, skipped = read("urlhaus", (DATA / name).read_bytes())
    assert found == URLHAUS
    assert skipped[0].unsupported
    assert not any(s.unsupported for s in skipped[1:])


@pytest.mark.parametrize("name", ["phishtank.csv", "phishtank.json"])
def test_phishtank(name: str) -> None:
    found, [skipped] = read("phishtank", (DATA / name).read_bytes())
    assert found[:2] == PHISHTANK
    assert (skipped.reason, skipped.unsupported) == ("a phish that nobody has verified", True)


def test_exactly_those_pages() -> None:
    check = matcher(*read("phishtank", (DATA / "phishtank.csv").read_bytes())[0]).check_url
    assert check("http://phish.example/login/?any=1").blocked
    for url in ("http://phish.example/", "http://phish.example/login/below", "http://phish.example/a,b"):
        assert not check(url).blocked


def test_a_category_of_ones_own() -> None:
    found, _ = read("urlhaus", (DATA / "urlhaus.csv").read_bytes(), category="botnet")
    assert found[0].endswith(" category=botnet")


@each_row(
    ("head", "row"),
    [
        ("", '"5","2026","http://a.example/"\n'),
        (
            "# id,dateadded,url,url_status,threat,tags,urlhaus_link,reporter\n",
            '"5","2026","http://a.example/"\n',
        ),
        ('"id","url"\n', "5,http://a.example/\n"),
        ("# Dateadded (UTC),URL,URL_status,Threat,Host\n", '"2026","http://a.example/","online"\n'),
    ],
    ids=["none", "older", "no comment", "of a country"],
)
def test_layouts_of_urlhaus(head: str, row: str) -> None:
    [line], skipped = read("urlhaus", "# abuse.ch\n" + head + row)
    assert line in ("http://a.example/ id=5 category=malware", "http://a.example/ category=malware")
    assert ("id=" in line) is ("Dateadded (UTC)" not in head)
    assert not skipped


@each_row("text", ["a,b\n1,2\n", "<html>\n", "{}"])
def test_no_phishtank(text: str) -> None:
    with pytest.raises(FormatError, match="not an export of PhishTank: no columns phish_id and url"):
        read("phishtank", text)


@pytest.mark.parametrize(("kind", "name"), [("urlhaus", "urlhaus.json"), ("phishtank", "phishtank.json")])
def test_half_an_export_is_none(kind: str, name: str) -> None:
    with pytest.raises(FormatError, match="not whole, or not JSON, after record"):
        read(kind, (DATA / name).read_bytes()[:700])


def test_a_row_cut_short_is_a_bad_line() -> None:
    found, [skipped] = read("urlhaus", '"5","2026","http://a.example/"\n"6","2026","http://b.exa')
    assert len(found) == 1
    assert (skipped.line, skipped.unsupported) == (2, False)
